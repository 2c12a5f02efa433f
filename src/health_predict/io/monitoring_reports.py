"""What the monitor found on a batch and on its outcomes, as JSON in the store and as metrics in MLflow."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from health_predict.errors import DataError, StorageError
from health_predict.io import layout
from health_predict.io.registry import Registry
from health_predict.io.storage import Storage
from health_predict.io.tables import json_bytes, read_json, write_json
from health_predict.monitoring.drift import Drift
from health_predict.monitoring.performance import Performance, PredictionDrift
from health_predict.monitoring.separation import Separation

REPORT = "health_predict.report_sha256"  # tag of a run: of the report that it is about
Status = Literal["NO_DRIFT", "DRIFT_DETECTED"]
Document = TypeVar("Document")


@dataclass(frozen=True)
class Judged:
    """What became of a matured batch (None: of a file's encounters) under the version that scored it.

    Counts are encounters: `rows` are those whose outcomes count; `left_out` ended in death or a hospice; the version
    was trained on those `seen`, which say nothing about it. `decisions` is how many lines the ledger had when the batch
    was scored. `unjudged` says why there is no performance: too few encounters or outcomes.
    """

    batch: int | None
    version: str
    decisions: int
    rows: int
    left_out: int
    seen: int
    performance: Performance | None
    unjudged: str | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is an alarm, naming the batch."""
        about = "" if self.batch is None else f"Batch {self.batch}: "
        return tuple(f"{about}{reason}" for reason in self.performance.reasons) if self.performance else ()


@dataclass(frozen=True)
class MonitoringReport:
    """One batch (None: a file) under `version`, which was in production after so many `decisions` of the ledger.

    `batches` arrived since the report before and are judged together: more than one where they are small. `left_out`
    encounters of it, `reference_left_out` of a file that it is compared with, ended in death or a hospice. `outcomes`
    are judgements on other batches, those that no earlier report has, or on the file's encounters whose outcomes were
    given.

    `reasons` are why it is an alarm; none: it is not.
    """

    name: str
    status: Status
    reasons: tuple[str, ...]
    batch: int | None
    batches: tuple[int, ...]
    version: str
    decisions: int
    synthetic: bool
    simulation: str | None  # name of the replay in whose world this was found
    left_out: int
    reference_left_out: int
    drift: Drift
    separation: Separation
    predictions: PredictionDrift
    outcomes: tuple[Judged, ...]
    skipped: bool = False


def read_monitoring(storage: Storage, name: str) -> MonitoringReport:
    """Raises StorageError before `monitor`."""
    key = layout.drift_numbers(name)
    if not storage.exists(key):
        raise StorageError(f"{key} is not in {storage.root}; run `health-predict monitor` first")
    return _document(storage, key, MonitoringReport)


def read_watched(storage: Storage) -> list[MonitoringReport]:
    """The finished reports of all batches, in the order of their numbers."""
    names = (key.split("/")[1] for key in storage.list(layout.DRIFT_REPORTS))
    kept = [name for name in dict.fromkeys(names) if storage.exists(layout.drift_manifest(name))]
    return sorted((read_monitoring(storage, name) for name in kept), key=lambda report: report.batch or 0)


def read_judged(storage: Storage, number: int) -> Judged | None:
    """The judgement on the outcomes of a batch; None before there is one."""
    key = layout.performance(number)
    return _document(storage, key, Judged) if storage.exists(key) else None


def read_judgements(storage: Storage) -> list[Judged]:
    """The judgements on the outcomes of all batches, in the order of their numbers."""
    found = [_document(storage, key, Judged) for key in storage.list(layout.PERFORMANCE)]
    return sorted(found, key=lambda judged: judged.batch or 0)


def write_judged(storage: Storage, registry: Registry, number: int, judged: Judged) -> None:
    """Log the judgement on the outcomes of a batch to MLflow, once, and write it."""
    found: dict[str, float] = {"outcomes_judged": float(judged.performance is not None), **_outcome_metrics(judged)}
    name = f"{layout.batch(number)}_outcomes"
    _log(registry, name, judged, judged.version, judged.reasons, found)
    write_json(storage, layout.performance(number), msgspec.to_builtins(judged))


def _document(storage: Storage, key: str, kind: type[Document]) -> Document:
    try:
        return msgspec.convert(read_json(storage, key), kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{storage.path(key)} is not what this version writes: {error}") from error


def experiment(model_name: str) -> str:
    """Name of the experiment that holds what was found on a registered model's batches."""
    return f"{model_name}_Monitoring"


def log_monitoring(registry: Registry, report: MonitoringReport) -> None:
    """One run for one report, with its numbers, status and reasons; none where the same were logged before."""
    _log(registry, report.name, report, report.version, report.reasons, _metrics(report), report.status)


def _log(
    registry: Registry,
    run: str,
    document: Any,
    version: str,
    reasons: tuple[str, ...],
    metrics: dict[str, float],
    status: str | None = None,
) -> None:
    name = experiment(registry.model_name)
    registry.end_orphans(name)
    judged = {REPORT: hashlib.sha256(json_bytes(msgspec.to_builtins(document))).hexdigest()}
    if registry.finished_runs(name, judged):
        return
    tags = {
        **({"health_predict.status": status} if status else {}),
        **judged,
        "health_predict.version": version,
        "health_predict.reasons": "\n".join(reasons)[:4_000],
    }
    with registry.run(name, run, tags) as run_id:
        registry.log(run_id, metrics=metrics)


def _metrics(report: MonitoringReport) -> dict[str, float]:
    drift, predictions = report.drift, report.predictions
    found = {
        "drift_detected": float(bool(report.reasons)),
        "left_out": float(report.left_out),
        "drifted_fields": float(sum(field.drifted for field in drift.fields)),
        "importance_drifted": drift.importance_drifted,
        "administrative_drifted": drift.administrative_drifted,
        "separation_auroc": report.separation.auroc,
        "score_psi": predictions.psi,
        "mean_score": predictions.mean,
        "flag_rate": predictions.flag_rate,
        "flag_rate_to_capacity": predictions.flag_rate / max(predictions.flag_rate_planned, 1e-9),
        "estimated_roc_auc": predictions.estimated_auroc,
        **{f"distance_{field.field}": field.distance for field in drift.fields},
        **{f"missing_{field.field}": field.missing for field in drift.fields},
        **{f"unknown_{field.field}": field.unknown for field in drift.fields},
    }
    for judged in report.outcomes:
        if judged.batch is None:
            found |= _outcome_metrics(judged)
    return found


def _outcome_metrics(judged: Judged) -> dict[str, float]:
    found = {
        "matured_rows": float(judged.rows),
        "matured_left_out": float(judged.left_out),
        "matured_seen": float(judged.seen),
    }
    if judged.batch is not None:
        found["matured_batch"] = float(judged.batch)
    if judged.performance is None:
        return found
    current = judged.performance.current
    found |= {
        "matured_roc_auc": current.auroc.estimate,
        "matured_average_precision": current.average_precision.estimate,
        "matured_brier_score": current.brier.estimate,
        "matured_observed_expected": current.observed_expected.estimate,
    }
    if current.calibration_slope is not None:
        found["matured_calibration_slope"] = current.calibration_slope.estimate
    return found
