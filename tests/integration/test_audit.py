"""The audit log through several files: one chain, on the disk before an answer, readable by its user only."""

import asyncio
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from health_predict.errors import DataError, StorageError
from health_predict.serving.journal import audit
from health_predict.serving.journal.audit import START, AuditLine, AuditLog, verify

SMALL = 1_200  # bytes: four lines


def entry(number: int) -> AuditLine:
    return AuditLine("t", str(number), "-", "/predict", "1", "0" * 64, "0" * 64, [0.5])


def written(path: Path, lines: int, most_bytes: int = SMALL) -> list[Path]:
    """The files of a log with so many lines more, oldest first."""
    with closing(AuditLog(path, most_bytes)) as log:
        for number in range(lines):
            log.append(entry(number))
    return [*sorted(path.parent.glob(f"{path.name}.*")), path]


def test_full_files_get_numbers_and_the_chain_goes_through_them_and_through_restarts(tmp_path):
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        files = written(path, 7)
    assert [file.name for file in files[:2]] == ["audit.jsonl.000001", "audit.jsonl.000002"]
    assert all(file.stat().st_size <= SMALL for file in files)
    assert verify(path).lines == 21
    assert verify(path, verify(path).head).lines == 21
    assert f'"previous":"{START}"' not in files[1].read_text()
    assert len(path.read_bytes().splitlines()) < 7


def test_files_and_what_a_crash_left_are_readable_by_their_user_only(tmp_path):
    path = tmp_path / "audit.jsonl"
    before = os.umask(0)
    try:
        written(path, 9)
        with path.open("ab") as file:
            file.write(b"torn")
        files = [*written(path, 1), Path(f"{path}.torn")]
    finally:
        os.umask(before)
    assert len(files) >= 5
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}


def test_what_was_altered_or_taken_away_is_named_by_its_file(tmp_path):
    path = tmp_path / "audit.jsonl"
    first, second, *_ = written(path, 14)
    kept = second.read_bytes()
    second.write_bytes(kept.replace(b"0.5", b"0.1", 1))
    with pytest.raises(DataError, match=r"line 2 of the audit log .*audit\.jsonl\.000002"):
        verify(path)
    second.unlink()
    with pytest.raises(DataError, match=r"000002 is not there"):
        verify(path)
    second.write_bytes(kept)
    assert verify(path).lines == 14
    first.unlink()
    with pytest.raises(DataError, match=r"000001 is not there"):
        verify(path)


def test_a_log_that_was_replaced_as_a_whole_is_noticed_by_a_head_from_an_older_file(tmp_path):
    path = tmp_path / "audit.jsonl"
    written(path, 2)
    head = verify(path).head
    written(path, 9)
    assert verify(path, head).lines == 11
    for file in tmp_path.iterdir():
        file.unlink()
    written(path, 11)
    with pytest.raises(DataError, match="cut or replaced"):
        verify(path, "1" * 64)


def test_a_crash_before_the_next_file_begins_loses_nothing(tmp_path):
    path = tmp_path / "audit.jsonl"
    written(path, 3)
    path.rename(tmp_path / "audit.jsonl.000001")
    assert verify(path).lines == 3
    written(path, 2)
    assert verify(path).lines == 5


def test_a_log_that_is_not_there_cannot_be_verified(tmp_path):
    for path in (tmp_path / "none", tmp_path / "nowhere" / "none"):
        with pytest.raises(StorageError, match="cannot be read"):
            verify(path)


def test_a_next_file_that_cannot_be_made_is_tried_again_and_replaces_none(tmp_path):
    path = tmp_path / "audit.jsonl"
    with closing(AuditLog(path, SMALL)) as log:
        while not (tmp_path / "audit.jsonl.000001").exists():
            log.append(entry(0))
        blocked, first = False, (tmp_path / "audit.jsonl.000001").read_bytes()
        path.rename(tmp_path / "audit.jsonl.000002")
        path.mkdir()
        for number in range(8):
            try:
                log.append(entry(number))
            except StorageError:
                blocked = True
        assert blocked
        path.rmdir()
        log.append(entry(9))
    assert (tmp_path / "audit.jsonl.000001").read_bytes() == first
    assert verify(path).lines == first.count(b"\n") + (tmp_path / "audit.jsonl.000002").read_bytes().count(b"\n") + 1


def test_a_line_is_on_the_disk_before_it_is_answered_and_those_who_wait_share_a_flush(tmp_path, monkeypatch):
    begun, free, flushes = threading.Event(), threading.Event(), []

    def sync(file: int) -> None:
        flushes.append(os.fstat(file).st_size)
        begun.set()
        free.wait(10)

    monkeypatch.setattr(audit, "_sync", sync)

    async def run() -> list[bool]:
        log = AuditLog(tmp_path / "audit.jsonl", 2**20)
        with closing(log):
            log.append(entry(0))
            first = asyncio.create_task(log.flush())
            await asyncio.to_thread(begun.wait, 10)
            others = []
            for number in range(5):
                log.append(entry(number))
                others.append(asyncio.create_task(log.flush()))
            await asyncio.sleep(0)
            waited = [not one.done() for one in (first, *others)]
            free.set()
            await asyncio.gather(first, *others)
            return waited

    assert asyncio.run(run()) == [True] * 6
    assert len(flushes) == 2
    assert flushes[1] == (tmp_path / "audit.jsonl").stat().st_size > flushes[0]


def test_a_disk_that_fails_is_said_to_those_who_wait_and_asked_again(tmp_path, monkeypatch):
    answers = iter([OSError(5, "Input/output error"), None])

    def sync(_file: int) -> None:
        if error := next(answers):
            raise error

    monkeypatch.setattr(audit, "_sync", sync)

    async def run() -> None:
        with closing(AuditLog(tmp_path / "audit.jsonl", 2**20)) as log:
            log.append(entry(0))
            with pytest.raises(StorageError, match="Input/output error"):
                await log.flush()
            log.append(entry(1))
            await log.flush()

    asyncio.run(run())
