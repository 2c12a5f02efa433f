"""Reports a replay so far, as numbers and as a page."""

from dataclasses import dataclass, replace

import msgspec
import polars as pl

from health_predict.data.cohort import is_eligible, outcome
from health_predict.data.schema import OUTCOME
from health_predict.errors import StorageError
from health_predict.monitoring.alarms import Alarm
from health_predict.monitoring.next_action import BatchRecord
from health_predict.params import BootstrapParams
from health_predict.reports.replay_page import page
from health_predict.simulation.replay import Outcome, Replay, Row, realised, summarise
from health_predict.store import layout
from health_predict.store.batches import ARRIVES, SCORES, UNTREATED, read_arrival, read_outcomes, read_predictions
from health_predict.store.follow_up import read_threshold
from health_predict.store.loop import read_ended
from health_predict.store.manifests import completed
from health_predict.store.monitoring_reports import Judged, read_judged, read_monitoring
from health_predict.store.read_once import ReadOnce
from health_predict.store.replay import read_plan
from health_predict.store.simulations import simulation_of
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json, write_json


def report_replay(storage: Storage, params: BootstrapParams) -> Replay:
    """Write `results.json` and `index.html` from the documents of all batches before the first unfinished one.

    Raises StorageError before `simulate` began.
    """
    storage = ReadOnce(storage)
    plan = read_plan(storage)
    if plan is None:
        raise StorageError(f"no replay was begun in {storage.root}; run `health-predict simulate` first")
    rows: list[Row] = []
    while (ended := read_ended(storage, len(rows) + 1)) is not None:
        rows.append(_row(storage, ended, params))
    synthetic = completed(storage, layout.SPLIT_MANIFEST, "data split", only=())["result"]["synthetic"]
    replay = summarise(plan.scenario, plan.from_batch, synthetic, simulation_of(storage), rows)
    write_json(storage, layout.REPLAY_NUMBERS, msgspec.to_builtins(replay))
    storage.write(layout.REPLAY_PAGE, page(replay))
    return replay


@dataclass(frozen=True)
class _Decided:
    reasons: tuple[str, ...]


def _row(storage: Storage, ended: BatchRecord, params: BootstrapParams) -> Row:
    arrived = completed(storage, layout.manifest(layout.arrival(ended.batch)), ARRIVES)["result"]
    if ended.refused:
        return Row(ended.batch, 0, refused=arrived["refused"])
    name = layout.batch(ended.batch)
    said = completed(storage, layout.manifest(layout.predictions(ended.batch)), SCORES)["result"]
    judged = read_judged(storage, ended.batch)
    row = Row(
        batch=ended.batch,
        rows=arrived["rows"],
        left_out=arrived["left_out"],
        waits=True,
        version=said["version"],
        outcome=_outcome(storage, judged, params),
        unjudged=judged.unjudged if judged else None,
    )
    if not storage.exists(layout.drift_manifest(name)):
        return row
    found = read_monitoring(storage, name)
    alarm = found.alarm
    decided = msgspec.convert(read_json(storage, layout.retraining_report(name))["result"], _Decided)
    return replace(
        row,
        waits=False,
        alarms=found.reasons,
        raised=alarm is not None and alarm.raised,
        new=_new(alarm) if alarm else (),
        known=_known(alarm) if alarm else (),
        distances={field.field: field.distance for field in found.drift.fields},
        drifted=tuple(field.field for field in found.drift.fields if field.drifted),
        action=ended.action or "none",
        reasons=decided.reasons,
        promoted=ended.promoted,
        answered_meanwhile=ended.answered_meanwhile,
        objections=ended.objections,
    )


def _new(alarm: Alarm) -> tuple[str, ...]:
    worse = (f"worse, known since {item.since}: {item.text}" for item in alarm.worse)
    return (*(item.text for item in alarm.new), *worse)


def _known(alarm: Alarm) -> tuple[str, ...]:
    """A sentence on known findings for each report that first told of some."""
    texts: dict[str, list[str]] = {}
    for item in alarm.known:
        texts.setdefault(item.since, []).append(item.text)
    return tuple(f"since {since}: {'; '.join(found)}" for since, found in texts.items())


def _outcome(storage: Storage, judged: Judged | None, params: BootstrapParams) -> Outcome | None:
    """Outcome of a batch that has matured and been judged; None for others."""
    if judged is None or judged.batch is None or judged.performance is None:
        return None
    became, said = read_outcomes(storage, judged.batch), read_predictions(storage, judged.batch)
    if UNTREATED in became.columns:
        became = became.with_columns(pl.col(UNTREATED).alias(OUTCOME))
    arrived = read_arrival(storage, judged.batch).select("encounter_id", "discharge_disposition_id")
    joined = became.select("encounter_id").join(
        said.join(arrived, on="encounter_id", how="left"), on="encounter_id", how="left", maintain_order="left"
    )
    return realised(
        outcome(became),
        joined["probability"].to_numpy(),
        joined["first_probability"].to_numpy(),
        joined["patient_nbr"].to_numpy(),
        is_eligible(joined),
        read_threshold(storage, judged.batch),
        judged.reasons,
        params,
        judged.follow_up,
    )
