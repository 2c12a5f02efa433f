"""Files of encounters of any size, CSV or Parquet, local or s3://, in batches; and their scores, written as they come.

Columns may have the dataset's spelling or hyphens or underscores. The API's contract holds: the same columns are
required, and what a value may be. `readmitted` may be there and is not read; any other column is refused.

What a file says in its own way: in CSV every value is text, and an empty identifier is none. A whole number may be
stored as a float or decimal, as pandas and databases do, if every value is whole.
"""

import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from health_predict.data.schema import FIELD, FIELDS, LONGEST_TEXT, MISSING, OUTCOME, Field
from health_predict.data.validation import DTYPES, bounds
from health_predict.errors import DataError, StorageError

_INPUTS = tuple(field for field in FIELDS if field.name != OUTCOME)
_MISSING_TEXTS = (MISSING, "")
_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_EXACT: dict[pl.DataType, int] = {
    pl.Float32(): 2**24,
    pl.Float64(): 2**53,
}  # beyond, neighbouring whole numbers are the same float


@dataclass(frozen=True)
class EncounterFile:
    """`rows` is None where only reading tells. `identifiers` are those that the file has."""

    name: str
    rows: int | None
    identifiers: tuple[str, ...]
    frame: pl.LazyFrame  # raw, under field names

    def batches(self, rows: int) -> Iterator[pl.DataFrame]:
        """Typed encounters, about `rows` at a time, in file order; one table without rows where the file has none.

        Texts are enumerations: of all codes where those are closed, else of the texts that the table holds. Raises
        DataError that names the column and its rule where a value does not fit, never the value.
        """
        start = 0
        for raw in self._raw(rows):
            yield _typed(raw, self.name, start)
            start += raw.height
        if start == 0:
            yield _typed(pl.DataFrame(schema=self.frame.collect_schema()), self.name, start)

    def _raw(self, rows: int) -> Iterator[pl.DataFrame]:
        done = 0
        try:
            for raw in self.frame.collect_batches(chunk_size=rows, maintain_order=True):
                yield raw
                done += raw.height
        except (pl.exceptions.PolarsError, OSError):
            # `from None`: the original error may hold the values.
            raise DataError(f"{self.name} cannot be read to its end after row {done}; was it cut short?") from None


def open_encounters(source: str, endpoint: str | None = None) -> EncounterFile:
    """The file, its columns checked. `endpoint` is an S3-compatible address other than AWS.

    Raises StorageError when it is not there, DataError when it is neither CSV nor Parquet or its columns do not fit.
    """
    frame, rows = scan(source, endpoint)
    names = _names(frame.collect_schema(), source)
    identifiers = tuple(f.name for f in _INPUTS if f.kind == "identifier" and f.name in names)
    chosen = [(pl.col(names[f.name]) if f.name in names else pl.lit(None)).alias(f.name) for f in _INPUTS]
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
            try:
                yield writer
            finally:
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
            # Without `store_schema` a reader gets enumerations as texts; other columns hold hardly a value twice.
            repeated = [name for name, dtype in scores.schema.items() if dtype == pl.Enum]
            self._parquet = pq.ParquetWriter(
                self._stream, table.schema, compression="zstd", use_dictionary=repeated, store_schema=False
            )
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


def _names(schema: pl.Schema, source: str) -> dict[str, str]:
    """Column of each field. Columns that are no field are counted, not repeated: they may hold a patient's row."""
    found = [(column.replace("-", "_"), column) for column in schema if column.replace("-", "_") in FIELD]
    names = dict(found)
    spellings = Counter(name for name, _ in found)
    problems = [
        *(f"{field.raw_name} is missing" for field in _INPUTS if field.required and field.name not in names),
        *(f"{name} is there twice" for name, times in sorted(spellings.items()) if times > 1),
        *(
            f"{name} holds {schema[column].base_type().__name__}, not {_kind(FIELD[name])}"
            for name, column in names.items()
            if name != OUTCOME and not _can_hold(schema[column], FIELD[name])
        ),
        *([f"{len(schema) - len(found)} columns are no fields"] if len(found) < len(schema) else []),
    ]
    if problems:
        raise DataError(f"the columns of {source} do not fit: {'; '.join(problems)}")
    return names


def _can_hold(dtype: pl.DataType, field: Field) -> bool:
    if field.is_whole_number:
        return dtype.is_numeric() or dtype in (pl.String, pl.Null)
    return dtype in (*_TEXTS, pl.Null)


def _typed(raw: pl.DataFrame, source: str, start: int) -> pl.DataFrame:
    typed = pl.DataFrame([(_number if f.is_whole_number else _text)(f, raw[f.name]) for f in _INPUTS])
    problems = [problem for f in _INPUTS if (problem := _problem(f, raw[f.name], typed[f.name], start))]
    if problems:
        raise DataError(f"{source} has values that cannot be scored: {'; '.join(problems)}")
    return typed


def _number(field: Field, values: pl.Series) -> pl.Series:
    """The whole numbers that the field may have; null for any other value."""
    number = values.cast(pl.Int64, strict=False)
    fits = number.is_between(*bounds(field))
    if values.dtype.is_float() or values.dtype.is_decimal():
        fits &= (number == values) & (number <= _EXACT.get(values.dtype, 2**63 - 1))
    if not fits.all():
        number = pl.select(pl.when(fits).then(number).alias(field.name)).to_series()
    return number.cast(DTYPES[field.name])


def _text(field: Field, values: pl.Series) -> pl.Series:
    """The texts that the field may have, as an enumeration; null for any other."""
    values = values.cast(pl.String)
    if field.closed:
        return values.cast(pl.Enum([str(code) for code in field.codes]), strict=False)
    found = values.unique()  # few: looking at these is cheaper than at every row
    kept = found.filter(found.str.len_chars().is_between(1, LONGEST_TEXT) & (found != MISSING))
    return values.cast(pl.Enum(kept), strict=False)


def _problem(field: Field, values: pl.Series, typed: pl.Series, start: int) -> str | None:
    may_be_missing = field.nullable or not field.required
    if typed.null_count() == (values.null_count() if may_be_missing else 0):
        return None
    wrong = typed.is_null() & ~_missing(field, values) if may_be_missing else typed.is_null()
    if not wrong.any():
        return None
    said = f"{field.name} is {'' if may_be_missing else 'missing or '}not {_kind(field)}"
    return f"{said} in {wrong.sum()} rows, the first is {start + int(wrong.arg_max() or 0) + 1}"


def _missing(field: Field, values: pl.Series) -> pl.Series:
    if values.dtype.is_float():
        return values.is_null() | values.is_nan()
    if values.dtype in _TEXTS:
        texts = ("",) if field.is_whole_number else _MISSING_TEXTS
        return values.is_null() | values.cast(pl.String).is_in(texts)
    return values.is_null()


def _kind(field: Field) -> str:
    if field.is_whole_number:
        low, high = bounds(field)
        return f"a whole number from {low} to {high}"
    return "a known code" if field.closed else f"a text of at most {LONGEST_TEXT} characters"
