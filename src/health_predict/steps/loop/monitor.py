"""`health-predict monitor`: reports drift of data and scores, and changes of performance since the approval."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from health_predict.adapters.monitoring_runs import log_monitoring
from health_predict.bundle.model import Bundle, load_bundle, require_target
from health_predict.bundle.profile import read_reference
from health_predict.data.cohort import LabelledEncounters, outcome, select_cohort
from health_predict.data.follow_up import FollowUp, is_known, represent, with_representation
from health_predict.errors import ConflictError, DataError, Declined
from health_predict.monitoring.alarms import Watched, news
from health_predict.monitoring.drift import field_drift
from health_predict.monitoring.follow_up import effect_of
from health_predict.monitoring.measures import measures
from health_predict.monitoring.performance import performance_of, prediction_drift
from health_predict.monitoring.reference import Reference, profile, value_counts
from health_predict.monitoring.separation import separation
from health_predict.params import Params
from health_predict.reports.drift_page import html
from health_predict.store import layout
from health_predict.store.approvals import approved
from health_predict.store.batches import ARRIVAL, ARRIVES, FOLLOWED_UP, arrived, read_arrival
from health_predict.store.bundles import unpacked
from health_predict.store.datasets import batches_in
from health_predict.store.holdouts import read_seen, seen
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import completed, finished, publish
from health_predict.store.monitoring_reports import (
    Judged,
    MonitoringReport,
    read_judgements,
    read_monitoring,
    read_watched,
    read_watched_days,
)
from health_predict.store.places import shown
from health_predict.store.received import read_file, read_logged, read_outcomes
from health_predict.store.received_follow_up import followed_up, read_follow_up
from health_predict.store.simulations import simulation_of
from health_predict.store.storage import Storage
from health_predict.store.tables import json_bytes
from health_predict.workspace import Workspace


@dataclass(frozen=True)
class _Against:
    """The bundle and reference that a batch is compared with; `left_out` encounters are not in the cohort."""

    version: str
    simulation: str | None
    decisions: int
    bundle: Bundle
    reference: Reference
    encounters: pl.DataFrame
    trained_on: str
    learnt: tuple[int, ...]
    left_out: int = 0


@dataclass(frozen=True)
class _Batch:
    """Encounters of the cohort that are monitored together; `left_out` encounters are not in the cohort."""

    name: str
    numbers: tuple[int, ...]
    encounters: pl.DataFrame
    left_out: int


def monitor(workspace: Workspace, params: Params, number: int) -> MonitoringReport:
    """Report on an arrived batch under the version in production, and on outcomes judged since the last report.

    Earlier batches that were too small are monitored with it. Writes `drift.json` and `report.html`, and logs the
    numbers to MLflow. Skipped when the batch was monitored, alone or with a later one, whichever version is in
    production now. Raises Declined while too few encounters have arrived; StorageError before the batch arrived,
    ConflictError with nothing in production.
    """
    workspace = workspace.reading_once()
    storage = workspace.storage
    name = layout.batch(number)
    record = completed(storage, layout.manifest(layout.arrival(number)), ARRIVES)
    inputs = {"arrival": record["files"], "params": _choices(params)}
    if finished(storage, layout.drift_manifest(name), inputs):
        return replace(read_monitoring(storage, name), skipped=True)
    if record["result"]["refused"]:
        raise DataError(f"batch {number} was refused and cannot be judged: {record['result']['refused']}")
    against = _champion(workspace)
    others = [report for report in read_watched(storage) if report.batch != number]
    together = [report for report in others if number in report.batches]
    if together:
        return replace(together[0], skipped=True)
    batch = _pooled(storage, others, number, params)
    told = {judged.batch for report in others for judged in report.outcomes}
    outcomes = tuple(judged for judged in read_judgements(storage) if judged.batch not in told)
    report = _judge(batch, number, against, outcomes, params)
    report = _with_news(report, [one for one in others if (one.batch or 0) < number], params)
    _write(workspace, params, report, inputs, batch.encounters, against)
    return report


def _pooled(storage: Storage, others: list[MonitoringReport], number: int, params: Params) -> _Batch:
    """The batch, with earlier batches that no report covers."""
    judged = {one for report in others for one in report.batches}
    numbers = [one for one in arrived(storage, number) if one not in judged]
    encounters = pl.concat([read_arrival(storage, one) for one in numbers])
    if encounters.height < params.drift.min_rows:
        raise Declined(
            f"batch {number} waits to be judged:",
            [
                f"{encounters.height} encounters have arrived since the batch that was judged last; "
                f"{params.drift.min_rows} (DriftParams.min_rows) are needed."
            ],
        )
    records = (completed(storage, layout.manifest(layout.arrival(one)), ARRIVES) for one in numbers)
    left_out = sum(record["result"]["left_out"] for record in records)
    return _Batch(layout.batch(number), tuple(numbers), encounters, left_out)


def monitor_file(
    workspace: Workspace,
    params: Params,
    current: str,
    reference: str | None = None,
    outcomes: str | None = None,
    endpoint: str | None = None,
) -> MonitoringReport:
    """As `monitor`, for the cohort in a file, against the file `reference` or what production was trained on.

    `outcomes` names a file with outcomes of some of the encounters (`read_outcomes`), and optionally their follow-up,
    taken as a response to production's risks; encounters that production was trained on are left out. The report is
    named after the file and the content of all three. Raises DataError with too few encounters, or too few outcomes
    that are new to production.
    """
    workspace = workspace.reading_once()
    received = read_file(current, endpoint)
    others = read_file(reference, endpoint) if reference else None
    became = read_outcomes(outcomes, endpoint) if outcomes else None
    follow_up = read_follow_up(outcomes, endpoint) if outcomes else None
    if became is not None and follow_up is not None:
        became = became.with_columns(followed_up(follow_up))
    against = _champion(workspace)
    if others is not None:
        against = _with_reference(against, others, params)
    judged = () if became is None else (_became(workspace, against, received, became, params),)
    name = layout.judged_file(Path(shown(current)).stem, _digest(received, others, became))
    batch = _cohort(name, received)
    report = _judge(batch, None, against, judged, params)
    report = _with_news(report, read_watched(workspace.storage) if others is None else [], params)
    files = {"current": current, "reference": reference, "outcomes": outcomes}
    inputs = {**files, "version": against.version, "params": _choices(params)}
    _write(workspace, params, report, inputs, batch.encounters, against)
    return report


def monitor_logged(workspace: Workspace, params: Params, store: Storage, day: str) -> MonitoringReport:
    """As `monitor`, for the cohort that the service scored on a day, from the prediction log in `store`.

    The encounters are monitored under the version in production, whichever version answered. The report is named after
    the day and the content logged so far.
    """
    workspace = workspace.reading_once()
    received = read_logged(store, day)
    against = _champion(workspace)
    batch = _cohort(layout.judged_file(f"logged-{day}", _digest(received)), received)
    report = _judge(batch, None, against, (), params)
    report = _with_news(report, [*read_watched(workspace.storage), *read_watched_days(workspace.storage, day)], params)
    inputs = {"logged": day, "version": against.version, "params": _choices(params)}
    _write(workspace, params, report, inputs, batch.encounters, against)
    return report


def _with_news(report: MonitoringReport, earlier: list[MonitoringReport], params: Params) -> MonitoringReport:
    return replace(report, alarm=news(_watched(report, params), [_watched(one, params) for one in earlier], params))


def _watched(report: MonitoringReport, params: Params) -> Watched:
    """Measures of a report. Outcomes of versions replaced since are left out, as they do not concern the champion."""
    outcomes = (
        ("" if judged.batch is None else f" in batch {judged.batch}", judged.performance)
        for judged in report.outcomes
        if judged.performance is not None and judged.version == report.version
    )
    found = measures(report.drift, report.separation, report.predictions, outcomes, params)
    name = report.name if report.batch is None else f"batch {report.batch}"
    return Watched(name, report.version, report.trained_on, report.batches, report.learnt, found)


def _cohort(name: str, received: pl.DataFrame) -> _Batch:
    encounters = select_cohort(received)
    return _Batch(name, (), encounters, received.height - encounters.height)


def _judge(
    batch: _Batch, number: int | None, against: _Against, outcomes: tuple[Judged, ...], params: Params
) -> MonitoringReport:
    encounters, manifest = batch.encounters, against.bundle.manifest
    scores = against.bundle.predict_proba(encounters)
    drift = field_drift(against.reference, value_counts(encounters), params.drift)
    apart = separation(against.encounters, encounters, params.drift)
    moved = prediction_drift(
        against.reference, scores, manifest.threshold, manifest.capacity, params.performance, params.drift
    )
    became = [reason for judged in outcomes for reason in judged.reasons]
    reasons = (*drift.reasons, *apart.reasons, *moved.reasons, *became)
    return MonitoringReport(
        name=batch.name,
        status="DRIFT_DETECTED" if reasons else "NO_DRIFT",
        reasons=reasons,
        batch=number,
        batches=batch.numbers,
        version=against.version,
        decisions=against.decisions,
        synthetic=manifest.synthetic,
        simulation=against.simulation,
        left_out=batch.left_out,
        reference_left_out=against.left_out,
        drift=drift,
        separation=apart,
        predictions=moved,
        outcomes=outcomes,
        trained_on=against.trained_on,
        learnt=against.learnt,
    )


def _champion(workspace: Workspace) -> _Against:
    storage = workspace.storage
    ledger = read_ledger(storage)
    if ledger.production is None:
        raise ConflictError("nothing is in production to watch; run `health-predict promote` first")
    with unpacked(storage, workspace.connect, ledger.version(ledger.production)) as folder:
        bundle, reference = load_bundle(folder), read_reference(folder)
    require_target(bundle.manifest)
    fitted_on = bundle.manifest.trained_on[0]
    return _Against(
        version=ledger.production,
        simulation=simulation_of(storage),
        decisions=len(ledger.entries),
        bundle=bundle,
        reference=reference,
        encounters=read_seen(storage, fitted_on).select(*ARRIVAL),
        trained_on=fitted_on.sha256,
        learnt=batches_in(storage, fitted_on),
    )


def _with_reference(against: _Against, received: pl.DataFrame, params: Params) -> _Against:
    encounters = select_cohort(received)
    unknown = LabelledEncounters(encounters, np.zeros(len(encounters), dtype=np.bool_))
    scores = against.bundle.predict_proba(encounters)
    found = profile(unknown, scores, against.reference.importance, params.drift)
    return replace(against, reference=found, encounters=encounters, left_out=received.height - encounters.height)


def _became(
    workspace: Workspace,
    against: _Against,
    received: pl.DataFrame,
    outcomes: pl.DataFrame,
    params: Params,
) -> Judged:
    """Performance of production on a file's cohort, on known outcomes of encounters that it was not trained on."""
    storage = workspace.storage
    joined = received.join(outcomes, on="encounter_id", maintain_order="left")
    if joined.height != outcomes.height:
        raise DataError(
            f"{outcomes.height} outcomes were given, and the file of encounters has {joined.height} with their "
            "encounter_id; each has to be there once"
        )
    cohort = select_cohort(joined)
    unseen = cohort.filter(~pl.col("encounter_id").is_in(seen(storage, [against.bundle.manifest]).implode()))
    known = cohort.height - unseen.height
    if known and unseen.height < params.drift.min_rows:
        raise DataError(
            f"version {against.version} was trained on {known} of the {cohort.height} encounters with outcomes, which "
            f"say nothing about it, and the other {unseen.height} are too few to judge it; {params.drift.min_rows} "
            "(DriftParams.min_rows) needed. Give encounters that came after its training"
        )
    risks = against.bundle.predict_proba(unseen)
    became, effect = unseen.drop(FOLLOWED_UP, strict=False).with_columns(probability=risks), None
    followed = unseen.get_column(FOLLOWED_UP, default=None)
    if followed is not None and is_known(followed, params.follow_up):
        care = FollowUp.of(risks, against.bundle.manifest.threshold, followed)
        found = represent(outcome(unseen), care, params.follow_up)
        if found.unknown is not None:
            raise DataError(found.unknown)
        became = with_representation(became, found.weights)
        effect = effect_of(outcome(unseen), care, unseen["patient_nbr"].to_numpy(), params.follow_up, params.bootstrap)
    reference = approved(storage, read_ledger(storage).version(against.version))
    return Judged(
        batch=None,
        version=against.version,
        decisions=against.decisions,
        rows=unseen.height,
        left_out=joined.height - cohort.height,
        seen=known,
        performance=performance_of(became, reference, params),
        follow_up=effect,
    )


def _write(
    workspace: Workspace,
    params: Params,
    report: MonitoringReport,
    inputs: Mapping[str, object],
    encounters: pl.DataFrame,
    against: _Against,
) -> None:
    files = {
        layout.drift_numbers(report.name): json_bytes(msgspec.to_builtins(report)),
        layout.drift_report(report.name): html(against.encounters, encounters, params.drift),
    }
    log_monitoring(workspace.registry, report)
    result = {"status": report.status, "reasons": list(report.reasons)}
    publish(workspace.storage, layout.drift_manifest(report.name), inputs=inputs, files=files, result=result)


def _digest(*tables: pl.DataFrame | None) -> str:
    """SHA-256 of the tables' content."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(b"-" if table is None else table.write_csv().encode())
    return digest.hexdigest()


def _choices(params: Params) -> dict[str, object]:
    return {
        "drift": asdict(params.drift),
        "performance": asdict(params.performance),
        "alarms": asdict(params.alarms),
        "bootstrap": asdict(params.bootstrap),
    }
