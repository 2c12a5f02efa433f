"""What files of outcomes say of follow-up: two columns that they may have."""

from collections.abc import Mapping

import polars as pl

from health_predict.data.field import LONGEST_TEXT
from health_predict.data.schema import MISSING
from health_predict.errors import DataError
from health_predict.store.batches import FOLLOWED_UP
from health_predict.store.encounter_files import field_name
from health_predict.store.places import shown
from health_predict.store.table_files import Account, open_tables

WHEN = "followed_up_on"
FOLLOW_UP: Mapping[str, pl.DataType] = {
    FOLLOWED_UP: pl.String(),  # what was done, such as `telephone call`; NOTHING; null: it is not said
    WHEN: pl.Date(),  # null: it is not said
}
NOTHING = "none"

_PIECE = 65_536  # rows read at a time
_TEXTS = (pl.String(), pl.Date(), pl.Null())


def read_follow_up(source: str, endpoint: str | None = None) -> pl.DataFrame | None:
    """FOLLOW_UP for every row of a file of outcomes, in its order; None where no part has the column FOLLOWED_UP.

    Raises DataError where a text is longer than LONGEST_TEXT, or a day is none, or of nothing done.
    """
    found, said = [], False
    for table in open_tables(source, endpoint):
        names = [field_name(column) for column in table.columns]
        positions = {name: names.index(name) for name in ("encounter_id", *FOLLOW_UP) if name in names}
        said |= FOLLOWED_UP in positions
        wrong = [name for name in FOLLOW_UP if name in positions and table.types[positions[name]] not in _TEXTS]
        if wrong:
            raise DataError(f"the columns of {table.name} do not fit: {', '.join(wrong)} should hold texts")
        absent = [pl.lit(None, pl.String).alias(name) for name in FOLLOW_UP if name not in positions]
        for piece in table.pieces(positions, _PIECE, Account()):
            found.append(piece.with_columns(absent).select(pl.col(*FOLLOW_UP).cast(pl.String).str.strip_chars()))
    if not said:
        return None
    raw = pl.concat([pl.DataFrame(schema=dict.fromkeys(FOLLOW_UP, pl.String)), *found])
    raw = raw.with_columns(pl.all().replace({"": None, MISSING: None}))
    return _checked(raw, source)


def _checked(raw: pl.DataFrame, source: str) -> pl.DataFrame:
    nothing = pl.col(FOLLOWED_UP).str.to_lowercase() == NOTHING
    what = pl.when(nothing).then(pl.lit(NOTHING)).otherwise(FOLLOWED_UP).alias(FOLLOWED_UP)
    table = raw.select(what, pl.col(WHEN).str.to_date("%Y-%m-%d", strict=False))
    problems = {
        f"texts of {FOLLOWED_UP} longer than {LONGEST_TEXT} characters": table[FOLLOWED_UP].str.len_chars()
        > LONGEST_TEXT,
        f"values of {WHEN} that are no day as 2026-01-31": table[WHEN].is_null() & raw[WHEN].is_not_null(),
        f"values of {WHEN} where nothing was done": table[WHEN].is_not_null()
        & table[FOLLOWED_UP].fill_null(NOTHING).eq(NOTHING),
    }
    told = [f"{int(rows.sum() or 0)} {what}" for what, rows in problems.items() if rows.any()]
    if told:
        raise DataError(f"{shown(source)} has {', '.join(told)}")
    return table


def followed_up(statements: pl.DataFrame) -> pl.Series:
    """Was anything done for each encounter, Boolean; null where it is not said."""
    if FOLLOWED_UP not in statements.columns:
        return pl.Series(FOLLOWED_UP, [None] * statements.height, dtype=pl.Boolean)
    return statements[FOLLOWED_UP] != NOTHING
