"""Files of scores, written as the scores come: for their owner alone, and as a whole or not at all.

What is not finished is in a folder that only its owner can look into. It is gone when the writing ends, however it
ends; what a killed process left there is removed by the next that writes to the same place.
"""

import fcntl
import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from health_predict.errors import StorageError
from health_predict.store.places import Form, form_of, is_remote, shown
from health_predict.store.s3_objects import Objects

_PRIVATE_FOLDER = ".health-predict-"


@contextmanager
def score_writer(target: str, endpoint: str | None = None) -> Iterator["ScoreWriter"]:
    """Write scores to a new file that appears, or replaces an old one, when the block ends without an error.

    Raises StorageError when it cannot be written, DataError when its name is of no kind that is written.
    """
    form, remote = form_of(target), is_remote(target)
    path = Path(target).expanduser()
    if not remote and path.is_dir():
        raise StorageError(f"{shown(target)} cannot be written: it is a folder")
    try:
        with private_folder(Path(tempfile.gettempdir()) if remote else path.parent) as folder:
            file = folder / "scores"
            with _only_mine(file) as stream:
                writer = ScoreWriter(stream, form)
                try:
                    yield writer
                finally:
                    writer.close()
            if remote:
                Objects(endpoint).upload(file, target)
            else:
                file.replace(path)
    except OSError as error:
        said = f"{shown(target)} cannot be written: {error.strerror or type(error).__name__}"
        raise StorageError(said) from error


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A new folder below the parent for its owner alone, gone when the block ends.

    Those that killed processes of the same owner left there are removed: a living process holds the lock of its own.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if left.name.startswith(_PRIVATE_FOLDER) and left.is_dir() and left.stat().st_uid == os.geteuid():
            _remove_if_left(left)
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PRIVATE_FOLDER, dir=parent))  # 0700
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # else it was removed before it was locked
            return folder, lock
        os.close(lock)


def _remove_if_left(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # its writer, or another process, was faster
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return  # a living process writes there
    finally:
        os.close(lock)


def _only_mine(file: Path) -> Any:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


class ScoreWriter:
    """Appends tables of the same columns to a file of one form."""

    def __init__(self, stream: Any, form: Form):
        self._form = form
        self._stream = gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0) if form.compressed else stream
        self._parquet: Any = None
        self._started = False

    def write(self, scores: pl.DataFrame) -> None:
        if self._form.kind == "csv":
            text = scores.write_csv(include_header=not self._started, separator=self._form.separator.decode())
            self._stream.write(text.encode())
        else:
            self._append(scores)
        self._started = True

    def close(self) -> None:
        if self._parquet:
            self._parquet.close()
        if self._form.compressed:
            self._stream.close()

    def _append(self, scores: pl.DataFrame) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415  # .2 s that no other command needs

        table = scores.to_arrow()
        if self._parquet is None:
            # Without `store_schema` a reader gets enumerations as texts; other columns hold hardly a value twice.
            repeated = [name for name, dtype in scores.schema.items() if dtype == pl.Enum]
            self._parquet = pq.ParquetWriter(
                self._stream, table.schema, compression="zstd", use_dictionary=repeated, store_schema=False
            )
        self._parquet.write_table(table)
