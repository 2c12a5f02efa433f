"""The dataset's CSV to a table of strings and back: everything about the file, nothing about its values."""

import csv
import io
from difflib import get_close_matches

import polars as pl

from health_predict.data.schema import FIELDS, MISSING, RAW_COLUMNS
from health_predict.errors import DataError

_NAMES = {spelling: field.name for field in FIELDS for spelling in (field.raw_name, field.name)}
_SHOWN = 5  # lines or columns named in a message


def decode(content: bytes) -> pl.DataFrame:
    """Rows of the CSV as strings, one column per field, in FIELDS order and under its `name`.

    Row n is line n + 2 of the file. Nothing is missing yet: `?` is still `?` and an empty field is "". Columns
    may come in any order, with hyphens or underscores. Raises DataError for an empty file, another encoding
    than UTF-8, missing, renamed, unknown or repeated columns, and lines with too few or too many fields.
    """
    content = content.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    if not content.strip():
        raise DataError("the dataset is an empty file")
    _check_encoding(content)
    header, _, rows = content.partition(b"\n")
    columns = _names(next(csv.reader([header.decode()])))
    if not rows:
        raise DataError("the dataset has a header line and no rows")
    table = _read(rows, columns)
    if table is None or (table[columns[-1]] == "").any():
        _check_line_lengths(content, len(columns))
    if table is None:
        raise DataError("the dataset cannot be read as CSV; do its quotes match?")
    return table.select(field.name for field in FIELDS)


def encode(encounters: pl.DataFrame) -> bytes:
    """Typed encounters as the dataset's CSV: its column names, `?` where a value is missing."""
    text = encounters.select(
        pl.col(field.name).cast(pl.String).fill_null(MISSING).alias(field.raw_name) for field in FIELDS
    )
    return text.write_csv().encode()


def _check_encoding(content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # `from None`: the original error holds the file.
        raise DataError(f"the dataset is not UTF-8 text: line {line} has a byte that means nothing in it") from None


def _names(header: list[str]) -> list[str]:
    """The fields that the header names, in its order."""
    spellings = [spelling.strip() for spelling in header]
    known = [_NAMES[spelling] for spelling in spellings if spelling in _NAMES]
    if len(known) < len(FIELDS) / 2:
        # Without a header the first line is a patient's row, so it is not repeated here.
        raise DataError(
            f"the dataset's first line names {len(known)} of the {len(FIELDS)} expected columns: "
            f"it must be a comma-separated header beginning {', '.join(RAW_COLUMNS[:3])}, ..."
        )
    problems = [
        *_about("repeated", sorted({name for name in known if known.count(name) > 1})),
        *_about("missing", [field.raw_name for field in FIELDS if field.name not in known]),
        *_about("unknown", [_hinted(spelling, known) for spelling in spellings if spelling not in _NAMES]),
    ]
    if problems:
        raise DataError(f"the dataset's columns do not fit: {'; '.join(problems)}")
    return known


def _about(kind: str, columns: list[str]) -> list[str]:
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return [f"{kind}: {', '.join(columns[:_SHOWN])}{more}"] if columns else []


def _hinted(spelling: str, known: list[str]) -> str:
    absent = [name for name in RAW_COLUMNS if _NAMES[name] not in known]
    folded = {name.lower(): name for name in absent}
    nearest = get_close_matches(spelling.lower(), folded, n=1)
    return f"{spelling!r}" + (f" (is it {folded[nearest[0]]}?)" if nearest else "")


def _read(rows: bytes, columns: list[str]) -> pl.DataFrame | None:
    try:
        return pl.read_csv(rows, has_header=False, schema=dict.fromkeys(columns, pl.String), empty_string_is_null=False)
    except pl.exceptions.PolarsError:
        return None  # its message would repeat a patient's values; the caller finds the line


def _check_line_lengths(content: bytes, expected: int) -> None:
    """Raise for the first lines that do not have the expected number of fields."""
    reader = csv.reader(io.StringIO(content.decode(), newline=""))
    try:
        wrong = [(reader.line_num, len(fields)) for fields in reader if len(fields) != expected]
    except csv.Error:
        raise DataError(f"the dataset cannot be read as CSV near line {reader.line_num}") from None
    if wrong:
        shown = ", ".join(f"line {line} has {fields}" for line, fields in wrong[:_SHOWN])
        raise DataError(
            f"{len(wrong)} lines of the dataset do not have {expected} fields: {shown}. "
            "Was the file cut short, or its separator changed?"
        )
