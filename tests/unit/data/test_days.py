"""Days as files say them, and from which day an outcome counts."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from health_predict.data.days import days, no_day
from health_predict.data.maturity import counts
from health_predict.data.order import by_time
from health_predict.params import SplitParams

DAY = date(2026, 1, 31)
LAG = 60


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        " 2026-01-31 ",
        "2026-01-31T14:05",
        "2026-01-31 14:05:59",
        "2026-01-31T23:59:59.999Z",
        "2026-01-31T00:05:00+09:00",
        "2026-01-31T23:55:00-0500",
    ],
)
def test_a_day_is_that_of_the_place_where_it_was_written(text):
    assert days(pl.Series([text])).to_list() == [DAY]


@pytest.mark.parametrize(
    "text",
    [
        "31/01/2026", "1/31/26", "31.01.2026", "20260131", "46053", "46053.5", "Jan 31, 2026", "2026-1-31",
        "2026-02-30", "2026-13-01", "2026-01-31T24:00", "2026-01-31T9:05", "1899-12-30", "1900-01-01",
        "1970-01-01", "0026-01-31", "2026-01", "NA",
        "\u0662026-01-31",
    ],
)  # fmt: skip
def test_anything_else_is_no_day_and_not_missing(text):
    assert days(pl.Series([text])).to_list() == [None]
    assert no_day(pl.Series([text])).to_list() == [False]


def test_columns_of_dates_are_read_and_numbers_are_none():
    assert days(pl.Series([DAY, None])).to_list() == [DAY, None]
    late = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    assert days(pl.Series([late])).to_list() == [DAY]
    assert days(pl.Series([late]).dt.convert_time_zone("Asia/Tokyo")).to_list() == [DAY + timedelta(days=1)]
    assert days(pl.Series([46053, 46054])).to_list() == [None, None]
    assert days(pl.Series([date(1900, 1, 1), date(1970, 1, 1)])).to_list() == [None, None]
    assert no_day(pl.Series(["", "?", None, "2026"])).to_list() == [True, True, True, False]


@pytest.mark.parametrize(
    ("outcome", "as_of", "latest", "expected"),
    [
        ("NO", 90, 90, True),
        ("NO", 89, 200, False),
        (">30", 90, 90, True),
        (">30", 31, 200, False),
        ("NO", None, 200, False),
        ("<30", 5, 90, True),
        ("<30", 5, 89, False),
        ("<30", None, 90, True),
        ("<30", None, None, False),
    ],
)
def test_an_outcome_counts_from_its_day_on(outcome, as_of, latest, expected):
    def day(number: int | None) -> date | None:
        return None if number is None else DAY + timedelta(days=number)

    types = {"readmitted": pl.String, "as_of": pl.Date, "discharged_on": pl.Date}
    said = pl.DataFrame([(outcome, day(as_of), DAY), (outcome, day(as_of), None)], schema=types, orient="row")
    assert counts(said, day(latest), LAG).to_list() == [expected, True]


@given(data=st.data())
def test_an_order_by_time_keeps_each_encounter_once_and_those_of_one_day_as_in_the_file(data):
    table = factories.encounters(60)
    mixed = table.sample(fraction=1, shuffle=True, seed=data.draw(st.integers(0, 99)))
    offsets = data.draw(st.lists(st.integers(0, 9), min_size=60, max_size=60).filter(lambda one: len(set(one)) > 1))
    when = pl.Series([DAY + timedelta(days=one) for one in offsets])
    ordered, _ = by_time(mixed, when, "day", SplitParams(), 90)
    ids = mixed["encounter_id"].to_list()
    expected = [ids[place] for place in sorted(range(60), key=lambda place: offsets[place])]
    assert ordered["encounter_id"].to_list() == expected
    assert ordered.columns == table.columns
