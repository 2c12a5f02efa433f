"""The log of what a hospital handed over: encounters, and later what became of them.

`intake.jsonl` is the authority. A line is appended by compare-and-swap and names a table that is kept by its content,
so nothing that was taken in is lost, and of two intakes at once neither overwrites the other. `settle` then makes of
the log what the loop reads: `arrivals/` of encounters, and `outcomes/` of batches that have matured. An intake that
stops in between is completed by the next one.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Literal, TypeVar

import msgspec
import polars as pl

from health_predict.data.maturity import AS_OF, counts
from health_predict.data.schema import DISCHARGED_ON, OUTCOME
from health_predict.data.validation import DTYPES
from health_predict.errors import ConflictError, DataError
from health_predict.params import IntakeParams
from health_predict.store import layout
from health_predict.store.batches import (
    FOLLOWED_UP,
    OUTCOMES,
    Arrival,
    Types,
    arrived,
    next_assembly,
    outcome_bytes,
    read_arrival,
)
from health_predict.store.manifests import publish, unaltered
from health_predict.store.received_follow_up import FOLLOW_UP, followed_up
from health_predict.store.storage import State, Storage
from health_predict.store.tables import kept_table

Taken = TypeVar("Taken")
Clock = Callable[[], datetime]  # of the time, UTC

TRIES = 10  # appends, while others take something in at the same time
STATEMENTS: Types = {**OUTCOMES, AS_OF: pl.Date()}  # what was said to have become of an encounter, as known on a day
DISCHARGES: Types = {"encounter_id": DTYPES["encounter_id"], DISCHARGED_ON: pl.Date()}


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log.

    `table` is the SHA-256 of the kept table: encounters without outcomes, which are the batch of that number; or
    STATEMENTS. `discharges` is that of the encounters' days of discharge (DISCHARGES), None where the file had none.
    `left_out` encounters of the file ended in death or a hospice.
    """

    at: str  # UTC, ISO 8601
    who: str
    kind: Literal["encounters", "outcomes"]
    table: str
    rows: int
    batch: int | None = None
    left_out: int = 0
    discharges: str | None = None


@dataclass(frozen=True)
class IntakeLog:
    """The lines so far, and the state of the file that they were read from."""

    received: tuple[Received, ...]
    state: State | None

    @property
    def batches(self) -> dict[int, Received]:
        return {one.batch: one for one in self.received if one.batch is not None}


@dataclass(frozen=True)
class Settled:
    """Of a batch whose outcomes were written: how many count, how many do not (yet), how many were corrected, and how
    many encounters were followed up."""

    batch: int
    outcomes: int
    unknown: int
    corrected: int
    followed_up: int = 0


def utc_now() -> datetime:
    return datetime.now(UTC)


def last_day(clock: Clock) -> date:
    """The last day that has begun anywhere: where it is tomorrow already, a patient may have been discharged then."""
    return clock().date() + timedelta(days=1)


def read_intake(storage: Storage) -> IntakeLog:
    """The log; empty before anything was taken in. DataError where a line cannot be read."""
    found = storage.read_with_state(layout.INTAKE)
    if found is None:
        return IntakeLog((), None)
    try:
        lines = msgspec.json.Decoder(Received).decode_lines(found[0])
    except msgspec.MsgspecError as error:
        raise DataError(f"{storage.path(layout.INTAKE)} has a line that is not of this log: {error}") from error
    return IntakeLog(tuple(lines), found[1])


def append_received(
    storage: Storage, make: Callable[[IntakeLog], tuple[Taken, Received | None]]
) -> tuple[IntakeLog, Taken]:
    """Append the line that `make` makes of the log, or none; returns the log after, and what else is made.

    Where somebody appended meanwhile, all of it is made anew of what is there then. Raises ConflictError after TRIES.
    """
    for _ in range(TRIES):
        log = read_intake(storage)
        taken, received = make(log)
        if received is None:
            return log, taken
        received_now = (*log.received, received)
        with suppress(ConflictError):
            storage.write_if(layout.INTAKE, b"\n".join(map(msgspec.json.encode, received_now)) + b"\n", log.state)
            return replace(log, received=received_now), taken
    raise ConflictError(f"others were faster {TRIES} times, so nothing was taken in; try again")


def next_batch(storage: Storage, log: IntakeLog) -> int:
    """The number that the next batch gets."""
    return max(next_assembly(storage), max(log.batches, default=0) + 1)


def settle(storage: Storage, params: IntakeParams) -> list[Settled]:
    """Make of the log what the loop reads; returns the batches whose outcomes were written, or written anew.

    Of several at once, one may have read the log before the newest line: it does not write over what another made of
    more, and each looks again once it has written, until what it wrote is of the log that is there.
    """
    settled: dict[int, Settled] = {}
    log = read_intake(storage)
    while True:
        there = set(arrived(storage))
        for number, received in log.batches.items():
            if number not in there:
                _arrive(storage, number, received)
        changed = False
        try:
            for one in _mature(storage, log, params):
                corrected = settled[one.batch].corrected if one.batch in settled else 0
                settled[one.batch] = replace(one, corrected=one.corrected + corrected)
                changed = True
        except ConflictError:
            changed = True
        again = read_intake(storage)
        if again.state == log.state and not changed:
            return list(settled.values())
        log = again


def newest_statements(storage: Storage, log: IntakeLog) -> pl.DataFrame:
    """What is known of each encounter (STATEMENTS): the statement of the latest day, of these the one that came last.

    A statement without a day counts as older than those with one. Where any says what follow-up there was, with
    FOLLOW_UP: of that, too, the newest that says it.
    """
    tables = [kept_table(storage, one.table) for one in log.received if one.kind == "outcomes"]
    return _newest(tuple(pl.read_parquet(io.BytesIO(table)) for table in tables))


def _newest(statements: tuple[pl.DataFrame, ...]) -> pl.DataFrame:
    said = pl.concat([pl.DataFrame(schema=STATEMENTS), *statements], how="diagonal")
    in_order = said.sort("as_of", nulls_last=False, maintain_order=True)
    newest = in_order.unique("encounter_id", keep="last", maintain_order=True)
    return newest if FOLLOWED_UP not in said.columns else _with_follow_up(newest, in_order)


def _with_follow_up(newest: pl.DataFrame, in_order: pl.DataFrame) -> pl.DataFrame:
    told = in_order.drop_nulls(FOLLOWED_UP).unique("encounter_id", keep="last").select("encounter_id", *FOLLOW_UP)
    return newest.drop(*FOLLOW_UP).join(told, on="encounter_id", how="left", maintain_order="left")


def read_discharges(storage: Storage, log: IntakeLog) -> pl.DataFrame:
    """Days of discharge (DISCHARGES) of all encounters that came with one."""
    return discharges_of(storage, log.received)


def discharges_of(storage: Storage, received: Iterable[Received]) -> pl.DataFrame:
    """As `read_discharges`, of those that came with these lines."""
    tables = [kept_table(storage, one.discharges) for one in received if one.discharges]
    return pl.concat([pl.DataFrame(schema=DISCHARGES), *(pl.read_parquet(io.BytesIO(table)) for table in tables)])


def that_count(said: pl.DataFrame, discharges: pl.DataFrame, params: IntakeParams) -> pl.DataFrame:
    """Of the newest statements (STATEMENTS), those whose outcomes count by `data.maturity`, in their order.

    `discharges` (DISCHARGES) may lack encounters, and have others.
    """
    latest: date | None = said[AS_OF].max()  # type: ignore[assignment]
    dated = said.join(discharges, on="encounter_id", how="left", maintain_order="left")
    return said.filter(counts(dated, latest, params.reporting_lag))


def _arrive(storage: Storage, number: int, received: Received) -> None:
    arrival = Arrival(number, received.rows, None, received.left_out)
    files = {layout.arrival(number): kept_table(storage, received.table)}
    manifest = layout.manifest(layout.arrival(number))
    publish(storage, manifest, inputs={"intake": received.table}, files=files, result=asdict(arrival))


def _mature(storage: Storage, log: IntakeLog, params: IntakeParams) -> Iterator[Settled]:
    """Write the outcomes of every batch of which enough count, where they are not what they were.

    Raises ConflictError where the log has gone on, or another wrote the same outcomes, since they were read.
    """
    if not any(one.kind == "outcomes" for one in log.received):
        return
    newest = newest_statements(storage, log)
    said = _of_outcomes(that_count(newest, read_discharges(storage, log), params))
    for number in sorted(log.batches):
        if settled := _matured(storage, number, said, log, params):
            yield settled


def _of_outcomes(said: pl.DataFrame) -> pl.DataFrame:
    """What of statements stands in a batch's outcomes."""
    return said.select(*OUTCOMES).with_columns([followed_up(said)] if FOLLOWED_UP in said.columns else [])


def _matured(storage: Storage, number: int, said: pl.DataFrame, log: IntakeLog, params: IntakeParams) -> Settled | None:
    encounters = read_arrival(storage, number)
    known = _known(encounters, said)
    key = layout.outcomes(number)
    (before, state), manifest = _before(storage, key), layout.manifest(key)
    if before is None and known.height < params.min_known * encounters.height:
        return None
    if before is not None and before.equals(known) and unaltered(storage, manifest):
        return None
    content = outcome_bytes(known, key)
    unknown = encounters.height - known.height
    settled = Settled(number, known.height, unknown, _corrected(before, known), _followed_up(known))
    inputs = {"statements": sha256(content).hexdigest()}
    if read_intake(storage).state != log.state:  # what is there may have been made of more
        raise ConflictError("others took something in meanwhile")
    publish(storage, manifest, inputs=inputs, files={key: content}, result=asdict(settled), states={key: state})
    return settled


def _known(encounters: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    """What of the outcomes is about the encounters of a batch, in their order."""
    known = encounters.select("encounter_id").join(said, on="encounter_id", how="inner", maintain_order="left")
    if FOLLOWED_UP in known.columns and not known[FOLLOWED_UP].any():
        return known.drop(FOLLOWED_UP)  # of this batch nobody is said to have been followed up
    return known


def _before(storage: Storage, key: str) -> tuple[pl.DataFrame | None, State | None]:
    found = storage.read_with_state(key)
    return (pl.read_parquet(io.BytesIO(found[0])), found[1]) if found else (None, None)


def _followed_up(known: pl.DataFrame) -> int:
    return int(known[FOLLOWED_UP].sum()) if FOLLOWED_UP in known.columns else 0


def _corrected(before: pl.DataFrame | None, known: pl.DataFrame) -> int:
    """How many encounters have another outcome than before."""
    if before is None:
        return 0
    both = known.join(before, on="encounter_id", suffix="_before")
    return both.filter(pl.col(OUTCOME) != pl.col(f"{OUTCOME}_before")).height
