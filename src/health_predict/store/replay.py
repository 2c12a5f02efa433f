"""The plan of a replay, and the batches that `data split` set aside for it."""

from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TypeVar

import msgspec
import polars as pl

from health_predict.errors import DataError, StorageError
from health_predict.params import Family
from health_predict.store import layout
from health_predict.store.storage import Storage
from health_predict.store.tables import parse_table, read_json, write_json

Document = TypeVar("Document")


@dataclass(frozen=True)
class ReplayPlan:
    """The scenario of a replay, and how models are retrained in it."""

    scenario: str
    from_batch: int
    families: tuple[Family, ...]
    trials: int
    seed: int


def read_plan(storage: Storage) -> ReplayPlan | None:
    """The replay that was begun; None where none was."""
    return _document(storage, layout.REPLAY, ReplayPlan) if storage.exists(layout.REPLAY) else None


def write_plan(storage: Storage, plan: ReplayPlan) -> None:
    write_json(storage, layout.REPLAY, asdict(plan))


def future_batches(storage: Storage) -> dict[int, str]:
    """Digest of every batch that `data split` set aside, by number. StorageError before `data split`.

    The batches themselves are not looked at: `read_future` does, for the one that it reads.
    """
    if not storage.exists(layout.SPLIT_MANIFEST):
        raise StorageError(f"{layout.SPLIT_MANIFEST} is not in {storage.root}; run `health-predict data split` first")
    files: dict[str, str] = read_json(storage, layout.SPLIT_MANIFEST)["files"]
    found = [key for key in files if key.startswith(layout.FUTURE)]
    return {number: files[layout.future_batch(number)] for number in range(1, len(found) + 1)}


def read_future(storage: Storage, number: int) -> pl.DataFrame:
    """Typed encounters of a batch that `data split` set aside, with their outcomes.

    Raises DataError for a batch that there is not, StorageError for one that is missing or not as it was written.
    """
    digests, key = future_batches(storage), layout.future_batch(number)
    if number not in digests:
        raise DataError(f"there is no batch {number}; `data split` made {len(digests)}")
    content = storage.read(key) if storage.exists(key) else b""
    if sha256(content).hexdigest() != digests[number]:
        raise StorageError(
            f"{key} in {storage.root} is missing or not what {layout.SPLIT_MANIFEST} records; "
            "run `health-predict data split` again"
        )
    return parse_table(content, storage.path(key))


def _document(storage: Storage, key: str, kind: type[Document]) -> Document:
    try:
        return msgspec.convert(read_json(storage, key), kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{storage.path(key)} is not what this version writes: {error}") from error
