"""A loop in this process: a small model for a champion, and a registry that knows no other."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from health_predict.evaluation.gate import Scores, checks, compare_models
from health_predict.io import layout
from health_predict.io.bundle import TableDigest, load_bundle
from health_predict.io.datasets import INITIAL, read_part, vouch
from health_predict.io.export import Provenance, export
from health_predict.io.ledger import append, entry, read_ledger
from health_predict.io.registry import Version
from health_predict.io.reports import EvaluationReport, write_evaluation
from health_predict.io.storage import Storage
from health_predict.params import Params
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import fit, prepare

RUN = "run"


@dataclass
class Registry:
    """Stands for MLflow where version 1 is all there is, and keeps the metrics that are logged."""

    folder: Path
    model_name: str = "Invented"
    logged: list[Mapping[str, float]] = field(default_factory=list)
    tags: list[Mapping[str, str]] = field(default_factory=list)
    aliases: tuple[str | None, str | None] = (None, None)

    def version(self, number: str) -> Version:
        return Version(self.model_name, number, RUN)

    def fetch_bundle(self, _version: Version, _cache: Path) -> Path:
        return self.folder

    def follow(self, production: str | None, previous: str | None) -> bool:
        self.aliases = (production, previous)
        return True

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


def export_champion(storage: Storage, folder: Path, params: Params) -> Path:
    """The bundle of a LightGBM that was trained on the store's initial data."""
    vouched = vouch(storage, INITIAL)
    train, trained = read_part(storage, vouched, INITIAL.train, "lt30")
    validation, validated = read_part(storage, vouched, INITIAL.validation, "lt30")
    candidate = CANDIDATES["lightgbm"]
    prepared = prepare(candidate.encoding, train, validation, params.preprocessor)
    fitted = fit("lightgbm", candidate.default(len(train.outcomes)), prepared, params.search)
    tables: tuple[TableDigest, ...] = (trained, validated)
    provenance = Provenance(RUN, INITIAL.name, "lt30", tables, synthetic=True, git_revision="unknown", seed=1)
    export(folder, fitted, train, validation, {}, provenance, params)
    return folder


def crown(storage: Storage, folder: Path, params: Params) -> None:
    """Put the bundle into production: its evaluation on the initial test data, and a line in the ledger."""
    bundle = load_bundle(folder)
    data, _ = read_part(storage, vouch(storage, INITIAL), INITIAL.test, "lt30")
    comparison = compare_models(
        data.encounters,
        data.outcomes,
        Scores(RUN, bundle.predict_proba(data.encounters), bundle.manifest.threshold),
        champion=None,
        first=None,
        trained_on=data.encounters["encounter_id"].head(0),
        fingerprints={"test": sha256(storage.read(layout.INITIAL_TEST)).hexdigest()},
        gate=params.gate,
        bootstrap=params.bootstrap,
    )
    found = tuple(checks(comparison, params.gate))
    write_evaluation(storage, EvaluationReport(RUN, "lightgbm", None, True, comparison, found))
    ledger = read_ledger(storage)
    append(storage, ledger, entry(ledger, "promoted", RUN, [], {}, "1"))
