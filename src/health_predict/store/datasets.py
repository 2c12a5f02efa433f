"""Data sets of a training: a table to fit on, one to tune and calibrate on, and one to compare models on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from health_predict.bundle.model import TableDigest
from health_predict.data.cohort import LabelledEncounters, label
from health_predict.errors import DataError
from health_predict.params import Target
from health_predict.store import layout
from health_predict.store.manifests import completed
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json, read_table


@dataclass(frozen=True)
class Dataset:
    """Storage keys of the three tables and of their manifest. `command` is the command that makes them.

    `train` and `validation` are the same table where a model is only calibrated on it.
    """

    name: str
    train: str
    validation: str
    test: str
    manifest: str
    command: str


@dataclass(frozen=True)
class Vouched:
    """A data set whose files match the digests in its manifest."""

    dataset: Dataset
    files: Mapping[str, str]  # key -> SHA-256
    synthetic: bool


INITIAL = Dataset(
    "initial",
    layout.INITIAL_TRAIN,
    layout.INITIAL_VALIDATION,
    layout.INITIAL_TEST,
    layout.SPLIT_MANIFEST,
    "data split",
)


def retraining(number: int) -> Dataset:
    """The data set of the retraining that was decided when batch `number` had arrived."""
    train, validation, test = (layout.retraining_data(number, part) for part in ("train", "validation", "test"))
    manifest = layout.retraining_manifest(number)
    return Dataset(f"retraining_{number:02d}", train, validation, test, manifest, "loop assemble")


def recalibration(number: int) -> Dataset:
    """The data set of the newest batch that was matured when a batch had arrived."""
    validation, test = (layout.recalibration_data(number, part) for part in ("validation", "test"))
    manifest = layout.recalibration_manifest(number)
    return Dataset(f"recalibration_{number:02d}", validation, validation, test, manifest, "loop recalibrate")


def named(name: str) -> Dataset:
    """The data set of this name; DataError for a name that no data set has."""
    if name == INITIAL.name:
        return INITIAL
    kind, _, number = name.partition("_")
    made = {"retraining": retraining, "recalibration": recalibration}.get(kind)
    if made is None or not (number.isascii() and number.isdigit()):
        raise DataError(f"{name!r} names no data set: they are `initial`, `retraining_NN` and `recalibration_NN`")
    return made(int(number))


def vouch(storage: Storage, dataset: Dataset) -> Vouched:
    """Check a data set. StorageError, naming the command that makes it, when it is missing or altered."""
    keys = (dataset.train, dataset.validation, dataset.test)
    manifest = completed(storage, dataset.manifest, dataset.command, keys)
    return Vouched(dataset, {key: manifest["files"][key] for key in keys}, manifest["result"]["synthetic"])


def batches_in(storage: Storage, table: TableDigest) -> tuple[int, ...]:
    """Numbers of the batches that had matured when a table that a model was fitted on was put together.

    None where it was not assembled in this store: from initial data, or in the store that a model was adopted from.
    """
    number = re.fullmatch(r".*/retraining_(\d+)/train\.parquet", table.key)
    key = layout.retraining_manifest(int(number[1])) if number else ""
    if not number or not storage.exists(key):
        return ()
    manifest = read_json(storage, key)
    return tuple(manifest["result"]["matured"]) if manifest["files"].get(table.key) == table.sha256 else ()


def read_part(storage: Storage, vouched: Vouched, key: str, target: Target) -> tuple[LabelledEncounters, TableDigest]:
    """One table of a data set with its outcomes, and the digest that a bundle keeps of it."""
    part = label(read_table(storage, key), target)
    return part, TableDigest(key, len(part.encounters), int(part.outcomes.sum()), vouched.files[key])
