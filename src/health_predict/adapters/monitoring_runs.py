"""Monitoring reports and judgements of outcomes, logged as runs with metrics in MLflow."""

import hashlib
from typing import Any

import msgspec

from health_predict.adapters.registry import Registry
from health_predict.store import layout
from health_predict.store.monitoring_reports import Judged, MonitoringReport
from health_predict.store.tables import json_bytes

REPORT = "health_predict.report_sha256"  # tag of a run: digest of the report that it logs


def experiment(model_name: str) -> str:
    """Name of the experiment that holds the monitoring runs of a registered model."""
    return f"{model_name}_Monitoring"


def log_monitoring(registry: Registry, report: MonitoringReport) -> None:
    """Log a report as one run with its numbers, status and reasons; does nothing where it was logged before."""
    _log(registry, report.name, report, report.version, report.reasons, _metrics(report), report.status)


def log_judged(registry: Registry, number: int, judged: Judged) -> None:
    """Log the judgement on the outcomes of a batch as one run; does nothing where it was logged before."""
    found: dict[str, float] = {"outcomes_judged": float(judged.performance is not None), **_outcome_metrics(judged)}
    _log(registry, f"{layout.batch(number)}_outcomes", judged, judged.version, judged.reasons, found)


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
    if report.alarm is not None:
        found |= {
            "alarm_raised": float(report.alarm.raised),
            "findings_new": float(len(report.alarm.new)),
            "findings_worse": float(len(report.alarm.worse)),
            "findings_known": float(len(report.alarm.known)),
            "findings_gone": float(len(report.alarm.gone)),
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
