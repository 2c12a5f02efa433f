"""Files of encounters of any size, CSV or Parquet, local or s3://, in batches.

Columns may have the dataset's spelling or hyphens or underscores. The API's contract holds: the same columns are
required, and what a value may be. `readmitted` may be there and is not read. So may a column with the day of discharge,
which only `sift` reads; any other column is refused.

What a file says in its own way: in CSV every value is text, and an empty identifier is none. A whole number may be
stored as a float or decimal, as pandas and databases do, if every value is whole.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from health_predict.data.days import DAY, days, no_day
from health_predict.data.field import LONGEST_TEXT, Field
from health_predict.data.hints import hint_of_missing
from health_predict.data.schema import (
    DISCHARGED_ON,
    FIELD,
    IDENTIFIERS,
    INPUTS,
    MISSING,
    MISSING_TEXTS,
    NOT_MEASURED,
    OUTCOME,
)
from health_predict.data.validation import DTYPES
from health_predict.errors import DataError
from health_predict.store.places import shown
from health_predict.store.table_files import Account, Table, open_tables

_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_EXACT: dict[pl.DataType, int] = {
    pl.Float32(): 2**24,
    pl.Float64(): 2**53,
}  # beyond, neighbouring whole numbers are the same float
_MEASURED = tuple(field.name for field in INPUTS if NOT_MEASURED in field.codes)
_PIECE = 65_536  # rows read at a time
_SHOWN = 5  # columns named in a message
_INDEXES = ("", "Unnamed: 0", "__index_level_0__", "index", "level_0", "rownames")


@dataclass(frozen=True)
class Batch:
    """Typed encounters, and the identifiers that the file has, as it writes them."""

    encounters: pl.DataFrame
    identifiers: pl.DataFrame


@dataclass(frozen=True)
class Sifted:
    """Typed encounters, and the other rows as texts behind the number of their `row` and their `reason`s.

    Both have DISCHARGED_ON where the file has a day of discharge; of the encounters it is a Date, and never null.
    """

    encounters: pl.DataFrame
    quarantined: pl.DataFrame


@dataclass(frozen=True)
class EncounterFile:
    """`rows` is None where only reading tells. `account` says what has been read.

    With `empty_is_not_measured`, an empty value of a laboratory test means that it was not done; `filled` counts them.
    """

    name: str
    rows: int | None
    tables: tuple[Table, ...]
    empty_is_not_measured: bool = False
    discharge_column: str = DISCHARGED_ON
    account: Account = field(default_factory=Account)
    filled: Counter[str] = field(default_factory=Counter)

    @property
    def identifiers(self) -> set[str]:
        """Names of the identifiers that every part has."""
        return set.intersection(*(_identified(table) for table in self.tables))

    @property
    def is_dated(self) -> bool:
        """Has every part a column with the day of discharge."""
        return all(_has(table, self.discharge_column) for table in self.tables)

    def batches(self, rows: int) -> Iterator[Batch]:
        """Typed encounters, about `rows` at a time, in file order; one table without rows where the file has none.

        Texts are enumerations: of all codes where those are closed, else of the texts that the table holds. Raises
        DataError that names the column and its rule where a value does not fit, or the lines that are not whole;
        never the value.
        """
        start = 0
        for table in self.tables:
            for raw in self._raw(table, rows):
                yield self._batch(raw, start, table)
                start += raw.height
        if start == 0:
            yield self._batch(_empty(self.tables[0]), start, self.tables[0])

    def sift(self, rows: int, today: date, needed: Collection[str] = ()) -> Iterator[Sifted]:
        """As `batches`, with the rows whose values do not fit set aside instead of refused, each with its reasons.

        A row where one of the `needed` fields is missing does not fit either; nor, in a file with days of discharge,
        one without such a day, or with one after `today`.
        """
        start, dated = 0, self.is_dated
        for table in self.tables:
            for raw in self._raw(table, rows, dated):
                yield _sifted(self._measured(raw) if self.empty_is_not_measured else raw, start, needed, today)
                start += raw.height
        if start == 0:
            empty = _empty(self.tables[0])
            discharged = [pl.lit(None, pl.String).alias(DISCHARGED_ON)] if dated else []
            yield _sifted(empty.with_columns(discharged), start, needed, today)

    def _raw(self, table: Table, rows: int, dated: bool = False) -> Iterator[pl.DataFrame]:
        """Under field names; fields that the file lacks are null. Where `dated`, with DISCHARGED_ON."""
        positions, values = _positions(table), _values(table)
        if dated and self.discharge_column in table.values:
            values = {**values, DISCHARGED_ON: table.values[self.discharge_column]}
        elif dated:
            positions = {**positions, DISCHARGED_ON: _stripped(table).index(self.discharge_column)}
        names = [*(f.name for f in INPUTS), *([DISCHARGED_ON] if dated else [])]
        absent = [pl.lit(values.get(name), pl.String).alias(name) for name in names if name not in positions]
        for piece in table.pieces(positions, rows, self.account):
            yield piece.with_columns(absent)

    def _batch(self, raw: pl.DataFrame, start: int, table: Table) -> Batch:
        if self.empty_is_not_measured:
            raw = self._measured(raw)
        given = {*_positions(table), *_values(table)}
        identifiers = [_identifier(raw[name]) for name in IDENTIFIERS if name in given]
        return Batch(_typed(raw, self.name, start), pl.DataFrame(identifiers))

    def _measured(self, raw: pl.DataFrame) -> pl.DataFrame:
        columns = []
        for name in _MEASURED:
            empty = _missing(FIELD[name], raw[name], texts=("",))
            self.filled[name] += int(empty.sum())
            texts = raw[name].cast(pl.String)
            columns.append(
                pl.select(pl.when(empty).then(pl.lit(NOT_MEASURED)).otherwise(texts).alias(name)).to_series()
            )
        return raw.with_columns(columns)


def open_encounters(
    source: str,
    endpoint: str | None = None,
    empty_is_not_measured: bool = False,
    discharge_column: str = DISCHARGED_ON,
) -> EncounterFile:
    """The file or folder, its columns checked. `endpoint` is an S3-compatible address other than AWS.

    `discharge_column` is what the file calls the day of discharge, if it has it.

    Raises StorageError when it is not there, DataError when it is of no kind that is read or its columns do not fit.
    """
    tables = tuple(open_tables(source, endpoint))
    for table in tables:
        _check(table, discharge_column)
    if len({tuple(sorted(_identified(table))) for table in tables}) > 1:
        raise DataError(f"{shown(source)} has parts with other identifiers than others")
    if len({_has(table, discharge_column) for table in tables}) > 1:
        raise DataError(f"{shown(source)} has parts with and without the column {discharge_column}")
    heights = [table.rows for table in tables]
    known = [height for height in heights if height is not None]
    rows = sum(known) if len(known) == len(heights) else None
    return EncounterFile(shown(source), rows, tables, empty_is_not_measured, discharge_column)


def read_columns(
    source: str, names: tuple[str, ...], what: str, endpoint: str | None = None, day: str | None = None
) -> pl.DataFrame:
    """Some fields of a file or folder, whole, and no others: whole numbers by the rules of encounters, else texts.

    A number that does not fit is null. `day` is a column that may be there, with days (Date); without it, or where a
    row has none, it is null. DataError where a field is not there once, or of another type, a day is none, or `day` is
    spelt otherwise.
    """
    found = []
    for table in open_tables(source, endpoint):
        positions = {field_name(column): position for position, column in enumerate(table.columns)}
        absent = [name for name in names if name not in positions]
        if absent:
            raise DataError(f"{table.name} has no column {', '.join(absent)}; {what} need {', '.join(names)}")
        spellings = Counter(map(field_name, table.columns))
        twice = [name for name in names if spellings[name] > 1]
        if twice:
            raise DataError(f"the columns of {table.name} do not fit: {', '.join(twice)} is there twice")
        chosen = {name: positions[name] for name in names}
        types = {name: table.types[position] for name, position in chosen.items()}
        wrong = [_wrong_type(name, dtype) for name, dtype in types.items() if not _can_hold(dtype, FIELD[name])]
        if wrong:
            raise DataError(f"the columns of {table.name} do not fit: {'; '.join(wrong)}")
        meant = [one for one in table.columns if field_name(one).replace(" ", "_").lower() == day]
        if meant and day not in positions:
            raise DataError(f"the columns of {table.name} do not fit: `{meant[0]}` is to be called {day}")
        if day in positions:
            chosen[day], types[day] = positions[day], table.types[positions[day]]
        found += list(table.pieces(chosen, _PIECE, Account()))
        found.append(pl.DataFrame(schema=types))
    days_of = [] if day is None else [day]
    return pl.concat(
        pl.DataFrame(
            [_plain(FIELD[name], piece[name]) for name in names] + [_days(source, name, piece) for name in days_of]
        )
        for piece in found
    )


def _days(source: str, name: str, piece: pl.DataFrame) -> pl.Series:
    if name not in piece.columns:
        return pl.Series(name, [None] * piece.height, pl.Date)
    found = days(piece[name])
    wrong = int((found.is_null() & ~no_day(piece[name])).sum())
    if wrong:
        raise DataError(f"{shown(source)} has {wrong} values of {name} that are not {DAY}")
    return found


def _plain(field: Field, values: pl.Series) -> pl.Series:
    return _number(field, values) if field.is_number else values.cast(pl.String)


def _wrong_type(name: str, dtype: pl.DataType) -> str:
    held = "a type that is not read" if dtype == pl.Unknown else dtype.base_type().__name__
    return f"{name} holds {held}, not {FIELD[name].rule}"


def _stripped(table: Table) -> list[str]:
    return [column.strip() for column in table.columns]


def _has(table: Table, column: str) -> bool:
    return column in table.values or column in _stripped(table)


def field_name(column: str) -> str:
    return column.strip().replace("-", "_")


def _identified(table: Table) -> set[str]:
    return {*IDENTIFIERS} & {*_positions(table), *_values(table)}


def _positions(table: Table) -> dict[str, int]:
    """Position of each field's column in the file."""
    inputs = {field.name for field in INPUTS}
    found = ((field_name(column), position) for position, column in enumerate(table.columns))
    return {name: position for name, position in found if name in inputs}


def _values(table: Table) -> Mapping[str, str | None]:
    """Fields whose value the folders say. Folders that are no field sort the files, and are not read."""
    return {field_name(column): value for column, value in table.values.items() if field_name(column) in FIELD}


def _empty(table: Table) -> pl.DataFrame:
    positions = _positions(table)
    types = {f.name: table.types[positions[f.name]] if f.name in positions else pl.String() for f in INPUTS}
    return pl.DataFrame(schema=types)


def _check(table: Table, discharge_column: str) -> None:
    """DataError where the columns do not fit."""
    spellings = Counter([field_name(column) for column in table.columns] + list(_values(table)))
    types = {field_name(column): dtype for column, dtype in zip(table.columns, table.types, strict=True)}
    lacking = [f.raw_name for f in INPUTS if f.required and f.name not in spellings]
    unknown = [name for name in table.columns if field_name(name) not in FIELD and name.strip() != discharge_column]
    if len(lacking) > len(INPUTS) / 2:
        # Without a header the first line is a patient's row, so nothing of it is repeated.
        raise DataError(
            f"the columns of {table.name} do not fit: they name {len(INPUTS) - len(lacking)} of {len(INPUTS)} "
            "fields. Does it begin with a header, and are its columns separated by commas (.csv) or tabs (.tsv)?"
        )
    problems = [
        *(f"{name} is missing" for name in lacking),
        *(f"{name} is there twice" for name, times in sorted(spellings.items()) if times > 1 and name in FIELD),
        *([f"{discharge_column} is there twice"] if _stripped(table).count(discharge_column) > 1 else []),
        *(
            _wrong_type(name, dtype)
            for name, dtype in types.items()
            if name in FIELD and name != OUTCOME and not _can_hold(dtype, FIELD[name])
        ),
        *_unknown(unknown),
    ]
    if problems:
        raise DataError(f"the columns of {table.name} do not fit: {'; '.join(problems)}")


def _unknown(columns: Sequence[str]) -> list[str]:
    if not columns:
        return []
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    named = ", ".join(f"`{column}`" for column in columns[:_SHOWN])
    index = " (an index column? write the file without it)" if set(columns) & set(_INDEXES) else ""
    return [f"unknown column{'s' * (len(columns) > 1)}: {named}{more}{index}"]


def _can_hold(dtype: pl.DataType, field: Field) -> bool:
    if field.is_number:
        return dtype.is_numeric() or dtype in (pl.String, pl.Null)
    return dtype in (*_TEXTS, pl.Null) or dtype.is_float()  # pandas makes floats of texts that are all missing


def _typed(raw: pl.DataFrame, source: str, start: int) -> pl.DataFrame:
    typed = pl.DataFrame([(_number if f.is_number else _text)(f, raw[f.name]) for f in INPUTS])
    problems = [problem for f in INPUTS if (problem := _problem(f, raw[f.name], typed[f.name], start))]
    if problems:
        hint = _hint(raw)
        raise DataError(f"{source} has values that cannot be scored: {'; '.join(problems)}{hint}")
    return typed


def _sifted(raw: pl.DataFrame, start: int, needed: Collection[str], today: date) -> Sifted:
    discharged = [DISCHARGED_ON] if DISCHARGED_ON in raw.columns else []
    raw = raw.select(*(f.name for f in INPUTS), *discharged)
    typed = pl.DataFrame([(_number if f.is_number else _text)(f, raw[f.name]) for f in INPUTS])
    reasons = [
        pl.select(pl.when(wrong).then(pl.lit(_reason(f, f.name in needed)))).to_series().alias(f.name)
        for f in INPUTS
        if (wrong := _wrong(f, raw[f.name], typed[f.name], f.name in needed)) is not None
    ]
    if discharged:
        typed = typed.with_columns(days(raw[DISCHARGED_ON]))
        reasons += _not_discharged(typed[DISCHARGED_ON], today)
    if not reasons:
        nothing = dict.fromkeys(("reason", *raw.columns), pl.String)
        return Sifted(typed, pl.DataFrame(schema={"row": pl.Int64, **nothing}))
    said = pl.DataFrame(reasons).select(pl.concat_str(pl.all(), separator="; ", ignore_nulls=True)).to_series()
    fits = said == ""
    rows = pl.int_range(start + 1, start + raw.height + 1, eager=True).alias("row")
    quarantined = raw.cast(pl.String).with_columns(rows, said.alias("reason")).filter(~fits)
    return Sifted(typed.filter(fits), quarantined.select("row", "reason", *raw.columns))


def _not_discharged(found: pl.Series, today: date) -> list[pl.Series]:
    """The reason of each row that has no day of discharge, or one that is still to come; nothing where all have one."""
    none, later = found.is_null(), (found > today).fill_null(value=False)
    if not (none | later).any():
        return []
    missing, coming = pl.lit(f"{DISCHARGED_ON} is missing or not {DAY}"), pl.lit(f"{DISCHARGED_ON} is still to come")
    return [pl.select(pl.when(none).then(missing).when(later).then(coming).alias(DISCHARGED_ON)).to_series()]


def _reason(field: Field, needed: bool) -> str:
    return f"{field.name} is {'missing or ' if needed else ''}not {field.rule}"


def _hint(raw: pl.DataFrame) -> str:
    """What to do where missing values are written in another way, or `None` is gone, as pandas reads it as missing."""
    if not any(_missing(FIELD[name], raw[name], texts=("",)).any() for name in _MEASURED):
        return hint_of_missing(raw)
    return (
        f". {' and '.join(_MEASURED)} say `{NOT_MEASURED}` where nothing was measured, which pandas reads as missing: "
        "read the file with keep_default_na=False, or score it with --empty-means-not-measured"
    )


def _identifier(values: pl.Series) -> pl.Series:
    """Identifiers as the file writes them: texts stay texts, without the `.0` that pandas writes behind floats."""
    number = values.cast(pl.Int64, strict=False)
    if values.dtype != pl.String:
        return number
    if number.null_count() == values.null_count():
        return values
    texts = values.str.strip_suffix(".0")
    return pl.select(pl.when(texts != "").then(texts).alias(values.name)).to_series()


def _number(field: Field, values: pl.Series) -> pl.Series:
    """The numbers that the field may have; null for any other value."""
    number = _whole(values) if field.is_whole_number else values.cast(pl.Float64, strict=False)
    fits = number.is_between(*field.bounds)
    if field.is_whole_number and (values.dtype.is_float() or values.dtype.is_decimal()):
        fits &= (number == values) & (number <= _EXACT.get(values.dtype, 2**63 - 1))
    if not fits.all():
        number = pl.select(pl.when(fits).then(number).alias(field.name)).to_series()
    return number.cast(DTYPES[field.name])


def _whole(values: pl.Series) -> pl.Series:
    number = values.cast(pl.Int64, strict=False)
    if values.dtype == pl.String and number.null_count() > values.null_count():
        number = values.str.strip_suffix(".0").cast(pl.Int64, strict=False)  # as pandas writes floats
    return number


def _text(field: Field, values: pl.Series) -> pl.Series:
    """The texts that the field may have, as an enumeration; null for any other."""
    if values.dtype.is_float():
        values = pl.Series(values.name, [None] * len(values), pl.String)
    values = values.cast(pl.String)
    if field.closed:
        return values.cast(pl.Enum([str(code) for code in field.codes]), strict=False)
    found = values.unique()  # few: looking at these is cheaper than at every row
    kept = found.filter(found.str.len_chars().is_between(1, LONGEST_TEXT) & (found != MISSING))
    return values.cast(pl.Enum(kept), strict=False)


def _problem(field: Field, values: pl.Series, typed: pl.Series, start: int) -> str | None:
    wrong = _wrong(field, values, typed)
    if wrong is None:
        return None
    said = f"{field.name} is {'' if field.may_be_missing else 'missing or '}not {field.rule}"
    if not field.is_number and values.dtype.is_float():
        said += " but a number (in pandas, read it with dtype=str)"
    return f"{said} in {wrong.sum()} rows, the first is {start + int(wrong.arg_max() or 0) + 1}"


def _wrong(field: Field, values: pl.Series, typed: pl.Series, needed: bool = False) -> pl.Series | None:
    """Mask of the values that do not fit; None where all fit."""
    may_be_missing = not needed and field.may_be_missing
    if typed.null_count() == (values.null_count() if may_be_missing else 0):
        return None
    wrong = typed.is_null() & ~_missing(field, values) if may_be_missing else typed.is_null()
    return wrong if wrong.any() else None


def _missing(field: Field, values: pl.Series, texts: tuple[str, ...] = MISSING_TEXTS) -> pl.Series:
    if values.dtype.is_float():
        return values.is_null() | values.is_nan()
    if values.dtype in _TEXTS:
        return values.is_null() | values.cast(pl.String).is_in(texts if field.nullable else ("",))
    return values.is_null()
