"""Converts raw strings to typed encounters; invalid rows go into the quarantine, each with its reasons."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

import polars as pl

from health_predict.data.days import DAY, days, no_day
from health_predict.data.field import LONGEST_TEXT, Field
from health_predict.data.hints import hint_of_missing
from health_predict.data.schema import DISCHARGED_ON, FIELDS, MISSING_TEXTS
from health_predict.errors import DataError
from health_predict.params import ValidationParams

DTYPES: dict[str, pl.DataType] = {field.name: getattr(pl, field.dtype)() for field in FIELDS}

LINE, REASON = "line", "reason"
Values = TypeVar("Values", pl.Series, pl.Expr)
_SHOWN = 5  # findings named in a message


@dataclass(frozen=True)
class InvalidValues:
    """A reason for quarantine in one column, and the number of rows with it."""

    column: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Validated:
    """`encounters` are typed (DTYPES), in file order, with null where a value is missing.

    `quarantined` are the other rows as raw strings, after their `line` in the file and their `reason`s joined by
    "; ". `summary` counts the reasons: a row with two is counted in both. `discharges` has the encounter_id and the day
    of discharge (DISCHARGED_ON, Date) of each encounter, null where it is missing; None: the file has no such column.
    """

    encounters: pl.DataFrame
    quarantined: pl.DataFrame
    summary: tuple[InvalidValues, ...]
    discharges: pl.DataFrame | None = None


def validate(raw: pl.DataFrame, params: ValidationParams, today: date | None = None) -> Validated:
    """Check every value of decoded rows (`decode`) against its field's rule, and encounter ids for duplicates.

    `?` and an empty field are missing; "None" is a value. Of rows with the same encounter_id the first is valid. A day
    of discharge must be a day, not after `today` if given. Raises DataError when more than `max_quarantined_share` of
    the rows are invalid, with counts and line numbers, without values.
    """
    problems = [
        (field.name, reason, flags)
        for field in FIELDS
        for reason, flags in _problems(field, raw[field.name])
        if flags.any()
    ]
    if DISCHARGED_ON in raw.columns:
        problems += [(DISCHARGED_ON, reason, flags) for reason, flags in _undated(raw, today) if flags.any()]
    summary = tuple(InvalidValues(column, reason, int(flags.sum())) for column, reason, flags in problems)
    reasons = _joined(problems, raw.height)
    numbered = raw.select(pl.int_range(2, pl.len() + 2).alias(LINE), reasons, pl.all())
    quarantined = numbered.filter(reasons.is_not_null())
    if quarantined.height > params.max_quarantined_share * raw.height:
        raise DataError(_refusal(quarantined, raw.height, summary, params))
    kept = raw.filter(reasons.is_null())
    encounters = kept.select(_typed(field) for field in FIELDS)
    discharges = (
        encounters.select("encounter_id").with_columns(days(kept[DISCHARGED_ON]))
        if DISCHARGED_ON in raw.columns
        else None
    )
    return Validated(encounters, quarantined, summary, discharges)


def invalid_values(encounters: pl.DataFrame) -> tuple[InvalidValues, ...]:
    """The values of typed encounters (DTYPES) that do not follow their field's rule, counted by column and reason."""
    found = [
        (field.name, reason, flags) for field in FIELDS for reason, flags in _typed_problems(field, pl.col(field.name))
    ]
    counts = encounters.select(flags.sum().alias(str(position)) for position, (_, _, flags) in enumerate(found)).row(0)
    return tuple(
        InvalidValues(column, reason, rows) for (column, reason, _), rows in zip(found, counts, strict=True) if rows
    )


def _typed_problems(field: Field, value: pl.Expr) -> Iterator[tuple[str, pl.Expr]]:
    """Each reason to refuse a typed value of the field, with a flag per row; null where the value is missing."""
    if not field.nullable:
        yield "is missing", value.is_null()
    yield f"is not {field.rule}", ~_follows(field, value)
    if field.name == "encounter_id":
        yield "is in an earlier line too", ~value.is_first_distinct()


def _undated(raw: pl.DataFrame, today: date | None) -> Iterator[tuple[str, pl.Series]]:
    """Each reason to refuse a day of discharge, with a flag per row."""
    found = days(raw[DISCHARGED_ON])
    yield f"is not {DAY}", found.is_null() & ~no_day(raw[DISCHARGED_ON])
    if today is not None:
        yield "is still to come", (found > today).fill_null(value=False)


def _problems(field: Field, text: pl.Series) -> Iterator[tuple[str, pl.Series]]:
    """Each reason to refuse a value of the field, with a flag per row."""
    given = ~text.is_in(MISSING_TEXTS)
    if not field.nullable:
        yield "is missing", ~given
    yield f"is not {field.rule}", given & ~_follows(field, _read(field, text)).fill_null(False)
    if field.name == "encounter_id":
        yield "is in an earlier line too", given & ~text.is_first_distinct()


def _follows(field: Field, value: Values) -> Values:
    """Whether each value, of the field's own type, follows the field's rule; null where it is null."""
    if field.is_number:
        return value.is_between(*field.bounds)
    return value.is_in(field.codes) if field.closed else value.str.len_chars().is_between(1, LONGEST_TEXT)


def _read(field: Field, text: pl.Series) -> pl.Series:
    """The values of the field's own type that texts stand for; null where a text stands for none."""
    if not field.is_number:
        return text
    return text.cast(pl.Int64 if field.is_whole_number else pl.Float64, strict=False)


def _typed(field: Field) -> pl.Expr:
    text = pl.col(field.name)
    return pl.when(~text.is_in(MISSING_TEXTS)).then(text).cast(DTYPES[field.name]).alias(field.name)


def _joined(problems: list[tuple[str, str, pl.Series]], rows: int) -> pl.Series:
    """All reasons of each row as one sentence; null for a row without any."""
    sentences = [
        pl.select(pl.when(flags).then(pl.lit(f"{column} {reason}"))).to_series().alias(f"{column} {reason}")
        for column, reason, flags in problems
    ]
    if not sentences:
        return pl.Series(REASON, [None] * rows, pl.String)
    joined = pl.DataFrame(sentences).select(pl.concat_str(pl.all(), separator="; ", ignore_nulls=True)).to_series()
    return joined.replace("", None).alias(REASON)


def _refusal(quarantined: pl.DataFrame, rows: int, summary: tuple[InvalidValues, ...], params: ValidationParams) -> str:
    worst = sorted(summary, key=lambda finding: -finding.rows)[:_SHOWN]
    lines = ", ".join(str(line) for line in quarantined[LINE].head(_SHOWN))
    return (
        f"{quarantined.height} of {rows} rows of the dataset are bad, more than {params.max_quarantined_share:.1%} "
        f"(ValidationParams.max_quarantined_share): "
        + "; ".join(f"{finding.column} {finding.reason} in {finding.rows} rows" for finding in worst)
        + f". First lines: {lines}{hint_of_missing(quarantined)}"
    )
