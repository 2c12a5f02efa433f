"""The audit log: who asked for a prediction, when, by which version, with what result. Append-only, hash-chained.

One line is one answered prediction, batch or explanation, as JSON. Its `previous` is the SHA-256 of the line before
(zeros in the first), so a line that was changed, removed or put in does not fit its neighbours. A log that was cut at
its end, or written anew as a whole, still fits: keep the head that `verify` returns elsewhere and hand it in the next
time.
"""

import fcntl
import hashlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from health_predict.errors import DataError, StorageError

START = "0" * 64


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line."""

    time: str  # UTC, ISO 8601
    request_id: str
    caller: str
    route: str
    model_version: str
    bundle_sha256: str
    input_sha256: str  # of the request's body
    scores: list[float | None]  # in the order of the request; None for an encounter that was refused
    previous: str = START


@dataclass(frozen=True)
class Verified:
    """An unbroken log: how many lines, and the SHA-256 of the last."""

    lines: int
    head: str


class AuditLog:
    """Appends entries to one file; only one process may at a time."""

    def __init__(self, path: Path):
        """Open, and read the last line; `verify` checks the others.

        A last line that a crash cut short was never answered: it is moved to `<name>.torn`, and `torn` says how many
        bytes it had. Raises DataError when the last line is no entry, StorageError when the file cannot be written.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last, torn = _last_lines(self._file)
            self.torn = self._move(torn)
        except BlockingIOError as error:
            raise StorageError(f"the audit log {path} is being written by another process") from error
        except OSError as error:
            raise StorageError(f"the audit log {path} cannot be written: {error.strerror}") from error
        if last and _previous(msgspec.json.Decoder(Entry), last) is None:
            raise DataError(f"the last line of the audit log {path} is no entry")
        self._head = _sha256(last) if last else START

    def append(self, entry: Entry) -> None:
        """Write one line before returning. Raises StorageError when it is not written as a whole."""
        line = msgspec.json.encode(msgspec.structs.replace(entry, previous=self._head)) + b"\n"
        try:
            size = os.fstat(self._file).st_size
            if os.write(self._file, line) != len(line):
                os.ftruncate(self._file, size)
                raise StorageError(f"the audit log {self._path} cannot be written: the disk is full")
        except OSError as error:
            raise StorageError(f"the audit log {self._path} cannot be written: {error.strerror}") from error
        self._head = _sha256(line)

    def close(self) -> None:
        os.close(self._file)

    def _move(self, torn: bytes) -> int:
        if torn:
            with self._path.with_name(f"{self._path.name}.torn").open("ab") as aside:
                aside.write(torn + b"\n")
            os.ftruncate(self._file, os.fstat(self._file).st_size - len(torn))
        return len(torn)


def verify(path: Path, head: str | None = None) -> Verified:
    """Check every line against the one before, and that `head`, kept from earlier, is the SHA-256 of a line.

    Raises DataError that names the first line that does not fit, StorageError when the file cannot be read.
    """
    expected, count, seen = START, 0, head in (None, START)
    decoder = msgspec.json.Decoder(Entry)
    try:
        with path.open("rb") as file:
            for count, line in enumerate(file, start=1):
                if not line.endswith(b"\n") or _previous(decoder, line) != expected:
                    raise DataError(f"line {count} of the audit log {path} was altered, or the line before it was")
                expected = _sha256(line)
                seen = seen or expected == head
    except OSError as error:
        raise StorageError(f"the audit log {path} cannot be read: {error.strerror}") from error
    if not seen:
        raise DataError(f"the audit log {path} was cut or replaced: no line of it has the expected SHA-256")
    return Verified(count, expected)


def _last_lines(file: int) -> tuple[bytes, bytes]:
    """The last whole line, and what follows it."""
    if not os.fstat(file).st_size:
        return b"", b""
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as data:
        end = data.rfind(b"\n") + 1
        start = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
        return data[start:end], data[end:]


def _previous(decoder: "msgspec.json.Decoder[Entry]", line: bytes) -> str | None:
    try:
        return decoder.decode(line).previous
    except msgspec.MsgspecError:
        return None


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
