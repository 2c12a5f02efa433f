"""What steps leave for each other and for people, as JSON in the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from health_predict.errors import DataError, StorageError
from health_predict.evaluation.gate import Check, Comparison
from health_predict.evaluation.metrics import Metrics
from health_predict.io import layout
from health_predict.io.storage import Storage
from health_predict.io.tables import read_json, write_json
from health_predict.params import Family, Target

Report = TypeVar("Report")


@dataclass(frozen=True)
class BestModel:
    """A family's best model as it was logged. Metrics are of the validation encounters, with 95% intervals."""

    family: Family
    run_id: str
    config: Mapping[str, Any]
    threshold: float
    metrics: Metrics
    onnx_difference: float  # largest absolute difference of a probability
    bundle_sha256: str


@dataclass(frozen=True)
class TrainingReport:
    """One training. `models` are in order of their validation Brier score, the winner first.

    `stopped` are trials that ASHA ended early, `stopped_at` how many at which step.
    """

    run_id: str
    dataset: str
    fingerprint: str
    target: Target
    synthetic: bool
    models: tuple[BestModel, ...]
    winner: str  # run id
    trials: int
    stopped: int
    stopped_at: dict[str, int]  # step -> trials
    skipped: bool = False


@dataclass(frozen=True)
class EvaluationReport:
    """What the gate decides on. `champion` is the version in production that the run was compared with."""

    run_id: str
    family: Family
    champion: str | None
    synthetic: bool
    comparison: Comparison
    checks: tuple[Check, ...]
    skipped: bool = False


def read_training(storage: Storage, dataset: str | None = None) -> TrainingReport:
    """The report of the newest training, on any data set or on one. StorageError before the first such training."""
    key = layout.training_report(dataset) if dataset else layout.TRAINING
    if not storage.exists(key):
        raise StorageError(f"{key} is not in {storage.root}; run `health-predict train` first")
    return _read(storage, key, TrainingReport)


def write_training(storage: Storage, report: TrainingReport) -> None:
    """Write the newest training's report, for its data set and for all."""
    for key in (layout.training_report(report.dataset), layout.TRAINING):
        write_json(storage, key, msgspec.to_builtins(report))


def read_evaluation(storage: Storage, run_id: str) -> EvaluationReport | None:
    """The evaluation of a run; None when it has not been evaluated."""
    key = layout.evaluation_report(run_id)
    return _read(storage, key, EvaluationReport) if storage.exists(key) else None


def write_evaluation(storage: Storage, report: EvaluationReport) -> None:
    write_json(storage, layout.evaluation_report(report.run_id), msgspec.to_builtins(report))


def _read(storage: Storage, key: str, kind: type[Report]) -> Report:
    try:
        return msgspec.convert(read_json(storage, key), kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{storage.path(key)} is not what this version writes: {error}") from error
