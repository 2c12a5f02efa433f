"""`health-predict intake outcomes`: what became of encounters, in any order, late, twice, or corrected."""

from dataclasses import dataclass
from datetime import date

import polars as pl

from health_predict.data.maturity import AS_OF
from health_predict.data.schema import OUTCOME
from health_predict.errors import DataError
from health_predict.params import IntakeParams
from health_predict.store.batches import parquet
from health_predict.store.intake import (
    STATEMENTS,
    Clock,
    IntakeLog,
    Received,
    Settled,
    append_received,
    last_day,
    newest_statements,
    read_discharges,
    settle,
    that_count,
    utc_now,
)
from health_predict.store.known_encounters import known_encounters
from health_predict.store.places import shown
from health_predict.store.received import read_statements
from health_predict.store.received_follow_up import FOLLOW_UP, followed_up, read_follow_up
from health_predict.store.storage import Storage
from health_predict.store.tables import keep_table


@dataclass(frozen=True)
class OutcomesTakenIn:
    """Counts of a file's statements.

    `changed` say otherwise than what was known of the encounter before; `repeated` were known; `overruled` say
    otherwise than what counts, as another statement is newer; `unknown` are of encounters that have not arrived, and
    count when they do. `early` are the newest about encounters whose day has not come: discharge + 30 days + reporting
    lag (`data.maturity`); `without_day` of these are of no known day. `batches` are those whose outcomes were written.
    `followed_up` are of encounters that were.
    """

    rows: int
    changed: int
    repeated: int
    overruled: int
    unknown: int
    batches: tuple[Settled, ...]
    early: int = 0
    without_day: int = 0
    followed_up: int = 0


def intake_outcomes(
    storage: Storage,
    params: IntakeParams,
    who: str,
    source: str,
    as_of: date | None = None,
    endpoint: str | None = None,
    clock: Clock = utc_now,
) -> OutcomesTakenIn:
    """Take in the outcomes of a CSV or Parquet file, local or s3://.

    The file may say what follow-up there was (FOLLOW_UP). A statement speaks of the day in the file's column `as_of`,
    else of the day `as_of`, else of no known day. The newest about an encounter counts: that of the latest day, of
    these the one that came last; one of no known day is older than those of one. A batch matures once the outcomes of
    enough of its encounters count (`params.min_known`). The same file again, whenever it comes, changes nothing. Raises
    StorageError when there is no such file, DataError where a column or a value is missing or does not fit, an
    encounter is there twice with the same day, or a day is still to come: nothing said later could count against it.
    """
    last = last_day(clock)
    if as_of is not None and as_of > last:
        raise DataError(f"{as_of} is still to come, and nobody can know what became of an encounter by then")
    statements = read_statements(source, as_of, endpoint)
    if coming := int((statements[AS_OF] > last).sum()):
        raise DataError(
            f"{shown(source)} has {coming} rows whose {AS_OF} is still to come: nobody can know outcomes then"
        )
    follow_up = read_follow_up(source, endpoint)
    types = STATEMENTS if follow_up is None else {**STATEMENTS, **FOLLOW_UP}
    statements = statements if follow_up is None else statements.hstack(follow_up)
    table = keep_table(storage, parquet(statements, types, shown(source)))

    def make(log: IntakeLog) -> tuple[pl.DataFrame, Received | None]:
        before = newest_statements(storage, log)
        if table in (one.table for one in log.received):
            return before, None
        at = clock().isoformat(timespec="seconds")
        return before, Received(at=at, who=who, kind="outcomes", table=table, rows=statements.height)

    log, before = append_received(storage, make)
    after = newest_statements(storage, log)
    arrived, overruled = known_encounters(storage, log)["encounter_id"], _changed(after, statements)
    early = _early(storage, log, after, statements, params)
    return OutcomesTakenIn(
        rows=statements.height,
        changed=_changed(before, after),
        repeated=statements.height - _news(before, after) - overruled,
        overruled=overruled,
        unknown=statements.filter(~pl.col("encounter_id").is_in(arrived.implode())).height,
        batches=tuple(settle(storage, params)),
        early=early.height,
        without_day=early[AS_OF].null_count(),
        followed_up=int(followed_up(statements).sum() or 0),
    )


def _early(
    storage: Storage, log: IntakeLog, newest: pl.DataFrame, statements: pl.DataFrame, params: IntakeParams
) -> pl.DataFrame:
    """Of the newest statements about the encounters of a file, those that do not count yet."""
    count = that_count(newest, read_discharges(storage, log), params)
    waiting = newest.join(count, on="encounter_id", how="anti")
    return waiting.join(statements, on="encounter_id", how="semi")


def _changed(before: pl.DataFrame, after: pl.DataFrame) -> int:
    both = after.join(before, on="encounter_id", suffix="_before")
    return both.filter(pl.col(OUTCOME) != pl.col(f"{OUTCOME}_before")).height


def _news(before: pl.DataFrame, after: pl.DataFrame) -> int:
    """Encounters of which something else is known than before, or for the first time."""
    return after.height - before.height + _changed(before, after)
