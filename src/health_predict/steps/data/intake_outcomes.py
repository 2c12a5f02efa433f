"""`health-predict intake outcomes`: takes in statements of outcomes, in any order, late, repeated or corrected."""

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

    `changed` differ from the outcome known before; `repeated` were known; `overruled` differ from a newer statement,
    which counts instead; `unknown` are about encounters that have not arrived, and count when they do. `early` are
    newest statements from before discharge + 30 days + reporting lag (`data.maturity`), which do not count yet;
    `without_day` of these have no day. `batches`: the batches whose outcomes were written. `followed_up` statements are
    about encounters with follow-up.
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

    The file may state follow-up (FOLLOW_UP). The day of a statement is that in the file's column `as_of`, else the day
    `as_of`, else unknown. An encounter's newest statement counts: that of the latest day, of these the one taken in
    last; statements without a day are the oldest. A batch matures once the outcomes of enough of its encounters count
    (`params.min_known`). Taking in the same file again, at any time, changes nothing. Raises StorageError when there is
    no such file, DataError where a column or value is missing or invalid, an encounter has two statements of one day,
    or a day is in the future, as no later statement could overrule it.
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
    changed = _changed(before, after)
    news = after.height - before.height + changed  # encounters whose known statement is new or has changed
    return OutcomesTakenIn(
        rows=statements.height,
        changed=changed,
        repeated=statements.height - news - overruled,
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
    """The newest statements about a file's encounters that do not count yet."""
    count = that_count(newest, read_discharges(storage, log), params)
    waiting = newest.join(count, on="encounter_id", how="anti")
    return waiting.join(statements, on="encounter_id", how="semi")


def _changed(before: pl.DataFrame, after: pl.DataFrame) -> int:
    both = after.join(before, on="encounter_id", suffix="_before")
    return both.filter(pl.col(OUTCOME) != pl.col(f"{OUTCOME}_before")).height
