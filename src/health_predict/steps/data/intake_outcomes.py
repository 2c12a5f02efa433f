"""`health-predict intake outcomes`: what became of encounters, in any order, late, twice, or corrected."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from health_predict.data.schema import OUTCOME
from health_predict.errors import DataError
from health_predict.params import IntakeParams
from health_predict.store.batches import parquet
from health_predict.store.intake import (
    STATEMENTS,
    IntakeLog,
    Received,
    Settled,
    append_received,
    known_encounters,
    newest_statements,
    settle,
)
from health_predict.store.places import shown
from health_predict.store.received import read_outcomes
from health_predict.store.storage import Storage
from health_predict.store.tables import keep_table

AHEAD = timedelta(days=1)  # of the day in UTC, where it is tomorrow already


@dataclass(frozen=True)
class OutcomesTakenIn:
    """Counts of a file's statements.

    `changed` say otherwise than what was known of the encounter before; `repeated` were known; `overruled` say
    otherwise than what counts, as another statement is newer; `unknown` are of encounters that have not arrived, and
    count when they do. `batches` are those whose outcomes were written.
    """

    rows: int
    changed: int
    repeated: int
    overruled: int
    unknown: int
    batches: tuple[Settled, ...]


def intake_outcomes(
    storage: Storage,
    params: IntakeParams,
    who: str,
    source: str,
    as_of: date | None = None,
    endpoint: str | None = None,
) -> OutcomesTakenIn:
    """Take in the outcomes of a CSV or Parquet file, local or s3://.

    The newest statement about an encounter counts: of the latest day that a file was `as_of`, of these the one that
    came last; a file without a day counts as older than those with one. A batch matures once the outcomes of enough of
    its encounters are known (`params.min_known`). The same file again, whenever it comes, changes nothing. Raises
    StorageError when there is no such file, DataError where a column or a value is missing or does not fit, an
    encounter is there twice, or `as_of` is still to come: nothing said later could count against it.
    """
    if as_of is not None and as_of > datetime.now(UTC).date() + AHEAD:
        raise DataError(f"{as_of} is still to come, and nobody can know what became of an encounter by then")
    statements = read_outcomes(source, endpoint).with_columns(as_of=pl.lit(as_of, pl.Date))
    table = keep_table(storage, parquet(statements, STATEMENTS, shown(source)))

    def make(log: IntakeLog) -> tuple[pl.DataFrame, Received | None]:
        before = newest_statements(storage, log)
        if table in (one.table for one in log.received):
            return before, None
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return before, Received(at=at, who=who, kind="outcomes", table=table, rows=statements.height)

    log, before = append_received(storage, make)
    after = newest_statements(storage, log)
    arrived, overruled = known_encounters(storage, log), _changed(after, statements)
    return OutcomesTakenIn(
        rows=statements.height,
        changed=_changed(before, after),
        repeated=statements.height - _news(before, after) - overruled,
        overruled=overruled,
        unknown=statements.filter(~pl.col("encounter_id").is_in(arrived.implode())).height,
        batches=tuple(settle(storage, params)),
    )


def _changed(before: pl.DataFrame, after: pl.DataFrame) -> int:
    both = after.join(before, on="encounter_id", suffix="_before")
    return both.filter(pl.col(OUTCOME) != pl.col(f"{OUTCOME}_before")).height


def _news(before: pl.DataFrame, after: pl.DataFrame) -> int:
    """Encounters of which something else is known than before, or for the first time."""
    return after.height - before.height + _changed(before, after)
