"""When an outcome counts: from discharge + 30 days + reporting lag on, where the day of discharge is known."""

from datetime import date

import polars as pl

from health_predict.data.schema import DISCHARGED_ON, OUTCOME

AS_OF = "as_of"  # the day as of which a statement is made
WINDOW = 30  # days after discharge in which a readmission counts


def final_from(discharged_on: pl.Expr, lag: int) -> pl.Expr:
    """The day from which an outcome is final: discharge + 30 days + `lag` days."""
    return discharged_on + pl.duration(days=WINDOW + lag)


def counts(said: pl.DataFrame, latest: date | None, lag: int) -> pl.Series:
    """Whether each outcome counts, shape (rows of `said`,): it is final, and its day has come.

    One row of `said` is an encounter with its newest statement: OUTCOME, AS_OF (Date; null: not stated) and
    DISCHARGED_ON (Date; null: not known). `latest` is the last day in AS_OF of any statement, `lag` the days after the
    window until a readmission is reported.

    - Without a day of discharge an outcome counts as soon as it is stated.
    - `NO` and `>30` count if stated as of discharge + 30 + lag or later. Stated as of an earlier day, or of none, they
      leave the outcome unknown: a readmission may have happened or been reported since.
    - `<30` is final whenever it was stated, as waiting cannot undo it. It counts once `latest` is discharge + 30 + lag
      or later: before, readmissions would be known and their absence not, and the outcome rate would be too high.
    """
    due = final_from(pl.col(DISCHARGED_ON), lag)
    stated = pl.col(AS_OF) >= due
    happened = (pl.col(OUTCOME) == "<30") & (pl.lit(latest, pl.Date) >= due)
    return said.select((pl.col(DISCHARGED_ON).is_null() | stated | happened).fill_null(value=False)).to_series()
