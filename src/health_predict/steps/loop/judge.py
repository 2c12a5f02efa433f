"""Judges versions on the outcomes of batches that they scored."""

import polars as pl

from health_predict.adapters.monitoring_runs import log_judged
from health_predict.bundle.model import require_target
from health_predict.data.cohort import outcome
from health_predict.errors import DataError
from health_predict.evaluation.metrics import Metrics
from health_predict.monitoring.follow_up import Effect, effect_of
from health_predict.monitoring.performance import Performance, performance_of
from health_predict.params import Params
from health_predict.store import layout
from health_predict.store.approvals import approved
from health_predict.store.batches import ARRIVES, SCORES, matured, read_predictions, scored
from health_predict.store.bundles import open_version
from health_predict.store.follow_up import MaturedBatch, read_judgeable
from health_predict.store.holdouts import seen
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import completed
from health_predict.store.monitoring_reports import Judged, write_judged
from health_predict.workspace import Workspace


def judge(workspace: Workspace, params: Params) -> tuple[Judged, ...]:
    """Judge the outcomes of every batch that was scored and has matured; returns the new judgements, by batch number.

    Each batch is judged once, under the version that scored it, however late and in whatever order outcomes mature.
    Where some of the flagged were followed up, the version is judged on the others. Batches that were not scored are
    not judged. The report on the next monitored batch has the judgements. Raises BundleError for a version of another
    outcome.
    """
    workspace = workspace.reading_once()
    storage = workspace.storage
    said = set(scored(storage))
    waiting = [
        number for number in matured(storage) if number in said and not storage.exists(layout.performance(number))
    ]
    return tuple(_judged(workspace, params, number) for number in waiting)


def _judged(workspace: Workspace, params: Params, number: int) -> Judged:
    storage = workspace.storage
    result = completed(storage, layout.manifest(layout.predictions(number)), SCORES)["result"]
    arrival = completed(storage, layout.manifest(layout.arrival(number)), ARRIVES)["result"]
    version = read_ledger(storage).version(result["version"])
    bundle = open_version(storage, workspace.connect, version)
    require_target(bundle.manifest)
    said = read_predictions(storage, number).select("encounter_id", "probability")
    batch = read_judgeable(storage, number, params.follow_up)
    became = batch.encounters.join(said, on="encounter_id", maintain_order="left")
    unseen = became.filter(~pl.col("encounter_id").is_in(seen(storage, [bundle.manifest]).implode()))
    found, unjudged = None, batch.unknown
    if unjudged is None:
        found, unjudged = _measured(unseen, approved(storage, version), params)
    judged = Judged(
        batch=number,
        version=version.version,
        decisions=result["decisions"],
        rows=unseen.height,
        left_out=arrival["left_out"],
        seen=became.height - unseen.height,
        performance=found,
        unjudged=unjudged,
        follow_up=_effect(batch, params),
    )
    log_judged(workspace.registry, number, judged)
    write_judged(storage, number, judged)
    return judged


def _effect(batch: MaturedBatch, params: Params) -> Effect | None:
    if batch.care is None:
        return None
    patients = batch.encounters["patient_nbr"].to_numpy()
    return effect_of(outcome(batch.encounters), batch.care, patients, params.follow_up, params.bootstrap)


def _measured(became: pl.DataFrame, reference: Metrics, params: Params) -> tuple[Performance | None, str | None]:
    """Performance of a version, or why it is unknown: a small batch may have no readmission at all."""
    try:
        return performance_of(became, reference, params), None
    except DataError as error:
        return None, str(error)
