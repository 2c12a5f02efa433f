"""The usual way: a pandas + ColumnTransformer + LightGBM pipeline, scored by `mlflow models serve`, by BentoML, and in
batch. The model is of the family and size of the bundle's, on the same invented encounters.
"""

import os
import subprocess
import sys
from pathlib import Path

from health_predict.bundle.export import Provenance, export
from health_predict.data.cohort import label, select_cohort
from health_predict.data.schema import CLINICAL
from health_predict.data.splits import split
from health_predict.params import BundleParams, Params, PreprocessorParams, SearchParams, SplitParams
from health_predict.simulation.synthetic import generate
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import fit, prepare

ROWS = 20_000
NAMES = [field.name for field in CLINICAL]
BENTO = """
import bentoml, joblib, pandas as pd

@bentoml.service(workers=1)
class Readmission:
    def __init__(self):
        self.pipeline = joblib.load({model!r})

    @bentoml.api
    def predict(self, encounter: dict) -> dict:
        frame = pd.DataFrame([encounter]).reindex(columns={names!r})
        return {{"probability_score": float(self.pipeline.predict_proba(frame)[0, 1])}}
"""


def make_bundle(folder: Path) -> Path:
    """The bundle that is served when none is given: LightGBM's default on invented encounters."""
    splits = split(select_cohort(generate(ROWS, 1)), SplitParams(initial_share=0.95))
    train, validation = label(splits.train, "lt30"), label(splits.validation, "lt30")
    candidate = CANDIDATES["lightgbm"]
    prepared = prepare(candidate.encoding, train, validation, PreprocessorParams())
    fitted = fit("lightgbm", candidate.default(len(train.outcomes)), prepared, SearchParams(), BundleParams.capacity)
    provenance = Provenance(
        "run", "initial", "lt30", (), synthetic=True, simulation=None, git_revision="unknown", seed=1
    )
    export(folder, fitted, train, validation, {}, provenance, Params())
    return folder


def make_pipeline(folder: Path) -> Path:
    """Fit the pipeline; `folder` gets it for joblib, for MLflow, and as a BentoML service."""
    import joblib
    import mlflow
    from lightgbm import LGBMClassifier
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline as steps
    from sklearn.preprocessing import OneHotEncoder

    table = select_cohort(generate(ROWS, 1))
    categories = [field.name for field in CLINICAL if field.kind != "count"]
    encoded = ColumnTransformer(
        [("codes", OneHotEncoder(handle_unknown="ignore"), categories)], remainder="passthrough"
    )
    config = CANDIDATES["lightgbm"].default(ROWS)
    pipeline = steps(encoded, LGBMClassifier(**config, n_jobs=1, verbose=-1))
    pipeline.fit(table.select(NAMES).to_pandas(), (table["readmitted"] == "<30").to_numpy())
    folder.mkdir(parents=True)
    joblib.dump(pipeline, folder / "pipeline.joblib")
    mlflow.sklearn.save_model(
        pipeline, folder / "mlflow", pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
    )
    (folder / "service.py").write_text(BENTO.format(model=str(folder / "pipeline.joblib"), names=NAMES))
    return folder


def bento_environment(cache: Path) -> Path:
    """An environment with BentoML, made once below `cache`; its `bin`."""
    wanted = ["bentoml", "lightgbm>=4.7,<4.8", "scikit-learn>=1.9.1,<1.10", "pandas>=3.0.6,<3.1"]
    return _environment(cache / "bentoml", ["pip", "install", *wanted]) / "bin"


def serving_environment(cache: Path) -> tuple[Path, float]:
    """An environment with the extra `serving`, made once below `cache`: its Python, and its size in MB."""
    home = _environment(cache / "serving", ["pip", "sync", "--require-hashes", "requirements/serving.txt"])
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file() and file.suffix != ".pyc") / 1e6
    _uv(home, ["pip", "install", "--no-deps", "--editable", "."])
    return (home / "bin" / "python").absolute(), size


def _environment(home: Path, fill: list[str]) -> Path:
    if not (home / ".ready").exists():
        _uv(home, ["venv", "--clear", "--python", "3.11", str(home)])
        _uv(home, fill)
        (home / ".ready").touch()
    return home


def _uv(home: Path, arguments: list[str]) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, *arguments, "--quiet"], check=True, env={**os.environ, "VIRTUAL_ENV": str(home)})
