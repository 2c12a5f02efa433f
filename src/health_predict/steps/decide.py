"""Is it time to retrain? Evidence under the present champion in, a recorded decision with its reasons out."""

from dataclasses import asdict, dataclass, replace

import msgspec

from health_predict.data.cohort import outcome
from health_predict.io import layout
from health_predict.io.datasets import INITIAL, Dataset, retraining
from health_predict.io.ledger import read_ledger
from health_predict.io.manifests import completed, finished, publish
from health_predict.io.monitoring_reports import read_monitoring
from health_predict.io.replay import matured, read_matured
from health_predict.io.storage import Storage
from health_predict.io.tables import read_json
from health_predict.monitoring.retraining import Action, Evidence, Stock
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
    version = read_ledger(storage).production
    stock = _stock(storage, number)
    decision = by_policy(_evidence(storage, number, version), stock, params)
    decided = Decided(number, version, decision.action, decision.reasons, stock)
    publish(storage, key, inputs=inputs, files={}, result=asdict(decided))
    return decided


def _evidence(storage: Storage, number: int, version: str | None) -> list[Evidence]:
    """What was found on the batches that were judged under the version or scored by it, oldest first.

    A retraining comes between the two: the batch that led to it was judged under the version before.
    """
    reports = [read_monitoring(storage, name) for name in _monitored(storage, number)]
    judged = {report.batch: report for report in reports if report.version == version}
    realised = {report.matured_batch: report.performance for report in reports if report.matured_version == version}
    return [
        Evidence(
            batch=one,
            importance_drifted=judged[one].drift.importance_drifted if one in judged else 0.0,
            administrative_drifted=judged[one].drift.administrative_drifted if one in judged else 0.0,
            scores_drifted=one in judged and judged[one].predictions.detected,
            performance=realised.get(one),
        )
        for one in range(1, number + 1)
        if one in judged or one in realised
    ]


def _monitored(storage: Storage, number: int) -> list[str]:
    names = [layout.batch(one) for one in range(1, number + 1)]
    return [name for name in names if storage.exists(layout.drift_manifest(name))]


def _stock(storage: Storage, number: int) -> Stock:
    """What there is to learn from that the last training, promoted or not, did not have."""
    last = max((one for one in range(1, number) if storage.exists(layout.retraining_manifest(one))), default=0)
    new = [one for one in matured(storage, number) if one >= last]
    tables = [read_matured(storage, one) for one in new]
    return Stock(
        trained_rows=_trained_rows(storage, last),
        new_rows=sum(map(len, tables)),
        new_outcomes=sum(int(outcome(table).sum()) for table in tables),
        batches=len(new),
    )


def _trained_rows(storage: Storage, last: int) -> int:
    dataset: Dataset = retraining(last) if last else INITIAL
    result = read_json(storage, dataset.manifest)["result"]
    if last:
        return int(result["train"] + result["validation"])
    return sum(part["rows"] for part in result["parts"] if part["key"] in (dataset.train, dataset.validation))
