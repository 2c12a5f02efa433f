"""One at a time: which process works on the loop of a store.

`loop/turn.json` names it; `null`: nobody does. It is taken and given back by compare-and-swap. A process that is gone
holds nobody up, where that can be known: on the same machine, in the same container. One of elsewhere that has given no
sign of life for `PATIENCE` is taken to be gone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from health_predict.adapters.processes import Process, is_gone, this_process
from health_predict.errors import ConflictError, DataError, Declined
from health_predict.store import layout
from health_predict.store.storage import Storage

PATIENCE = timedelta(hours=6)  # between two signs of life lies one action, of which a training may take long


class Turn(msgspec.Struct, frozen=True):
    """Who works on the loop, and when there was a sign of life from it (UTC)."""

    who: str
    process: Process
    at: Annotated[datetime, msgspec.Meta(tz=True)]


@contextmanager
def turn(storage: Storage, who: str) -> Iterator[Callable[[], None]]:
    """The loop of a store is this process's for the block; what is yielded gives a sign of life.

    Raises Declined where another process works on it, ConflictError where it was given to another meanwhile.
    """
    process = this_process()
    _take(storage, Turn(who, process, datetime.now(UTC)))
    try:
        yield lambda: _take(storage, Turn(who, process, datetime.now(UTC)))
    finally:
        with suppress(ConflictError):
            found, state = _read(storage)
            if found is not None and found.process == process:
                storage.write_if(layout.LOOP_TURN, b"null\n", state)


def _take(storage: Storage, mine: Turn) -> None:
    found, state = _read(storage)
    if found is not None and found.process != mine.process and not _is_gone(found, mine.at):
        raise Declined(
            "another process works on the loop, and one at a time does:",
            [
                f"{found.who} does, with a sign of life at {found.at:%Y-%m-%d %H:%M} UTC. Run the command again when "
                f"that has ended. If it is gone, {storage.path(layout.LOOP_TURN)} may be deleted."
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
