"""Tests whether encounters are in chronological order."""

from datetime import timedelta

import polars as pl

from health_predict.data.schema import DISCHARGED_ON
from health_predict.errors import DataError
from health_predict.params import SplitParams


def share_off(days: pl.Series, within: int) -> float:
    """Share of encounters, 0 to 1, whose day differs by more than `within` days from the day at their place in
    chronological order; null days are left out. Files ordered by admission, or with a few wrong days, have shares near
    0, two sites' files joined end to end have a large one.

    >>> from datetime import date
    >>> share_off(pl.Series([date(2026, 1, 1), date(2026, 1, 3), date(2026, 1, 2)]), within=31)
    0.0
    >>> share_off(pl.Series([date(2026, 1, 1), date(2026, 9, 1), date(2026, 3, 1), date(2026, 12, 1)]), within=31)
    0.5
    """
    known = days.drop_nulls()
    off = (known - known.sort()).dt.total_days().abs() > within
    return int(off.sum()) / len(off) if len(off) else 0.0


def by_time(
    cohort: pl.DataFrame, days: pl.Series, column: str, params: SplitParams, due: int
) -> tuple[pl.DataFrame, list[str]]:
    """The cohort ordered by day of discharge (one day's encounters in file order) without undated encounters, and
    warnings about that order or the outcomes.

    `column` is the file's name for the days, `due` the number of days until an outcome is final. Raises DataError where
    too many encounters have no day, or all have the same.
    """
    undated = days.null_count()
    if undated > params.max_undated_share * cohort.height:
        raise DataError(
            f"{undated:,} of {cohort.height:,} encounters have no {column}, more than {params.max_undated_share:.1%} "
            "(SplitParams.max_undated_share): they have no place in time, and those who have would be a selection"
        )
    ordered = cohort.with_columns(days.alias(DISCHARGED_ON)).drop_nulls(DISCHARGED_ON)
    ordered = ordered.sort(DISCHARGED_ON, maintain_order=True)
    dated, warnings = ordered[DISCHARGED_ON], []
    if dated.n_unique() < 2:
        raise DataError(f"every encounter has the same {column}, which orders nothing")
    off = share_off(ordered.sort("encounter_id")[DISCHARGED_ON], params.days_off)
    if off > params.max_share_off:
        warnings.append(
            f"encounter_id does not increase with {column}: in its order {off:.1%} of encounters stand more than "
            f"{params.days_off} days from their place; is {column} when patients were discharged?"
        )
    recent = int((dated > dated[-1] - timedelta(days=due)).sum())
    warnings.append(
        f"{recent:,} encounters were discharged in the last {due} days before {dated[-1]}: unless the file was drawn "
        f"{due} days after it, readmissions of theirs are missing"
    )
    return ordered.drop(DISCHARGED_ON), warnings


def by_file(cohort: pl.DataFrame, days: pl.Series | None, column: str | None, params: SplitParams) -> list[str]:
    """Warnings against taking the file's order for chronological.

    `days` of discharge are in the order of the cohort, null where missing; None where the file has no such `column`.
    Raises DataError where the days contradict the file's order.
    """
    if days is not None:
        off = share_off(days, params.days_off)
        if off > params.max_share_off:
            raise DataError(
                f"the order of the file is not that of time: {off:.1%} of encounters stand more than {params.days_off} "
                f"days from their place by {column}. Divide by it: `health-predict data split --by-date {column}`"
            )
        return []
    ids = cohort.filter(pl.col("encounter_id") < params.first_unordered_id)["encounter_id"]
    places = ids.rank("ordinal").cast(pl.Int64) - 1 - pl.int_range(len(ids), eager=True)
    off = int((places.abs() > params.max_share_off * len(ids)).sum())
    if off <= params.max_share_off * len(ids):
        return []
    return [
        f"encounter_id does not increase in the file ({off / len(ids):.1%} of encounters stand elsewhere by it), and "
        f"nothing else says when: is its order that of time? A column {DISCHARGED_ON} with the day of discharge would "
        "tell, and --by-date would order by it"
    ]
