"""Advice on tables in which another program wrote missing values as texts."""

import polars as pl

from health_predict.data.schema import MISSING

_FOREIGN = ("NA", "N/A", "NULL", "null", "NaN", "nan")


def hint_of_missing(table: pl.DataFrame) -> str:
    """A sentence for the end of a message where R, SQL or pandas wrote missing values as texts; "" elsewhere."""
    texts = table.select(pl.col(pl.String))
    found = [text for text in _FOREIGN if any((column == text).any() for column in texts)]
    if not found:
        return ""
    named = " and ".join(f"`{text}`" for text in found)
    return f'. {named} is a text here: write `{MISSING}`, or nothing, where a value is missing (in R: na = "{MISSING}")'
