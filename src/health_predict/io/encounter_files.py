"""Files of encounters of any size, CSV or Parquet, local or s3://, in batches; and their scores, written as they come.

Columns may have the dataset's spelling or hyphens or underscores. The API's contract holds: the same columns are
required, and what a value may be. `readmitted` may be there and is not read; any other column is refused.
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from health_predict.data.schema import FIELD, FIELDS, MISSING, OUTCOME, Field
from health_predict.data.validation import DTYPES, bounds
from health_predict.errors import DataError, StorageError

_INPUTS = tuple(field for field in FIELDS if field.name != OUTCOME)


@dataclass(frozen=True)
class EncounterFile:
    """`rows` is None where only reading tells. `identifiers` are those that the file has."""

    name: str
    rows: int | None
    identifiers: tuple[str, ...]
    frame: pl.LazyFrame  # raw, under field names

    def batches(self, rows: int) -> Iterator[pl.DataFrame]:
        """Typed encounters, about `rows` at a time, in file order; closed codes are enumerations.

        Raises DataError that names the column and its rule where a value does not fit, never the value.
        """
        start = 0
        try:
            for raw in self.frame.collect_batches(chunk_size=rows, maintain_order=True):
                yield _typed(raw, self.name, start)
                start += raw.height
        except (pl.exceptions.PolarsError, OSError):
            # `from None`: the original error may hold the values.
            raise DataError(f"{self.name} cannot be read to its end after row {start}; was it cut short?") from None


def open_encounters(source: str, endpoint: str | None = None) -> EncounterFile:
    """The file, its columns checked. `endpoint` is an S3-compatible address other than AWS.

    Raises StorageError when it is not there, DataError when it is neither CSV nor Parquet or its columns do not fit.
    """
    frame, rows = scan(source, endpoint)
    names = _names(frame.collect_schema().names(), source)
    identifiers = tuple(f.name for f in _INPUTS if f.kind == "identifier" and f.name in names.values())
    chosen = [pl.col(column).alias(name) for column, name in names.items() if name != OUTCOME]
    return EncounterFile(source, rows, identifiers, frame.select(chosen))


def scan(source: str, endpoint: str | None = None) -> tuple[pl.LazyFrame, int | None]:
    """A CSV (all columns as text) or Parquet file to be read, and its rows, None where only reading tells.

    Raises StorageError when it is not there, DataError when it is neither.
    """
    options = _s3_options(source, endpoint)
    try:
        if source.endswith(".parquet"):
            frame = pl.scan_parquet(source, storage_options=options)
        elif source.endswith(".csv"):
            frame = pl.scan_csv(source, infer_schema=False, empty_string_is_null=False, storage_options=options)
        else:
            raise DataError(f"{source} is neither .csv nor .parquet")
        frame.collect_schema()
        return frame, frame.select(pl.len()).collect().item() if source.endswith(".parquet") else None
    except FileNotFoundError as error:
        raise StorageError(f"{source} does not exist") from error
    except (pl.exceptions.PolarsError, OSError):
        raise DataError(f"{source} is not a readable {source.rpartition('.')[2]} file") from None


@contextmanager
def score_writer(target: str, endpoint: str | None = None) -> Iterator["ScoreWriter"]:
    """Write scores to a new file that appears, or replaces an old one, when the block ends without an error.

    Raises StorageError when it cannot be written, DataError when it is neither .csv nor .parquet.
    """
    if not target.endswith((".csv", ".parquet")):
        raise DataError(f"{target} is neither .csv nor .parquet")
    remote = target.startswith("s3://")
    path = Path(tempfile.gettempdir(), target.rpartition("/")[2]) if remote else Path(target)
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            writer = ScoreWriter(stream, csv=target.endswith(".csv"))
            yield writer
            writer.close()
        if remote:
            _upload(temporary, target, endpoint)
        else:
            temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or type(error).__name__}") from error
    finally:
        temporary.unlink(missing_ok=True)


class ScoreWriter:
    """Appends tables of the same columns to a CSV or Parquet file."""

    def __init__(self, stream: Any, csv: bool):
        self._stream, self._csv = stream, csv
        self._parquet: Any = None
        self._started = False

    def write(self, scores: pl.DataFrame) -> None:
        if self._csv:
            self._stream.write(scores.write_csv(include_header=not self._started).encode())
        else:
            self._append(scores)
        self._started = True

    def close(self) -> None:
        if self._parquet:
            self._parquet.close()

    def _append(self, scores: pl.DataFrame) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415  # .2 s that no other command needs

        table = scores.to_arrow()
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._stream, table.schema, compression="zstd")
        self._parquet.write_table(table)


def _s3_options(source: str, endpoint: str | None) -> dict[str, str] | None:
    if not source.startswith("s3://") or endpoint is None:
        return None
    return {"aws_endpoint_url": endpoint, "aws_allow_http": "true"}


def _upload(file: Path, target: str, endpoint: str | None) -> None:
    import boto3  # noqa: PLC0415  # .4 s, and a local file never needs it
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    bucket, _, key = target.removeprefix("s3://").partition("/")
    try:
        boto3.session.Session().client("s3", endpoint_url=endpoint).upload_file(str(file), bucket, key)
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise StorageError(f"{target} cannot be written: {error}") from error


def _names(columns: list[str], source: str) -> dict[str, str]:
    """Field name of each column. Columns that are no field are counted, not repeated: they may hold a patient's row."""
    names = {column: column.replace("-", "_") for column in columns if column.replace("-", "_") in FIELD}
    found = list(names.values())
    problems = [
        *(f"{field.raw_name} is missing" for field in _INPUTS if field.required and field.name not in found),
        *(f"{name} is there twice" for name in sorted({name for name in found if found.count(name) > 1})),
        *([f"{len(columns) - len(names)} columns are no fields"] if len(names) < len(columns) else []),
    ]
    if problems:
        raise DataError(f"the columns of {source} do not fit: {'; '.join(problems)}")
    return names


def _typed(raw: pl.DataFrame, source: str, start: int) -> pl.DataFrame:
    typed = raw.select(_cast(field, raw) for field in _INPUTS if field.name in raw.columns)
    problems = [
        problem for field in _INPUTS if field.name in raw.columns for problem in _problems(field, raw, typed, start)
    ]
    if problems:
        raise DataError(f"{source} has values that cannot be scored: {'; '.join(problems)}")
    absent = [pl.lit(None, DTYPES[field.name]).alias(field.name) for field in _INPUTS if field.name not in raw.columns]
    return typed.with_columns(absent)


def _cast(field: Field, raw: pl.DataFrame) -> pl.Expr:
    column = pl.col(field.name)
    if raw.schema[field.name] == pl.String and field.nullable:
        column = pl.when(~column.is_in([MISSING, ""])).then(column)
    dtype = pl.Enum([str(code) for code in field.codes]) if field.closed else DTYPES[field.name]
    return column.cast(dtype, strict=False).alias(field.name)


def _problems(field: Field, raw: pl.DataFrame, typed: pl.DataFrame, start: int) -> Iterator[str]:
    column, values = typed[field.name], raw[field.name]
    lost = column.null_count() - (
        values.null_count() if values.dtype != pl.String or not field.nullable else _missing(values)
    )
    if column.null_count() and not field.nullable and field.required:
        row = start + int(column.is_null().arg_max() or 0) + 1
        yield f"{field.name} is missing or not {_kind(field)} in {column.null_count()} rows, the first is {row}"
    elif lost > 0:
        yield f"{field.name} is not {_kind(field)} in {lost} rows"
    if field.is_whole_number and column.null_count() < len(column):
        low, high = bounds(field)
        if not (low <= column.min() and column.max() <= high):  # type: ignore[operator]
            yield f"{field.name} is not from {low} to {high} in {int((~column.is_between(low, high)).sum())} rows"


def _missing(values: pl.Series) -> int:
    return int((values.is_null() | values.is_in([MISSING, ""])).sum())


def _kind(field: Field) -> str:
    return "a whole number" if field.is_whole_number else "a known code" if field.closed else "a text"
