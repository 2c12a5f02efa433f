"""Converts the dataset's CSV to a table of strings and back; `validation.py` checks the values."""

from collections.abc import Sequence
from difflib import get_close_matches

import polars as pl

from health_predict.data.csv_lines import (
    BYTE_ORDER_MARK,
    COMMA,
    check_last_line,
    layout,
    one_line_end,
    rows,
    without_blank_end,
)
from health_predict.data.schema import DISCHARGED_ON, FIELDS, MISSING, RAW_COLUMNS
from health_predict.errors import DataError

_NAMES = {spelling: field.name for field in FIELDS for spelling in (field.raw_name, field.name)}
_NAME = "the dataset"
_SHOWN = 5  # columns named in a message


def decode(content: bytes, discharge_column: str = DISCHARGED_ON) -> pl.DataFrame:
    """Rows of the CSV as strings, one column per field, in FIELDS order and under its `name`.

    If the file has the day of discharge, in a column `discharge_column`, it is the last column, as DISCHARGED_ON.

    Row n (from 0) is line n + 2 of the file. There are no nulls: `?` stays `?` and an empty field is "". The file's
    columns may have any order, and names with hyphens or underscores. Raises DataError for an empty file, another
    encoding than UTF-8, missing, renamed, unknown or repeated columns, and lines with too few or too many fields, or
    with quotes that do not enclose a field.
    """
    header, _, lines = one_line_end(content).partition(b"\n")
    if not header.removeprefix(BYTE_ORDER_MARK).strip() and not lines.strip():
        raise DataError(f"{_NAME} is an empty file")
    found = layout(header, COMMA, _NAME)
    columns = _names(found.columns, discharge_column)
    lines, _ = without_blank_end(lines, COMMA)
    if not lines:
        raise DataError(f"{_NAME} has a header line and no rows")
    table = rows(lines, found, 2, _NAME)
    check_last_line(lines, COMMA, _NAME)
    names = [*(field.name for field in FIELDS), *([DISCHARGED_ON] if DISCHARGED_ON in columns else [])]
    return table.select(pl.nth(columns.index(name)).alias(name) for name in names)


def encode(encounters: pl.DataFrame) -> bytes:
    """Typed encounters as the dataset's CSV: its column names, `?` where a value is missing."""
    text = encounters.select(
        pl.col(field.name).cast(pl.String).fill_null(MISSING).alias(field.raw_name) for field in FIELDS
    )
    return text.write_csv().encode()


def _names(header: Sequence[str], discharge_column: str) -> list[str]:
    """Field names of the header's columns, in their order; DISCHARGED_ON for the day of discharge, if any."""
    names = {**_NAMES, discharge_column: DISCHARGED_ON}
    known = [names[spelling] for spelling in header if spelling in names]
    if len(known) < len(FIELDS) / 2:
        # In a file without a header the first line is a patient's row, so messages do not repeat it.
        raise DataError(
            f"the dataset's first line names {len(known)} of the {len(FIELDS)} expected columns: "
            f"it must be a comma-separated header beginning {', '.join(RAW_COLUMNS[:3])}, ..."
        )
    problems = [
        *_about("repeated", sorted({name for name in known if known.count(name) > 1})),
        *_about("missing", [field.raw_name for field in FIELDS if field.name not in known]),
        *_about("unknown", [_hinted(spelling, known) for spelling in header if spelling not in names]),
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
