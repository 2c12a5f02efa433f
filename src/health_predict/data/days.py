"""Parses days in files: ISO 8601, with or without a time."""

from datetime import date

import polars as pl

from health_predict.data.schema import MISSING

DAY = "a day as 2026-01-31 or 2026-01-31T14:05 (a spreadsheet's column: format it as yyyy-mm-dd)"

_ISO = r"^\d{4}-\d\d-\d\d([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$"
_FIRST = date(1970, 1, 2)  # 1970-01-01 and 1900-01-01 are what systems write for no day
_TEXTS = (pl.String, pl.Categorical, pl.Enum)


def days(values: pl.Series) -> pl.Series:
    """The day (pl.Date) of each value, in the value's own time zone; null where it is missing or invalid.

    Texts are ISO 8601; a day before 1970-01-02 is invalid.

    >>> days(pl.Series(["2026-01-31", "2026-01-31T23:30-05:00", "31/01/2026", "46053", None])).to_list()
    [datetime.date(2026, 1, 31), datetime.date(2026, 1, 31), None, None, None]
    """
    if values.dtype in _TEXTS:
        texts = values.cast(pl.String).str.strip_chars()
        iso = pl.select(pl.when(texts.str.contains(_ISO)).then(texts.str.slice(0, 10))).to_series()
        found = iso.str.to_date("%Y-%m-%d", strict=False)
    elif values.dtype == pl.Date:
        found = values
    elif values.dtype == pl.Datetime:
        found = values.dt.date()
    else:
        found = pl.Series([None] * len(values), dtype=pl.Date)
    return pl.select(pl.when(found >= _FIRST).then(found).alias(values.name)).to_series()


def no_day(values: pl.Series) -> pl.Series:
    """Whether each value is missing: null, an empty text or `?`."""
    if values.dtype in _TEXTS:
        return values.is_null() | values.cast(pl.String).str.strip_chars().is_in(["", MISSING])
    return values.is_null()
