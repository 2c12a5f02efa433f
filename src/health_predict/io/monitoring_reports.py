"""What the monitor found on a batch, as JSON in the store and as metrics in MLflow."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import msgspec

from health_predict.errors import DataError, StorageError
from health_predict.io import layout
from health_predict.io.registry import Registry
from health_predict.io.storage import Storage
from health_predict.io.tables import json_bytes, read_json
from health_predict.monitoring.drift import Drift
from health_predict.monitoring.performance import Performance, PredictionDrift
from health_predict.monitoring.separation import Separation

REPORT = "health_predict.report_sha256"  # tag of a run: of the report that it is about
Status = Literal["NO_DRIFT", "DRIFT_DETECTED"]


@dataclass(frozen=True)
class MonitoringReport:
    """One batch (None: a file) under `version`.

    `performance` is that of another batch, the newest that has matured, or of those of the file's encounters whose
    outcomes were given.

    `reasons` are why it is an alarm; none: it is not.
    """

    name: str
    status: Status
    reasons: tuple[str, ...]
    batch: int | None
    version: str
    synthetic: bool
    drift: Drift
    separation: Separation
    predictions: PredictionDrift
    matured_batch: int | None
    matured_version: str | None
    performance: Performance | None
    skipped: bool = False


def read_monitoring(storage: Storage, name: str) -> MonitoringReport:
    """Raises StorageError before `monitor`."""
    key = layout.drift_numbers(name)
    if not storage.exists(key):
        raise StorageError(f"{key} is not in {storage.root}; run `health-predict monitor` first")
    try:
        return msgspec.convert(read_json(storage, key), MonitoringReport)
    except msgspec.ValidationError as error:
        raise DataError(f"{storage.path(key)} is not what this version writes: {error}") from error


def experiment(model_name: str) -> str:
    """Name of the experiment that holds what was found on a registered model's batches."""
    return f"{model_name}_Monitoring"


def log_monitoring(registry: Registry, report: MonitoringReport) -> None:
    """One run for one batch, with its numbers, status and reasons; none where the same were logged before."""
    name = experiment(registry.model_name)
    registry.end_orphans(name)
    judged = {REPORT: hashlib.sha256(json_bytes(msgspec.to_builtins(report))).hexdigest()}
    if registry.finished_runs(name, judged):
        return
    tags = {
        "health_predict.status": report.status,
        **judged,
        "health_predict.version": report.version,
        "health_predict.reasons": "\n".join(report.reasons)[:4_000],
    }
    with registry.run(name, report.name, tags) as run_id:
        registry.log(run_id, metrics=_metrics(report))


def _metrics(report: MonitoringReport) -> dict[str, float]:
    drift, predictions = report.drift, report.predictions
    found = {
        "drift_detected": float(bool(report.reasons)),
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
    if report.performance:
        current = report.performance.current
        found |= {
            "matured_batch": float(report.matured_batch or 0),
            "matured_roc_auc": current.auroc.estimate,
            "matured_average_precision": current.average_precision.estimate,
            "matured_brier_score": current.brier.estimate,
            "matured_observed_expected": current.observed_expected.estimate,
        }
        if current.calibration_slope is not None:
            found["matured_calibration_slope"] = current.calibration_slope.estimate
    return found
