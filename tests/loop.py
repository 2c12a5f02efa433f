"""A loop in this process: a small model for a champion, and a registry that knows no other."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from health_predict.bundle.export import Provenance, export
from health_predict.bundle.model import TableDigest, load_bundle
from health_predict.evaluation.gate import Scores, checks, compare_models
from health_predict.params import Params
from health_predict.store import layout
from health_predict.store.bundles import keep_bundle
from health_predict.store.datasets import INITIAL, read_part, vouch
from health_predict.store.ledger import Decision, Subject, append, entry, read_ledger
from health_predict.store.manifests import publish
from health_predict.store.reports import EvaluationReport, write_evaluation
from health_predict.store.storage import Storage
from health_predict.store.tables import keep_table, table_bytes
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import fit, prepare

RUN = "run"
WHO = "tester@here"


@dataclass
class Registry:
    """Stands for MLflow where version 1 is all there is, and keeps the metrics that are logged."""

    folder: Path
    model_name: str = "Invented"
    logged: list[Mapping[str, float]] = field(default_factory=list)
    tags: list[Mapping[str, str]] = field(default_factory=list)

    def end_orphans(self, _experiment: str) -> int:
        return 0

    def finished_runs(self, _experiment: str, tags: Mapping[str, str]) -> list[Any]:
        return [known for known in self.tags if tags.items() <= known.items()]

    @contextmanager
    def run(self, _experiment: str, _name: str, tags: Mapping[str, str]) -> Iterator[str]:
        yield RUN
        self.tags.append(tags)

    def log(self, _run_id: str, metrics: Mapping[str, float]) -> None:
        self.logged.append(metrics)


def lay_out(storage: Storage, table: pl.DataFrame, train: int, validation: int, test: int) -> None:
    """Initial data of so many rows, and the rest of the table as the one batch."""
    keys = (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST, layout.future_batch(1))
    offsets = (0, train, train + validation, train + validation + test)
    parts = zip(keys, offsets, (train, validation, test, None), strict=True)
    files = {key: table_bytes(table.slice(offset, rows), key) for key, offset, rows in parts}
    publish(storage, layout.SPLIT_MANIFEST, inputs={}, files=files, result={"synthetic": True, "parts": []})


def export_champion(storage: Storage, folder: Path, params: Params) -> Path:
    """The bundle of a LightGBM that was trained on the store's initial data."""
    vouched = vouch(storage, INITIAL)
    train, trained = read_part(storage, vouched, INITIAL.train, "lt30")
    validation, validated = read_part(storage, vouched, INITIAL.validation, "lt30")
    candidate = CANDIDATES["lightgbm"]
    prepared = prepare(candidate.encoding, train, validation, params.preprocessor)
    fitted = fit("lightgbm", candidate.default(len(train.outcomes)), prepared, params.search, params.bundle.capacity)
    tables: tuple[TableDigest, ...] = (trained, validated)
    provenance = Provenance(
        RUN, INITIAL.name, "lt30", tables, synthetic=True, simulation=None, git_revision="unknown", seed=1
    )
    export(folder, fitted, train, validation, {}, provenance, params)
    return folder


def crown(storage: Storage, folder: Path, params: Params) -> None:
    """Put the bundle into production: its evaluation on the initial test data, and a line in the ledger."""
    bundle = load_bundle(folder)
    data, _ = read_part(storage, vouch(storage, INITIAL), INITIAL.test, "lt30")
    holdout = sha256(storage.read(layout.INITIAL_TEST)).hexdigest()
    comparison = compare_models(
        data.encounters,
        data.outcomes,
        Scores(RUN, bundle.predict_proba(data.encounters), bundle.manifest.threshold),
        champion=None,
        first=None,
        trained_on=data.encounters["encounter_id"].head(0),
        fingerprints={"test": holdout},
        capacity=bundle.manifest.capacity,
        gate=params.gate,
        bootstrap=params.bootstrap,
    )
    found = tuple(checks(comparison, params.gate))
    write_evaluation(storage, EvaluationReport(RUN, "lightgbm", None, True, None, holdout, {}, comparison, found))
    put_into_production(storage, folder, "1")


def put_into_production(storage: Storage, folder: Path, number: str) -> None:
    """Let the ledger say that a bundle is in production as a version; what it has seen, and it itself, are kept."""
    manifest = load_bundle(folder).manifest
    for table in manifest.trained_on:
        keep_table(storage, storage.read(table.key))
    keep_bundle(storage, folder)
    ledger = read_ledger(storage)
    decide_on(storage, "promoted", folder, number, moves=(number, ledger.production))


def decide_on(storage: Storage, decision: Decision, folder: Path, number: str | None = None, **rest: Any) -> None:
    """Append a decision about a bundle to the ledger."""
    bundle, ledger = load_bundle(folder), read_ledger(storage)
    manifest = bundle.manifest
    subject = Subject(manifest.run_id, "lt30", bundle.sha256, manifest.content, manifest.lineage, number)
    told = {"who": WHO, "registry": "http://mlflow.invalid", "model": "Invented", "simulation": None}
    append(storage, ledger, entry(ledger, decision, subject, **told, **rest))
