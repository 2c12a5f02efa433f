"""The turn: which process works on the loop of a store, one at a time.

`loop/turn.json` names the process, or holds `null`. It is taken and given back by compare-and-swap, and renewed every
`BEAT` while its process lives. A process of the same machine and container that has ended holds nobody up; a process
elsewhere counts as ended once it has not renewed the turn for `PATIENCE`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from health_predict.adapters.processes import Process, is_gone, this_process
from health_predict.errors import ConflictError, DataError, Declined, HealthPredictError
from health_predict.store import layout
from health_predict.store.storage import Storage

BEAT = timedelta(minutes=1)
PATIENCE = timedelta(minutes=10)  # a store may fail for some minutes, and clocks differ by less


class Turn(msgspec.Struct, frozen=True):
    """Who works on the loop, in which process, and when the process last renewed its turn (UTC)."""

    who: str
    process: Process
    at: Annotated[datetime, msgspec.Meta(tz=True)]


@contextmanager
def turn(storage: Storage, who: str) -> Iterator[Callable[[], None]]:
    """Holds the turn at a store's loop for the block, and yields what renews it where it was not within the last BEAT.

    Raises Declined where another process has the turn, also when it is renewed after it was lost; ConflictError where
    another process took the turn at the same moment.
    """
    process, alone, ended = this_process(), threading.Lock(), threading.Event()
    mine = Turn(who, process, datetime.now(UTC))
    _take(storage, mine)

    def renew() -> None:
        nonlocal mine
        with alone:
            if (now := datetime.now(UTC)) - mine.at >= BEAT:
                _take(storage, renewed := Turn(who, process, now))
                mine = renewed

    beats = threading.Thread(target=_beat, args=(renew, ended), name="turn", daemon=True)
    beats.start()
    try:
        yield renew
    finally:
        ended.set()
        beats.join()
        with suppress(ConflictError):
            found, state = _read(storage)
            if found is not None and found.process == process:
                storage.write_if(layout.LOOP_TURN, b"null\n", state)


def _beat(renew: Callable[[], None], ended: threading.Event) -> None:
    while not ended.wait(BEAT.total_seconds()):
        with suppress(HealthPredictError):  # a lost turn is told where it is renewed next; a failed store may recover
            renew()


def _take(storage: Storage, mine: Turn) -> None:
    found, state = _read(storage)
    if found is not None and found.process != mine.process and not _is_gone(found, mine.at):
        raise Declined(
            "another process works on the loop, and one at a time does:",
            [
                f"{found.who} does, and renewed its turn at {found.at:%Y-%m-%d %H:%M} UTC. Run the command again when "
                "it has ended; a process that was killed elsewhere counts as ended after "
                f"{PATIENCE.total_seconds() / 60:.0f} minutes."
            ],
        )
    storage.write_if(layout.LOOP_TURN, msgspec.json.encode(mine), state)


def _is_gone(found: Turn, now: datetime) -> bool:
    return is_gone(found.process) or now - found.at > PATIENCE


def _read(storage: Storage) -> tuple[Turn | None, str | None]:
    found = storage.read_with_state(layout.LOOP_TURN)
    if found is None:
        return None, None
    try:
        return msgspec.json.decode(found[0], type=Turn | None), found[1]
    except msgspec.MsgspecError as error:
        raise DataError(f"{storage.path(layout.LOOP_TURN)} is not what this version writes: {error}") from error
