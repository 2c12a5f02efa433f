"""Training against the usual route, measured in one run: the table in docs/performance.md.

    HEALTH_PREDICT_RAW_DATA=dataset_diabetes.zip python -m benchmarks.training

The usual route: one-hot columns for every code, diagnoses included, as a dense matrix of doubles; preprocessing
fitted inside every trial; the final pipeline logged with MLflow's own inference of its requirements. Ours is the
step behind `health-predict train --families xgboost`. Both train XGBoost with one thread on the same encounters,
from the same search space and default, with the same Optuna, ASHA and Ray settings, one trial at a time, and log to
MLflow on SQLite. Each route runs as a process of its own, in turns.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.markers import replace_section

PAGE = Path("docs/performance.md")
SECTION = "training"
TRIALS = 8
TURNS = 2
ROUTES = {"usual": "one-hot, dense, fitted in every trial", "ours": "`health-predict train`"}
LIMITS = {"cpu": 1 / 10, "memory": 2 / 3, "wall": 1 / 2}  # ours over usual


@dataclass(frozen=True)
class Measured:
    """CPU seconds of the trial process per trial; its peak resident MiB; seconds of the whole process."""

    cpu: float
    memory: float
    wall: float
    auroc: float  # of the best trial, on the validation encounters


class Sampler:
    """Watches Ray's trial processes below this one: CPU seconds from the first trial on, peak resident memory."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []  # monotonic time, CPU seconds
        self.peak = 0.0
        self.spans: list[tuple[float, float]] = []  # of trials
        self._done = threading.Event()

    def ended(self, seconds: float, at: float | None = None) -> None:
        """A trial that took so long has ended, now or at a moment of the monotonic clock."""
        end = time.monotonic() if at is None else at
        self.spans.append((end - seconds, end))

    @contextmanager
    def watch(self) -> Iterator[None]:
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        yield
        self._done.set()
        thread.join()

    @property
    def cpu_per_trial(self) -> float:
        """From the start of the first trial to the end of the last: what runs before, imports, is left out."""
        first, last = min(start for start, _ in self.spans), max(end for _, end in self.spans)
        return (self._cpu_at(last) - self._cpu_at(first)) / len(self.spans)

    def _cpu_at(self, moment: float) -> float:
        return min(self.samples, key=lambda sample: abs(sample[0] - moment))[1]

    def _sample(self) -> None:
        spent: dict[int, float] = {}
        while not self._done.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::Implicit"):
                        times = process.cpu_times()
                        spent[process.pid] = times.user + times.system
                        self.peak = max(self.peak, process.memory_info().rss / 2**20)
                except psutil.NoSuchProcess:
                    continue
            self.samples.append((time.monotonic(), sum(spent.values())))


def ours(root: Path) -> dict[str, float]:
    """The step itself, listened to."""
    from health_predict.adapters.registry import Registry
    from health_predict.params import Params, SearchParams
    from health_predict.steps.model.train import Progress, train
    from health_predict.store.storage import Folder
    from health_predict.workspace import Workspace

    sampler, scores = Sampler(), []

    def on_trial(_family: str, trial: Any) -> None:
        sampler.ended(trial.seconds)
        scores.append(trial.score)

    params = Params(search=SearchParams(families=("xgboost",), trials=TRIALS))
    registry = Registry(f"sqlite:///{root}/ours.db", "Ours", f"{root}/ours")
    workspace = Workspace(Folder(str(root)), lambda: registry, root / "cache")
    with sampler.watch():
        train(workspace, params, "lt30", None, Progress(on_trial, lambda _model: None), force=True)
    return {"cpu": sampler.cpu_per_trial, "memory": sampler.peak, "auroc": max(scores)}


def usual(root: Path) -> dict[str, float]:
    """As it is commonly written, with good manners: one thread, real intermediate results, nested runs."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    import mlflow
    import optuna
    import pandas as pd
    import ray
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch
    from sklearn.pipeline import Pipeline

    from health_predict.params import SearchParams
    from health_predict.store import layout
    from health_predict.training.candidates import CANDIDATES

    params, candidate, sampler = SearchParams(trials=TRIALS), CANDIDATES["xgboost"], Sampler()
    train, validation = (pd.read_parquet(root / key) for key in (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION))

    def trainable(config: dict[str, Any], train: pd.DataFrame, validation: pd.DataFrame) -> None:
        def report(_step: int, auroc: float) -> None:
            tune.report({"val_roc_auc": float(auroc), "now": time.monotonic()})

        _fit_usual(config, train, validation, report)

    mlflow.set_tracking_uri(f"sqlite:///{root}/usual.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("usual", artifact_location=f"{root}/usual"))
    with sampler.watch(), tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_name="search"):
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        space = {
            name: optuna.distributions.IntDistribution(int(bounds.low), int(bounds.high), log=bounds.log)
            if bounds.whole
            else optuna.distributions.FloatDistribution(bounds.low, bounds.high, log=bounds.log)
            for name, bounds in candidate.space.items()
        }
        default = dict(candidate.default(len(train)))
        results = tune.Tuner(
            tune.with_parameters(trainable, train=train, validation=validation),
            tune_config=tune.TuneConfig(
                metric="val_roc_auc",
                mode="max",
                num_samples=params.trials,
                max_concurrent_trials=1,
                scheduler=AsyncHyperBandScheduler(
                    time_attr="training_iteration",
                    max_t=params.reports,
                    grace_period=1,
                    reduction_factor=params.reduction_factor,
                ),
                search_alg=OptunaSearch(
                    space,
                    sampler=optuna.samplers.TPESampler(seed=params.seed, n_startup_trials=params.random_trials),
                    points_to_evaluate=[default],
                    metric="val_roc_auc",
                    mode="max",
                ),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=scratch, name="usual", verbose=0),
        ).fit()
        for found in results:
            sampler.ended(found.metrics["time_total_s"], found.metrics["now"])
            with mlflow.start_run(nested=True):
                mlflow.log_params(found.config)
                mlflow.log_metric("val_roc_auc", found.metrics["val_roc_auc"])
        best = results.get_best_result()
        with mlflow.start_run(run_name="best", nested=True):
            preprocessor, model = _fit_usual(best.config, train, validation, lambda _step, _auroc: None)
            mlflow.log_params(best.config)
            mlflow.log_metric("val_roc_auc", best.metrics["val_roc_auc"])
            pipeline = Pipeline([("preprocessor", preprocessor), ("model", model)])
            mlflow.sklearn.log_model(pipeline, name="model", serialization_format="cloudpickle")
        ray.shutdown()
    return {"cpu": sampler.cpu_per_trial, "memory": sampler.peak, "auroc": best.metrics["val_roc_auc"]}


def _fit_usual(config: dict[str, Any], train: Any, validation: Any, report: Any) -> tuple[Any, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from health_predict.data.schema import CLINICAL
    from health_predict.params import SearchParams
    from health_predict.training.candidate import Fold
    from health_predict.training.candidates import CANDIDATES

    params = SearchParams()
    numbers = [field.name for field in CLINICAL if field.kind == "count"]
    codes = [field.name for field in CLINICAL if field.kind != "count"]
    preprocessor = ColumnTransformer(
        [
            ("numbers", StandardScaler(), numbers),
            ("codes", OneHotEncoder(sparse_output=False, handle_unknown="ignore"), codes),
        ]
    )
    fold = Fold(
        preprocessor.fit_transform(train),
        (train["readmitted"] == "<30").to_numpy(),
        preprocessor.transform(validation),
        (validation["readmitted"] == "<30").to_numpy(),
    )
    return preprocessor, CANDIDATES["xgboost"].fit(config, fold, params.reports, params.seed, report)


def prepare(root: Path) -> str:
    """Fetch, validate and split; returns what was fetched."""
    from health_predict.params import Params
    from health_predict.settings import Settings
    from health_predict.steps.data.fetch import fetch
    from health_predict.steps.data.split import split
    from health_predict.steps.data.validate import validate
    from health_predict.store.storage import Folder

    settings, storage, params = Settings(), Folder(str(root)), Params()
    fetch(storage, settings.raw_data, settings.dataset_url, None, lambda _received, _total: None)
    validate(storage, params.validation)
    part = split(storage, params.split).parts[0]
    return f"{part.rows:,} encounters of `initial_train`"


def measure(route: str, root: Path) -> Measured:
    """Run one route as a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.training", route, str(root)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    wall = time.monotonic() - began
    return Measured(wall=wall, **json.loads(ended.stdout.splitlines()[-1]))


def table(found: dict[str, list[Measured]], data: str) -> str:
    """Markdown: the median of the turns for each route, and ours over usual."""
    middle = {
        route: {name: median(asdict(one)[name] for one in turns) for name in asdict(turns[0])}
        for route, turns in found.items()
    }
    lines = [
        f"{TRIALS} trials of XGBoost on {data}, {os.cpu_count()} cores, median of {TURNS} turns.",
        "",
        "| route | CPU s per trial | peak MiB of a trial process | whole command, s | best validation AUROC |",
        "|---|---|---|---|---|",
    ]
    for route, title in ROUTES.items():
        one = middle[route]
        lines.append(f"| {title} | {one['cpu']:.2f} | {one['memory']:.0f} | {one['wall']:.0f} | {one['auroc']:.3f} |")
    ratios = {name: middle["ours"][name] / middle["usual"][name] for name in LIMITS}
    cells = [f"{ratios[name]:.2f} (at most {limit:.2f})" for name, limit in LIMITS.items()]
    lines.append(f"| ours / usual | {' | '.join(cells)} | |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:]:
        route, root = sys.argv[1:]
        print(json.dumps({"usual": usual, "ours": ours}[route](Path(root))))
        return
    found: dict[str, list[Measured]] = {route: [] for route in ROUTES}
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder) / "data")
        for turn in range(TURNS):
            for route in ROUTES:
                root = Path(folder) / f"{route}-{turn}"
                root.mkdir()
                for part in (Path(folder) / "data").iterdir():
                    (root / part.name).symlink_to(part)
                found[route].append(measure(route, root))
                sys.stderr.write(f"{route}: {found[route][-1]}\n")
    text = table(found, data)
    print(text)
    replace_section(PAGE, SECTION, text)


if __name__ == "__main__":
    main()
