"""`health-predict promote`: the gate decides; a yes moves `production`, and every decision goes into the ledger."""

from dataclasses import dataclass

from health_predict.errors import ConflictError, Declined, StorageError
from health_predict.evaluation.gate import Comparison, objections
from health_predict.io.ledger import append, entry, read_ledger
from health_predict.io.registry import Registry, Version
from health_predict.io.reports import read_evaluation, read_training
from health_predict.io.storage import Storage
from health_predict.params import GateParams


@dataclass(frozen=True)
class Promotion:
    """What is in production now; `skipped` when it was so before."""

    version: Version
    previous: str | None
    skipped: bool = False


def promote(storage: Storage, registry: Registry, params: GateParams, run_id: str | None) -> Promotion:
    """Let a run's model into production if the gate has no objection; None means the newest training's winner.

    The ledger is written first and the aliases follow it, so a promotion that dies in between is completed by the
    next command that reads the ledger. Raises Declined with the objections, ConflictError when production changed
    since the evaluation or while deciding, BundleError when the run lacks a part, StorageError before `evaluate`.
    """
    run_id = run_id or read_training(storage).winner
    report = read_evaluation(storage, run_id)
    if report is None:
        raise StorageError(f"the run {run_id} has no evaluation in {storage.root}; run `health-predict evaluate` first")
    ledger = read_ledger(storage)
    registry.follow(ledger.production, ledger.previous)
    serving = registry.version(ledger.production) if ledger.production else None
    if serving and serving.run_id == run_id:
        return Promotion(serving, ledger.previous, skipped=True)
    if report.champion != ledger.production:
        raise ConflictError(
            f"the run {run_id} was compared with version {report.champion}, and production is {ledger.production}; "
            "run `health-predict evaluate` again"
        )
    numbers = _numbers(report.comparison)
    reasons = objections(report.comparison, params)
    if reasons:
        append(storage, ledger, entry(ledger, "declined", run_id, reasons, numbers))
        raise Declined(f"the gate declines the {report.family} of run {run_id}:", reasons)
    version = registry.register(run_id, {"family": report.family, "synthetic": str(report.synthetic).lower()})
    passed = [check.sentence for check in report.checks]
    decision = entry(ledger, "promoted", run_id, passed, numbers, version.version, previous=ledger.production)
    ledger = append(storage, ledger, decision)
    registry.follow(ledger.production, ledger.previous)
    return Promotion(version, ledger.previous)


def _numbers(comparison: Comparison) -> dict[str, float]:
    found = {
        "rows": float(comparison.rows),
        "outcomes": float(comparison.outcomes),
        "auroc": comparison.challenger.auroc.estimate,
        "average_precision": comparison.challenger.average_precision.estimate,
        "observed_expected": comparison.challenger.observed_expected.estimate,
    }
    if comparison.champion:
        found["auroc_difference"] = comparison.champion.differences.auroc.estimate
        found["average_precision_difference"] = comparison.champion.differences.average_precision.estimate
    return found
