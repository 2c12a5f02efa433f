"""The promotion ledger: who decided what about which version, when and why. Append-only, one JSON object a line.

It is the authority on what is in production. Appending is a compare-and-swap on the whole file, so of two decisions
made on the same state one is written and the other is told.
"""

import getpass
import socket
from datetime import UTC, datetime
from typing import Literal

import msgspec

from health_predict.errors import DataError
from health_predict.io import layout
from health_predict.io.storage import Storage, Version

Decision = Literal["promoted", "declined", "rolled_back"]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One decision. `production` and `previous` are the versions after it; None where there is none."""

    at: str  # UTC, ISO 8601
    who: str
    decision: Decision
    run_id: str  # that the decision is about
    production: str | None
    previous: str | None
    reasons: list[str]
    numbers: dict[str, float]


class Ledger(msgspec.Struct, frozen=True):
    """What was read, and the state of the file it was read from."""

    entries: list[Entry]
    state: Version | None

    @property
    def production(self) -> str | None:
        return self.entries[-1].production if self.entries else None

    @property
    def previous(self) -> str | None:
        return self.entries[-1].previous if self.entries else None

    @property
    def first(self) -> Entry | None:
        """The first promotion ever: the fixed point that small losses are measured against."""
        return next((entry for entry in self.entries if entry.decision == "promoted"), None)


def read_ledger(storage: Storage) -> Ledger:
    """The ledger; empty when nothing was ever decided. DataError names a line that is not an entry."""
    found = storage.read_with_version(layout.LEDGER)
    if found is None:
        return Ledger([], None)
    content, state = found
    entries = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            entries.append(msgspec.json.decode(line, type=Entry))
        except msgspec.MsgspecError as error:
            raise DataError(f"line {number} of {storage.path(layout.LEDGER)} is not an entry: {error}") from error
    return Ledger(entries, state)


def append(storage: Storage, ledger: Ledger, entry: Entry) -> Ledger:
    """Append to the ledger as it was read; ConflictError when somebody appended meanwhile."""
    entries = [*ledger.entries, entry]
    content = b"".join(msgspec.json.encode(line) + b"\n" for line in entries)
    storage.write_if(layout.LEDGER, content, ledger.state)
    return read_ledger(storage)


def entry(  # the state after a decision that moves nothing is the state before it
    ledger: Ledger,
    decision: Decision,
    run_id: str,
    reasons: list[str],
    numbers: dict[str, float],
    production: str | None = None,
    previous: str | None = None,
) -> Entry:
    """An entry by the current user, now. A decline keeps the versions as they are."""
    if decision == "declined":
        production, previous = ledger.production, ledger.previous
    return Entry(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        who=f"{getpass.getuser()}@{socket.gethostname()}",
        decision=decision,
        run_id=run_id,
        production=production,
        previous=previous,
        reasons=reasons,
        numbers=numbers,
    )
