"""Reports of trainings and evaluations, as JSON in the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from health_predict.errors import DataError, StorageError
from health_predict.evaluation.gate import Check, Comparison
from health_predict.evaluation.metrics import Measurement, Metrics
from health_predict.params import LIVE_TARGET, Family, Target
from health_predict.store import layout
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json, write_json

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
    brier_behind: Measurement | None = None  # Brier score minus the winner's, on the same encounters; None: the winner


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
    simulation: str | None
    models: tuple[BestModel, ...]
    winner: str  # run id
    trials: int
    stopped: int
    stopped_at: dict[str, int]  # step -> trials
    skipped: bool = False


@dataclass(frozen=True)
class EvaluationReport:
    """The comparison that the gate decides on. `champion` is the version in production that the run was compared with.

    `holdout` is the SHA-256 of the table compared on. `left_out` counts, by model, encounters of the hold-out that the
    model had seen; they are in no figure.
    """

    run_id: str
    family: Family
    champion: str | None
    synthetic: bool
    simulation: str | None
    holdout: str
    left_out: dict[str, int]
    comparison: Comparison
    checks: tuple[Check, ...]
    operating_point: str = ""  # what the challenger's threshold means for 100 discharges
    stance: str = ""  # whether the challenger is better than the champion, worse or neither, and what the gate asks
    skipped: bool = False


def read_training(storage: Storage) -> TrainingReport:
    """The report of the newest training that was asked for. StorageError before the first."""
    if not storage.exists(layout.TRAINING):
        raise StorageError(f"{layout.TRAINING} is not in {storage.root}; run `health-predict train` first")
    return _read(storage, layout.TRAINING, TrainingReport)


def finished_training(storage: Storage, fingerprint: str) -> TrainingReport | None:
    """The report of an earlier training from the same data by the same choices; None where there was none."""
    key = layout.training_report(fingerprint)
    return _read(storage, key, TrainingReport) if storage.exists(key) else None


def write_training(storage: Storage, report: TrainingReport) -> None:
    """Write the report; a training of models for production is now the newest."""
    keys = [layout.training_report(report.fingerprint), layout.TRAINING]
    for key in keys if report.target == LIVE_TARGET else keys[:1]:
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
