"""Two stores on one MLflow, small enough to be made anew in milliseconds, and a trainer that only deals models out.

What a model is worth is known beforehand: a good one has learned every outcome there is, a bad one has learned
outcomes that were shuffled, so the gate has to tell them apart on any data. `World.facts` says of a run what a promise
can be held against: from its bundle and from the bytes of the tables, not from what the product has concluded.
"""

import hashlib
import io
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import polars as pl
from failpoints import Watched, watching_mlflow

from health_predict.adapters.registry import BUNDLE, PREPROCESSOR, Registry
from health_predict.adapters.training_runs import experiment
from health_predict.bundle.export import Provenance, export
from health_predict.bundle.model import ENCODER, MANIFEST, MODEL, REFERENCE, Bundle, Manifest, load_bundle, write_bundle
from health_predict.data.cohort import LabelledEncounters, label, select_cohort
from health_predict.evaluation.metrics import Metrics, evaluate
from health_predict.features.calibration import Calibration
from health_predict.features.encoder import Encoder
from health_predict.features.row_encoder import RowEncoder
from health_predict.params import (
    AssemblyParams,
    BootstrapParams,
    BundleParams,
    DriftParams,
    GateParams,
    Params,
    SearchParams,
    SplitParams,
)
from health_predict.steps.model.train import Progress
from health_predict.store import layout
from health_predict.store.datasets import INITIAL
from health_predict.store.reports import BestModel
from health_predict.store.storage import Folder, Storage
from health_predict.store.tables import read_table
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import fit, prepare
from health_predict.workspace import Workspace
from stores import prepare as prepare_store

MODEL_NAME = "Invented"
STORES = ("one", "two")
ROWS = 3_000
SEEDS = (0, 1, 2, 3)
BAD_SEED = 3  # of a training: the others bring good models, each with another calibration
SPLIT = SplitParams(initial_share=0.5, train_share=0.4, validation_share=0.2, batches=3)
PARAMS = Params(
    split=SPLIT,
    bootstrap=BootstrapParams(replicates=20),
    # What is left of the gate: unseen encounters, and better than the clinical scores.
    gate=GateParams(
        max_looks=6,
        min_rows=100,
        min_outcomes=8,
        max_auroc_loss=2,
        max_average_precision_loss=2,
        max_auroc_loss_from_first=2,
        observed_expected=(0, 1e9),
        max_subgroup_auroc_loss=2,
        min_subgroup_auroc=0,
        min_subgroup_outcomes=10_000,
    ),
    bundle=BundleParams(golden_rows=2),
    drift=DriftParams(replicates=2, null_rows=200),
    assembly=AssemblyParams(test_rows=250, validation_rows=150),
)


SILENT = Progress(lambda *_: None, lambda *_: None)


def training(seed: int) -> Params:
    """Of a training that brings the model of a seed."""
    return replace(PARAMS, search=SearchParams(families=("lightgbm",), seed=seed))


@dataclass(frozen=True)
class Store:
    """One of the stores, as the commands are given it."""

    name: str
    workspace: Workspace

    @property
    def storage(self) -> Storage:
        return self.workspace.storage

    @property
    def registry(self) -> Registry:
        return self.workspace.registry


@dataclass(frozen=True)
class Facts:
    """Of a run: is its model a good one, what is it made for, which tables has it seen, whose calibration is it."""

    good: bool
    target: str
    seen: frozenset[str]  # SHA-256 of tables
    content: str  # digest of what computes its risks
    before: str | None  # the run that it is a recalibration of


class World:
    """Made once in a test run; `reset` gives it back as it was. Only one test may use it at a time."""

    def __init__(self, root: Path):
        self.root = root
        self.tables: dict[str, frozenset[int]] = {}  # SHA-256 of every table ever written -> its encounter_ids
        self._facts: dict[str, Facts] = {}
        self._template = root / "template"
        place = prepare_store(self._template, ROWS, SPLIT)
        for key in place.storage.list("processed_data/"):
            self.note(key, place.storage.read(key))
        self.models = _Models(place.storage, root / "models")
        for name in STORES:
            shutil.copytree(self._template, root / name)
        self._registry()  # makes the database
        self.save("empty")

    def save(self, name: str) -> None:
        """Keep both stores and MLflow as they are now; the world is made with `empty`, where only data was split."""
        for store in STORES:
            shutil.copytree(self.root / store, self._saved(name) / store)
        shutil.copy(self._database, self._saved(name) / "mlflow.db")

    def reset(self, name: str = "empty") -> None:
        """Both stores and MLflow as they were saved."""
        for store in STORES:
            shutil.rmtree(self.root / store)
            # Links: nothing in a store is written in place.
            shutil.copytree(self._saved(name) / store, self.root / store, copy_function=os.link)
        shutil.rmtree(self.root / "cache", ignore_errors=True)
        with (
            closing(sqlite3.connect(self._saved(name) / "mlflow.db")) as saved,
            closing(sqlite3.connect(self._database)) as database,
        ):
            saved.backup(database)  # in place, as MLflow keeps its connections

    def store(self, name: str) -> Store:
        storage = Watched(Folder(str(self.root / name)), self.note)
        return Store(name, Workspace(storage, self._registry, self.root / "cache"))

    def note(self, key: str, data: bytes) -> None:
        """Remember who is in a table."""
        if key.endswith(".parquet"):
            ids = pl.read_parquet(io.BytesIO(data), columns=["encounter_id"])["encounter_id"]
            self.tables[hashlib.sha256(data).hexdigest()] = frozenset(ids.to_list())

    def ids(self, tables: frozenset[str]) -> frozenset[int]:
        """Everybody in the tables."""
        return frozenset().union(*(self.tables[digest] for digest in tables))

    def facts(self, run_id: str) -> Facts:
        if run_id not in self._facts:
            with tempfile.TemporaryDirectory() as folder:
                bundle = self._registry().download(run_id, BUNDLE, Path(folder))
                self._facts[run_id] = self._read(bundle, load_bundle(bundle).manifest, run_id)
        return self._facts[run_id]

    def registry_state(self) -> Mapping[str, list[Any]]:
        """All that MLflow's database says of registered models, their versions, aliases and tags."""
        tables = ("registered_models", "registered_model_tags", "registered_model_aliases", "model_versions",
                  "model_version_tags")  # fmt: skip
        with closing(sqlite3.connect(self._database)) as database:
            return {table: sorted(map(repr, database.execute(f"SELECT * FROM {table}"))) for table in tables}  # noqa: S608

    def everything(self) -> str:
        """A digest of MLflow's database and of every file of both stores."""
        files = sorted(file for name in STORES for file in (self.root / name).rglob("*") if file.is_file())
        return hashlib.sha256(
            b"".join(str(file).encode() + file.read_bytes() for file in (self._database, *files))
        ).hexdigest()

    def aliases(self) -> dict[str, str]:
        with closing(sqlite3.connect(self._database)) as database:
            found = database.execute(
                "SELECT alias, version FROM registered_model_aliases WHERE name = ?", (MODEL_NAME,)
            )
            return {alias: str(version) for alias, version in found}

    def run_of(self, version: str) -> str:
        """The run of a version of the registered model."""
        with closing(sqlite3.connect(self._database)) as database:
            query = "SELECT run_id FROM model_versions WHERE name = ? AND version = ?"
            return str(database.execute(query, (MODEL_NAME, int(version))).fetchone()[0])

    def _saved(self, name: str) -> Path:
        return self.root / "saved" / name

    @property
    def _database(self) -> Path:
        return self.root / "mlflow.db"

    def _registry(self) -> Registry:
        return Registry(f"sqlite:///{self._database}", MODEL_NAME, str(self.root / "mlartifacts"))

    def _read(self, bundle: Path, manifest: Manifest, run_id: str) -> Facts:
        model = (bundle / MODEL).read_bytes()
        parts = (bundle / ENCODER).read_bytes(), model, msgspec.json.encode(manifest.calibration)
        tags = self._registry()._client.get_run(run_id).data.tags
        return Facts(
            good=model != self.models.bad,
            target=manifest.target,
            seen=frozenset(table.sha256 for table in manifest.trained_on),
            content=hashlib.sha256(b"".join(parts)).hexdigest(),
            before=tags.get("health_predict.recalibrated_run_id"),
        )


class _Models:
    """A good and a bad model, exported once, and a trainer that logs them as its own."""

    def __init__(self, storage: Folder, folder: Path):
        everything = label(select_cohort(read_table(storage, layout.VALIDATED)), "lt30")
        shuffled = replace(everything, outcomes=np.random.default_rng(1).permutation(everything.outcomes))
        self._good, self._metrics = _exported(folder / "good", everything)
        self._bad, _ = _exported(folder / "bad", shuffled)
        self._folder = folder

    @cached_property
    def bad(self) -> bytes:
        return (self._folder / "bad" / MODEL).read_bytes()

    def search_and_fit(
        self, registry: Registry, parent: str, data: Any, params: Params, _address: str | None, _progress: Any
    ) -> tuple[list[Any], list[BestModel]]:
        """Stands for the search of `train`: one model, which the seed decides on, in a run of its own."""
        seed, provenance = params.search.seed, data.provenance
        name = "bad" if seed == BAD_SEED else "good"
        bundle: Bundle = getattr(self, f"_{name}")
        with (
            registry.run(experiment(registry.model_name), "Best_LightGBM_Model", {}, parent=parent) as run_id,
            tempfile.TemporaryDirectory() as scratch,
        ):
            manifest = msgspec.structs.replace(
                bundle.manifest,
                run_id=run_id,
                dataset=provenance.dataset,
                target=provenance.target,
                simulation=provenance.simulation,
                trained_on=list(provenance.trained_on),
                calibration=bundle.manifest.calibration.then(Calibration(seed / 1000)),
            )
            source, folder = self._folder / name, Path(scratch)
            model, reference = (source / MODEL).read_bytes(), (source / REFERENCE).read_bytes()
            write_bundle(folder / BUNDLE, manifest, bundle.encoder, model, reference)
            for part in (PREPROCESSOR, "model/MLmodel"):
                (folder / part).parent.mkdir()
                (folder / part).write_bytes(b"stands for the research copy")
            digest = hashlib.sha256((folder / BUNDLE / MANIFEST).read_bytes()).hexdigest()
            registry.log_folder(run_id, folder)
            registry.log(run_id, params={"seed": seed}, tags={"health_predict.bundle_sha256": digest})
        return [], [BestModel("lightgbm", run_id, {}, manifest.threshold, self._metrics, 0.0, digest)]


def _exported(folder: Path, everything: LabelledEncounters) -> tuple[Bundle, Metrics]:
    """A LightGBM that knows the outcomes by heart."""
    prepared = prepare(CANDIDATES["lightgbm"].encoding, everything, everything, PARAMS.preprocessor)
    config = {"learning_rate": 0.1, "n_estimators": 40, "num_leaves": 15, "min_child_samples": 5}
    fitted = fit(
        "lightgbm", {**CANDIDATES["lightgbm"].default(ROWS), **config}, prepared, SearchParams(), BundleParams.capacity
    )
    y_proba = fitted.predict_proba(everything.encounters)
    metrics = evaluate(everything.outcomes, y_proba, everything.patients, fitted.threshold, PARAMS.bootstrap)
    provenance = Provenance(
        "", INITIAL.name, "lt30", (), synthetic=True, simulation=None, git_revision="unknown", seed=1
    )
    return export(folder, fitted, everything, everything, {}, provenance, PARAMS)[0], metrics


@contextmanager
def stub_trainer(world: World) -> Iterator[None]:
    """`train` deals out the world's models, and MLflow tells the actor at work of every access.

    Tables are not checked value by value, git is not asked, and what scores single encounters is made once for each of
    the two encoders: of invented encounters that says nothing, and it takes longer than all the rest.
    """

    made = cache(lambda encoder: RowEncoder(Encoder.from_json(encoder)))
    with (
        patch("health_predict.steps.model.train._search_and_fit", world.models.search_and_fit),
        patch("health_predict.store.tables._check_values"),
        patch("health_predict.bundle.model.RowEncoder", lambda encoder: made(encoder.to_json())),
        patch("health_predict.steps.model.train.git_revision", return_value="unknown"),
        patch("health_predict.steps.loop.recalibrate.git_revision", return_value="unknown"),
        watching_mlflow(),
    ):
        yield
