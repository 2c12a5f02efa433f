"""Is it time to retrain? Evidence under the present champion in, a recorded decision with its reasons out."""

from dataclasses import asdict, dataclass, replace

import msgspec

from health_predict.data.cohort import outcome
from health_predict.io import layout
from health_predict.io.datasets import INITIAL, Dataset, retraining
from health_predict.io.ledger import Ledger, read_ledger
from health_predict.io.manifests import completed, finished, publish
from health_predict.io.monitoring_reports import MonitoringReport, read_monitoring
from health_predict.io.replay import matured, read_matured, trained_in
from health_predict.io.storage import Storage
from health_predict.io.tables import read_json
from health_predict.monitoring.retraining import Action, Evidence, Finding, Moved, Stock, gather
from health_predict.monitoring.retraining import decide as by_policy
from health_predict.params import RetrainingParams


@dataclass(frozen=True)
class Decided:
    """What was decided when a batch had arrived, under which version, and from how much new data."""

    batch: int
    version: str | None
    action: Action
    reasons: tuple[str, ...]
    stock: Stock
    skipped: bool = False


def decide(storage: Storage, params: RetrainingParams, number: int) -> Decided:
    """Decide after a batch was monitored. Skipped when it was decided: a decision is made once.

    Raises StorageError before `monitor`.
    """
    key = layout.retraining_report(layout.batch(number))
    watched = completed(storage, layout.drift_manifest(layout.batch(number)), f"monitor --batch {number}")
    inputs = {"monitored": watched["files"], "params": asdict(params)}
    done = finished(storage, key, inputs)
    if done:
        return replace(msgspec.convert(done, Decided), skipped=True)
    ledger = read_ledger(storage)
    stock = _stock(storage, number)
    decision = by_policy(_evidence(storage, number, ledger), stock, params)
    decided = Decided(number, ledger.production, decision.action, decision.reasons, stock)
    publish(storage, key, inputs=inputs, files={}, result=asdict(decided))
    return decided


def _evidence(storage: Storage, number: int, ledger: Ledger) -> Evidence:
    reports = [read_monitoring(storage, name) for name in _monitored(storage, number)]
    findings = [finding for report in reports for finding in _findings(report)]
    promoted = [entry for entry in ledger.entries if entry.decision in ("promoted", "adopted")]
    models = {str(entry.subject.version): trained_in(storage, entry.subject.run_id) for entry in promoted}
    return gather(findings, str(ledger.production), models)


def _findings(report: MonitoringReport) -> list[Finding]:
    """In their order: a batch was scored before the next one was judged."""
    drift = report.drift
    moved = Moved(drift.importance_drifted, drift.administrative_drifted, report.predictions.detected)
    judged = Finding(report.version, moved)
    if report.performance is None or report.matured_version is None:
        return [judged]
    return [Finding(report.matured_version, report.performance), judged]


def _monitored(storage: Storage, number: int) -> list[str]:
    names = [layout.batch(one) for one in range(1, number + 1)]
    return [name for name in names if storage.exists(layout.drift_manifest(name))]


def _stock(storage: Storage, number: int) -> Stock:
    """What there is to learn from that the last training, promoted or not, did not have; and what was tried since."""
    last = max((one for one in range(1, number) if storage.exists(layout.retraining_manifest(one))), default=0)
    new = [one for one in matured(storage, number) if one >= last]
    tables = [read_matured(storage, one) for one in new]
    return Stock(
        trained_rows=_trained_rows(storage, last),
        new_rows=sum(map(len, tables)),
        new_outcomes=sum(int(outcome(table).sum()) for table in tables),
        batches=len(new),
        recalibrated=any(storage.exists(layout.recalibration_manifest(one)) for one in range(last + 1, number)),
    )


def _trained_rows(storage: Storage, last: int) -> int:
    dataset: Dataset = retraining(last) if last else INITIAL
    result = read_json(storage, dataset.manifest)["result"]
    if last:
        return int(result["train"] + result["validation"])
    return sum(part["rows"] for part in result["parts"] if part["key"] in (dataset.train, dataset.validation))
