"""Manifests: what a step wrote and from which inputs, so that a rerun is skipped and no reader sees half of a step.

A manifest names the inputs, the result, and every file with its SHA-256. It is removed before the first file of a
set is written and comes back after the last: files without their manifest are not finished.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from health_predict.errors import StorageError
from health_predict.store import layout
from health_predict.store.storage import State, Storage
from health_predict.store.tables import json_bytes, read_json, write_json

Result = TypeVar("Result")


def publish(
    storage: Storage,
    manifest: str,
    *,
    inputs: Any,
    files: Mapping[str, bytes],
    result: Any,
    replaces: str | None = None,
    states: Mapping[str, State | None] | None = None,
) -> None:
    """Write the files, then the manifest. Other keys that begin with `replaces` are removed.

    Raises ConflictError where a file is no longer in the state that `states` has of it; then there is no manifest.
    """
    if storage.exists(manifest):
        storage.delete(manifest)
    for key in storage.list(replaces) if replaces else ():
        if key not in files:
            storage.delete(key)
    for key, data in files.items():
        if states and key in states:
            storage.write_if(key, data, states[key])
        else:
            storage.write(key, data)
    digests = {key: _sha256(data) for key, data in files.items()}
    write_json(storage, manifest, {"inputs": inputs, "files": digests, "result": result})


@dataclass(frozen=True)
class Made(Generic[Result]):
    """What a step made: its result, and its files by key. Other keys that begin with `replaces` are removed."""

    result: Result
    files: Mapping[str, bytes]
    replaces: str | None = None


def rerunnable(
    storage: Storage, manifest: str, inputs: Any, kind: type[Result], make: Callable[[], Made[Result]]
) -> Result:
    """What a step gives: the result of an earlier run from the same inputs, whose files are all as they were written,
    with `skipped` set; else what `make` makes now, published under the manifest. A result that another version of the
    product recorded, and this one cannot read, counts as none."""
    done = finished(storage, manifest, inputs)
    if done is not None:
        with suppress(msgspec.ValidationError):
            return msgspec.convert({**done, "skipped": True}, kind)
    made = make()
    result = msgspec.to_builtins(made.result)
    publish(storage, manifest, inputs=inputs, files=made.files, result=result, replaces=made.replaces)
    return made.result


def unaltered(storage: Storage, manifest: str) -> Any:
    """The manifest (`inputs`, `files`, `result`), if it is there and every file is as it was written; else None."""
    if not storage.exists(manifest):
        return None
    record = read_json(storage, manifest)
    return None if _altered(storage, record) else record


def finished(storage: Storage, manifest: str, inputs: Any) -> Any:
    """The recorded result, if nothing was altered and it came from the same inputs; else None."""
    record = unaltered(storage, manifest)
    if record is None or json_bytes(record["inputs"]) != json_bytes(inputs):
        return None
    return record["result"]


def completed(storage: Storage, manifest: str, command: str, only: Iterable[str] | None = None) -> Any:
    """The manifest (`inputs`, `files`, `result`) of an earlier step, whose files are checked to be as written.

    `only` limits the check to these files.

    StorageError, naming the command that makes them, when the step did not finish or a file was altered.
    """
    if not storage.exists(manifest):
        raise StorageError(f"{manifest} is not in {storage.root}; run `health-predict {command}` first")
    record = read_json(storage, manifest)
    altered = _altered(storage, record, only)
    if altered:
        raise StorageError(
            f"{', '.join(altered)} in {storage.root} is missing or not what {manifest} records; "
            f"run `health-predict {command}` again"
        )
    return record


def _altered(storage: Storage, record: Any, only: Iterable[str] | None = None) -> list[str]:
    files = record["files"]
    return [key for key in (files if only is None else only) if _digest_of(storage, key) != files.get(key)]


def _digest_of(storage: Storage, key: str) -> str | None:
    found = storage.read_with_state(key)
    return _sha256(found[0]) if found else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_layout(storage: Storage) -> None:
    """StorageError for a store of another layout: nothing in it is read or changed."""
    if not storage.exists(layout.RAW_MANIFEST):
        return
    found = read_json(storage, layout.RAW_MANIFEST)["inputs"].get("layout", 1)
    if found != layout.NUMBER:
        raise StorageError(
            f"{storage.root} has layout {found} of Health Predict's stores, and this version reads layout "
            f"{layout.NUMBER}: set HEALTH_PREDICT_STORAGE to a new place, or move that folder away, and start again "
            "with `health-predict demo` or `health-predict data fetch`. Nothing in it was changed"
        )
