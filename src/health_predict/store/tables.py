"""Encounters as Parquet, everything else as JSON.

A table is checked value by value against the schema when it is written, and stamped with the schema's digest.
Read again, a table with that stamp is checked for columns and types only; any other file is checked as a whole.
After the fields it may have the column REPRESENTS (`data/follow_up.py`).
"""

import hashlib
import io
import json
from typing import Any

import polars as pl

from health_predict.data.follow_up import REPRESENTS
from health_predict.data.schema import FIELDS
from health_predict.data.validation import DTYPES, invalid_values
from health_predict.errors import DataError, StorageError
from health_predict.store import layout
from health_predict.store.storage import Storage

SCHEMA_DIGEST = hashlib.sha256(repr(([field.meaning for field in FIELDS], DTYPES)).encode()).hexdigest()
_STAMP = "health_predict.schema"


def write_table(storage: Storage, key: str, encounters: pl.DataFrame) -> None:
    """Write typed encounters; the same table gives the same bytes. DataError, and nothing written, if one is bad."""
    storage.write(key, table_bytes(encounters, key))


def table_bytes(encounters: pl.DataFrame, name: str) -> bytes:
    """The Parquet file that `write_table` writes; `name` is for the message of the DataError."""
    _check_columns(encounters, name)
    _check_values(encounters, name)
    file = io.BytesIO()
    encounters.write_parquet(file, metadata={_STAMP: SCHEMA_DIGEST})
    return file.getvalue()


def read_table(storage: Storage, key: str) -> pl.DataFrame:
    """Typed encounters (DTYPES) in the order they were written.

    Raises StorageError when the key is not there, DataError when it is not Parquet or does not fit the schema;
    the message has columns and counts, and no value.
    """
    return parse_table(storage.read(key), storage.path(key))


def parse_table(content: bytes, name: str) -> pl.DataFrame:
    """As `read_table`, from the bytes of a file."""
    try:
        metadata = pl.read_parquet_metadata(io.BytesIO(content))
        encounters = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{name} is not a readable Parquet file; was it cut short?") from error
    _check_columns(encounters, name)
    if metadata.get(_STAMP) != SCHEMA_DIGEST:
        _check_values(encounters, name)
    return encounters


def keep_table(storage: Storage, content: bytes) -> str:
    """Write a table to `tables/<sha256>.parquet`, where a model that depends on it finds it; returns the SHA-256.

    One that was damaged there is replaced.
    """
    digest = hashlib.sha256(content).hexdigest()
    kept = storage.read_with_state(layout.table(digest))
    if kept is None or kept[0] != content:
        storage.write(layout.table(digest), content)
    return digest


def kept_table(storage: Storage, digest: str) -> bytes:
    """The table with this SHA-256. StorageError when it is not kept, DataError when it was altered."""
    key = layout.table(digest)
    if not storage.exists(key):
        raise StorageError(
            f"{key} is not in {storage.root}: the table that a model was trained on, without which nobody can know "
            "what it has seen; copy it from the store that trained the model, or train again"
        )
    content = storage.read(key)
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{storage.path(key)} was altered: its content is not what its name says")
    return content


def write_json(storage: Storage, key: str, content: Any) -> None:
    """Write JSON with sorted keys, so that the same content gives the same bytes."""
    storage.write(key, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(storage: Storage, key: str) -> Any:
    """The content. StorageError when the key is not there, DataError when it is not JSON."""
    try:
        return json.loads(storage.read(key))
    except ValueError as error:
        raise DataError(f"{storage.path(key)} is not JSON") from error


def _check_columns(encounters: pl.DataFrame, name: str) -> None:
    found = dict(encounters.schema)
    if list(found.items())[-1:] == [(REPRESENTS, pl.Float64())]:
        del found[REPRESENTS]
    problems = [
        *(f"{column} is missing" for column in DTYPES if column not in found),
        *(f"{column!r} is unknown" for column in found if column not in DTYPES),
        *(
            f"{column} is {found[column]}, not {dtype}"
            for column, dtype in DTYPES.items()
            if column in found and found[column] != dtype
        ),
    ]
    if not problems and list(found) != list(DTYPES):
        problems = ["the columns are in another order"]
    if problems:
        raise DataError(f"{name} does not fit the schema of encounters: {'; '.join(problems)}")


def _check_values(encounters: pl.DataFrame, name: str) -> None:
    if invalid := invalid_values(encounters):
        found = "; ".join(f"{one.column} {one.reason} in {one.rows} rows" for one in invalid)
        raise DataError(f"{name} does not fit the schema of encounters: {found}")
