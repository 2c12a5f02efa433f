"""The audit log: who asked for a prediction, when, by which version, with what result. Append-only, hash-chained.

One line is one answered prediction, batch or explanation, as JSON. Its `previous` is the SHA-256 of the line before
(zeros in the first), so a changed, removed or inserted line breaks the chain. A log that was cut at its end, or
rewritten as a whole, still verifies: keep the head that `verify` returns elsewhere and pass it the next time.

A full file gets a number behind its name (`audit.jsonl.000001` is the oldest), and the next file continues the chain:
the files are one log.
"""

import asyncio
import errno
import fcntl
import hashlib
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from health_predict.errors import DataError, StorageError

START = "0" * 64


class AuditLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the audit log."""

    time: str  # UTC, ISO 8601
    request_id: str
    caller: str
    route: str
    model_version: str
    bundle_sha256: str
    input_sha256: str  # SHA-256 of the request's body
    scores: list[float | None]  # probabilities in the order of the request; None for a refused encounter
    previous: str = START


@dataclass(frozen=True)
class Verified:
    """An unbroken log: its number of lines, and the SHA-256 of the last."""

    lines: int
    head: str


class AuditLog:
    """Appends entries to a file; locked, so that only one process writes it."""

    def __init__(self, path: Path, most_bytes: int):
        """Open the log and check its last line; `verify` checks the others. A file is full at `most_bytes`.

        A last line that a crash cut short was never answered: it is moved to `<name>.torn`, and `torn` is its number of
        bytes. Raises DataError when the last line is no valid entry, StorageError when the file cannot be written.
        """
        self._path, self._most_bytes = path, most_bytes
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_alone(path)
            self._last_number, before = _newest_full(path)
            last, torn = _last_lines(self._file)
            self.torn = self._move(torn)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        last = last or before
        if last and _previous(msgspec.json.Decoder(AuditLine), last) is None:
            raise DataError(f"the last line of the audit log {path} is no entry")
        self._head = _sha256(last) if last else START
        self._size = os.fstat(self._file).st_size
        self._flushing: asyncio.Future[None] | None = None
        self._next_flush: asyncio.Future[None] | None = None

    def append(self, entry: AuditLine) -> None:
        """Write one line to the file; `flush` puts it on the disk. Raises StorageError when the line is not written
        as a whole."""
        line = msgspec.json.encode(msgspec.structs.replace(entry, previous=self._head)) + b"\n"
        try:
            if self._size and self._size + len(line) > self._most_bytes:
                self._begin_file()
            if os.write(self._file, line) != len(line):
                os.ftruncate(self._file, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._cannot_be_written(error) from error
        self._size += len(line)
        self._head = _sha256(line)

    async def flush(self) -> None:
        """Return when all appended lines are on the disk. Waiting callers share the next flush, as one takes
        milliseconds, however many lines it has. Raises StorageError when the disk fails."""
        if self._next_flush is None:
            self._next_flush = asyncio.ensure_future(self._flush_after(self._flushing))
        await asyncio.shield(self._next_flush)

    def close(self) -> None:
        os.close(self._file)

    async def _flush_after(self, running: "asyncio.Future[None] | None") -> None:
        if running is not None:
            await asyncio.wait([running])
        self._flushing, self._next_flush = self._next_flush, None  # later callers get the next flush
        try:
            await asyncio.to_thread(_sync, self._file)
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def _begin_file(self) -> None:
        """Give the full file its number and continue in a new one.

        The file descriptor keeps its number, for a flush in another thread. In between there is no file under the name;
        a process that starts then continues the chain itself, and this one can no longer write.
        """
        if self._path.exists() and os.path.samestat(os.fstat(self._file), self._path.stat()):  # false in a retry
            os.fsync(self._file)
            self._path.rename(_numbered(self._path, self._last_number + 1))
            self._last_number += 1
        fresh = _open_alone(self._path, os.O_EXCL)
        os.dup2(fresh, self._file, inheritable=False)
        os.close(fresh)
        self._size = 0
        _sync_folder(self._path.parent)

    def _move(self, torn: bytes) -> int:
        if torn:
            aside = os.open(f"{self._path}.torn", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(aside, torn + b"\n")
            finally:
                os.close(aside)
            os.ftruncate(self._file, os.fstat(self._file).st_size - len(torn))
        return len(torn)

    def _cannot_be_written(self, error: OSError) -> StorageError:
        reason = "another process writes it" if isinstance(error, BlockingIOError) else error.strerror
        return StorageError(f"the audit log {self._path} cannot be written: {reason}")


def verify(path: Path, head: str | None = None) -> Verified:
    """Check every line against the one before, in all files of the log, and that an earlier `head` is the SHA-256 of a
    line.

    Raises DataError naming the first line that breaks the chain, or a missing file; StorageError when a file cannot be
    read.
    """
    expected, count, seen = START, 0, head in (None, START)
    decoder = msgspec.json.Decoder(AuditLine)
    try:
        files = _files(path)
    except OSError as error:
        raise StorageError(f"the audit log {path} cannot be read: {error.strerror}") from error
    for file in files:
        for number, line in _lines(file):
            if not line.endswith(b"\n") or _previous(decoder, line) != expected:
                raise DataError(f"line {number} of the audit log {file} was altered, or the line before it was")
            expected = _sha256(line)
            seen = seen or expected == head
            count += 1
    if not seen:
        raise DataError(f"the audit log {path} was cut or replaced: no line of it has the expected SHA-256")
    return Verified(count, expected)


def _files(path: Path) -> list[Path]:
    """Files of the log, oldest first. Raises DataError when a full file is missing."""
    numbers = _numbers(path)
    absent = next((number for number, found in enumerate(numbers, start=1) if number != found), None)
    if absent is not None:
        raise DataError(f"{_numbered(path, absent)} is not there: put all files of the audit log beside each other")
    full = [_numbered(path, number) for number in numbers]
    return [*full, path] if path.exists() or not full else full  # after a crash the new file may not exist yet


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with file.open("rb") as opened:
            yield from enumerate(opened, start=1)
    except OSError as error:
        raise StorageError(f"the audit log {file} cannot be read: {error.strerror}") from error


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number:06d}")


def _numbers(path: Path) -> list[int]:
    pattern = re.compile(re.escape(path.name) + r"\.(\d{6,})")
    found = (pattern.fullmatch(file.name) for file in path.parent.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _newest_full(path: Path) -> tuple[int, bytes]:
    """Number and last line of the newest full file; 0 and b"" where there is none."""
    numbers = _numbers(path)
    if not numbers:
        return 0, b""
    file = os.open(_numbered(path, numbers[-1]), os.O_RDONLY)
    try:
        return numbers[-1], _last_lines(file)[0]
    finally:
        os.close(file)


def _open_alone(path: Path, more: int = 0) -> int:
    """Descriptor of the file, locked by this process, readable by its user only. Raises BlockingIOError when another
    process holds the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | more, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file), path.stat()):  # the file was given its number meanwhile
            raise BlockingIOError
    except OSError:
        os.close(file)
        raise
    return file


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a pipe or a device has no disk to wait for
            raise


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _last_lines(file: int) -> tuple[bytes, bytes]:
    """The last complete line, and the bytes after it."""
    if not os.fstat(file).st_size:
        return b"", b""
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as data:
        end = data.rfind(b"\n") + 1
        start = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
        return data[start:end], data[end:]


def _previous(decoder: "msgspec.json.Decoder[AuditLine]", line: bytes) -> str | None:
    try:
        return decoder.decode(line).previous
    except msgspec.MsgspecError:
        return None


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
