"""The promotion ledger: who decided what about which version, when and why. Append-only, one JSON object a line.

It is the authority on what is in production, for one registered model of one MLflow, which every line names.
Appending is a compare-and-swap on the whole file, so of two decisions made on the same state one is written and the
other is told.

    evaluated     a hold-out was asked about a model; nothing moves
    declined      the gate, or an earlier rollback, kept a model out; nothing moves
    promoted      a model came into production
    rolled_back   the version in production left it, and stays out until a person lifts that by name
    adopted       this ledger took over a registered model that had another ledger, or none
"""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from health_predict.errors import ConflictError, DataError
from health_predict.params import Target
from health_predict.store import layout
from health_predict.store.storage import State, Storage

Decision = Literal["evaluated", "declined", "promoted", "rolled_back", "adopted"]
MOVES = ("promoted", "rolled_back", "adopted")  # decisions that say what is in production


@dataclass(frozen=True)
class Version:
    """One version of the registered model. `sha256` is its bundle's; None where it was registered without."""

    name: str
    version: str
    run_id: str
    sha256: str | None = None


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model that a decision is about. `version` is None where it has not been registered.

    `content` is the same for models that score the same, whichever run they are from; `lineage` are the runs whose
    model this one is with another calibration, oldest first.
    """

    run_id: str
    target: Target
    bundle: str  # SHA-256 of its bundle.json
    content: str
    lineage: list[str]
    version: str | None = None


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A comparison on a hold-out: SHA-256 of its table, the version compared with, and the number of this look."""

    holdout: str  # SHA-256 of the table
    champion: str | None
    look: int  # from 1


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One decision. `production` and `previous` are the versions after it; None where there is none."""

    at: str  # UTC, ISO 8601
    who: str
    decision: Decision
    subject: Subject
    production: str | None
    previous: str | None
    reasons: list[str]
    numbers: dict[str, float]
    ledger: str  # id of this ledger
    registry: str  # where MLflow was, without credentials
    model: str  # registered model
    simulation: str | None  # name of the replay that the ledger belongs to; None: production itself
    question: Question | None = None
    allowed: str | None = None  # why a person let a version return that was rolled back
    kept_out: list["Entry"] = []  # of an adoption: rollbacks of the other ledger that hold on
    asked: list[Question] = []  # of an adoption: what hold-outs were asked there


class Ledger(msgspec.Struct, frozen=True):
    """The entries of the ledger, and the state of the file that they were read from.

    `lines` are the entries as they stand in the file: an earlier or later version may write the same entry otherwise.
    """

    entries: list[Entry]
    state: State | None
    lines: list[bytes] = []  # of the file, as they are: what was written is never written anew

    @property
    def id(self) -> str | None:
        """None before the first decision."""
        return self.entries[0].ledger if self.entries else None

    @property
    def model(self) -> str | None:
        """The registered model that the ledger speaks for; None before it said what is in production."""
        return next((entry.model for entry in self.entries if entry.decision in MOVES), None)

    @property
    def production(self) -> str | None:
        return self.entries[-1].production if self.entries else None

    @property
    def previous(self) -> str | None:
        """The version that a rollback returns to; None where there is none."""
        return self.entries[-1].previous if self.entries else None

    @property
    def moved(self) -> bool:
        """Whether any decision ever put a version into production."""
        return any(entry.decision in MOVES for entry in self.entries)

    @property
    def newest_move(self) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.decision in MOVES), None)

    @property
    def first(self) -> Entry | None:
        """The first version in production ever: the fixed point that small losses are measured against."""
        return next(self._arrivals(), None)

    @property
    def numbers(self) -> list[str]:
        """Numbers of all versions that were ever in production, by first promotion."""
        return [str(entry.subject.version) for entry in self._arrivals()]

    def version(self, number: str) -> Version:
        """A version that was in production at some time. ConflictError for any other, naming those that were."""
        subject = self.subject(number)
        return Version(str(self.model), number, subject.run_id, subject.bundle)

    def subject(self, number: str) -> Subject:
        """The model of a version. Raises what `version` raises."""
        for entry in self._arrivals():
            if entry.subject.version == number:
                return entry.subject
        those = ", ".join(self.numbers) or "none"
        raise ConflictError(f"version {number} was never in production, says the ledger; these were: {those}")

    def before(self, number: str) -> str | None:
        """The newest version promoted before this one that scores differently and is not barred; or None."""
        content = self.subject(number).content
        earlier = [(one, self.subject(one)) for one in reversed(self.numbers[: self.numbers.index(number)])]
        fits = (one for one, found in earlier if found.content != content and self.barred(found) is None)
        return next(fits, None)

    def barred(self, subject: Subject) -> Entry | None:
        """The rollback that keeps a model out: its own, that of a run it was calibrated from, or of an equal model."""
        runs, out = {subject.run_id, *subject.lineage}, None
        for entry in self.entries:
            for one in [*entry.kept_out, *([entry] if entry.decision == "rolled_back" else [])]:
                if one.subject.run_id in runs or one.subject.content == subject.content:
                    out = one
            if entry.allowed and entry.production and self.subject(entry.production).content == subject.content:
                out = None
        return out

    def asked(self, subject: Subject, holdout: str, champion: str | None) -> Question | None:
        """An earlier question to the hold-out about an equal model against the same version; or None."""
        for entry in self.entries:
            question = entry.question
            if (
                entry.decision == "evaluated"
                and question is not None
                and (question.holdout, question.champion) == (holdout, champion)
                and entry.subject.content == subject.content
            ):
                return question
        return None

    def questions(self) -> list[Question]:
        """All questions to hold-outs, oldest first."""
        found = []
        for entry in self.entries:
            found += entry.asked
            if entry.decision == "evaluated" and entry.question:
                found.append(entry.question)
        return found

    @property
    def kept_out(self) -> list[Entry]:
        """The rollbacks that still bar a model."""
        rollbacks = [one for entry in self.entries for one in (*entry.kept_out, entry) if one.decision == "rolled_back"]
        return [one for one in rollbacks if self.barred(one.subject) == one]

    def digest(self, entries: int) -> str:
        """SHA-256 of the first `entries` decisions."""
        return hashlib.sha256(_content(self.lines[:entries])).hexdigest()

    def _arrivals(self) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.decision in ("promoted", "adopted") and entry.production)


def read_ledger(storage: Storage) -> Ledger:
    """The ledger; empty when nothing was ever decided. DataError names a line that is not an entry."""
    found = storage.read_with_state(layout.LEDGER)
    if found is None:
        return Ledger([], None)
    content, state = found
    entries, lines = [], content.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(msgspec.json.decode(line, type=Entry))
        except msgspec.MsgspecError as error:
            raise DataError(
                f"line {number} of {storage.path(layout.LEDGER)} is not an entry that this version reads: {error}"
            ) from error
    return Ledger(entries, state, lines)


def append(storage: Storage, ledger: Ledger, entry: Entry) -> Ledger:
    """Append to the ledger as it was read; ConflictError when somebody appended meanwhile."""
    lines = [*ledger.lines, msgspec.json.encode(entry)]
    storage.write_if(layout.LEDGER, _content(lines), ledger.state)
    return read_ledger(storage)


def entry(
    ledger: Ledger,
    decision: Decision,
    subject: Subject,
    *,
    who: str,
    registry: str,
    model: str,
    simulation: str | None,
    reasons: Sequence[str] = (),
    numbers: dict[str, float] | None = None,
    question: Question | None = None,
    allowed: str | None = None,
    kept_out: Sequence[Entry] = (),
    asked: Sequence[Question] = (),
    moves: tuple[str | None, str | None] | None = None,
) -> Entry:
    """A new entry, dated now. `moves`: the versions in production and previous after it; None leaves both."""
    production, previous = moves or (ledger.production, ledger.previous)
    return Entry(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        who=who,
        decision=decision,
        subject=subject,
        production=production,
        previous=previous,
        reasons=list(reasons),
        numbers=numbers or {},
        ledger=ledger.id or secrets.token_hex(8),
        registry=registry,
        model=model,
        simulation=simulation,
        question=question,
        allowed=allowed,
        kept_out=list(kept_out),
        asked=list(asked),
    )


def _content(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
