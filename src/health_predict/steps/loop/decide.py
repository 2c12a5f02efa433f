"""Decides, from the evidence under the present champion, whether to retrain or recalibrate; records the reasons."""

from dataclasses import asdict, dataclass

import polars as pl

from health_predict.bundle.model import Manifest
from health_predict.data.splits import fresh, needed, total
from health_predict.monitoring.retraining import Action, BatchEvidence, Evidence, Moved, Stock, gather
from health_predict.monitoring.retraining import decide as by_policy
from health_predict.params import Params
from health_predict.store import layout
from health_predict.store.approvals import trained_in
from health_predict.store.batches import matured
from health_predict.store.bundles import kept_manifest
from health_predict.store.follow_up import read_judgeable
from health_predict.store.holdouts import known, read_seen
from health_predict.store.ledger import Ledger, read_ledger
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.monitoring_reports import read_judgements, read_watched
from health_predict.store.read_once import ReadOnce
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json
from health_predict.workspace.production import in_production


@dataclass(frozen=True)
class Decided:
    """The decision after a batch, the version in production, and the amount of new data."""

    batch: int
    version: str
    action: Action
    reasons: tuple[str, ...]
    stock: Stock
    skipped: bool = False


def decide(storage: Storage, params: Params, number: int) -> Decided:
    """Decide after a batch was monitored. Skipped when already decided: a decision is made once.

    Raises StorageError before `monitor`, ConflictError with nothing in production.
    """
    storage = ReadOnce(storage)
    key = layout.retraining_report(layout.batch(number))
    watched = completed(storage, layout.drift_manifest(layout.batch(number)), f"monitor --batch {number}")
    inputs = {"monitored": watched["files"], "params": asdict(params.retraining)}

    def make() -> Made[Decided]:
        ledger, production = read_ledger(storage), in_production(storage)
        stock = _stock(storage, production, params, number)
        decision = by_policy(_evidence(storage, number, ledger), stock, params.retraining)
        return Made(Decided(number, production, decision.action, decision.reasons, stock), {})

    return rerunnable(storage, key, inputs, Decided, make)


def _evidence(storage: Storage, number: int, ledger: Ledger) -> Evidence:
    arrived = [entry.subject for entry in ledger.entries if entry.decision in ("promoted", "adopted")]
    models: dict[str | None, str] = {one.version: trained_in(storage, one.run_id) for one in arrived}
    productions = [entry.production for entry in ledger.entries]
    return gather([*_arrivals(storage, number), *_outcomes(storage)], productions, models)


def _arrivals(storage: Storage, number: int) -> list[BatchEvidence]:
    reports = [report for report in read_watched(storage) if report.batch is not None and report.batch <= number]
    return [
        BatchEvidence(
            batch=report.batch or 0,
            version=report.version,
            decisions=report.decisions,
            found=Moved(
                report.drift.importance_drifted, report.drift.administrative_drifted, report.predictions.detected
            ),
        )
        for report in reports
    ]


def _outcomes(storage: Storage) -> list[BatchEvidence]:
    return [
        BatchEvidence(one.batch, one.version, one.decisions, one.performance)
        for one in read_judgements(storage)
        if one.batch is not None and one.performance is not None
    ]


def _stock(storage: Storage, champion: str, params: Params, number: int) -> Stock:
    manifest = kept_manifest(storage, read_ledger(storage).subject(champion).bundle)
    fitted = pl.concat([read_seen(storage, table)["encounter_id"] for table in manifest.trained_on[:2]])
    became = [read_judgeable(storage, one, params.follow_up) for one in matured(storage, number)]
    batches = [batch.encounters for batch in became]
    learnable = [batch.encounters for batch in became if not batch.unknown]
    new = [batch for batch in learnable if not batch["encounter_id"].is_in(fitted.implode()).any()]
    left = total(fresh(batches, known(storage, champion)))
    enough = needed(params.assembly, params.gate)
    return Stock(
        trained_rows=len(fitted),
        new_rows=sum(map(len, new)),
        batches=len(new),
        fresh_rows=left.rows,
        fresh_outcomes=left.outcomes,
        needed_rows=enough.rows,
        needed_outcomes=enough.outcomes,
        recalibrated=_recalibrated(storage, manifest, number),
        unknown_rows=sum(batch.encounters.height for batch in became if batch.unknown),
    )


def _recalibrated(storage: Storage, manifest: Manifest, number: int) -> bool:
    """Whether a bundle's model was recalibrated before, promoted or not."""
    manifests = (layout.recalibration_manifest(one) for one in range(1, number))
    tried = [read_json(storage, key)["result"]["recalibrated"] for key in manifests if storage.exists(key)]
    return trained_in(storage, manifest.run_id) in {trained_in(storage, run_id) for run_id in tried}
