"""No outcome counts before its time, whatever is said in whatever order."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from health_predict.data.cohort import select_cohort
from health_predict.data.schema import OUTCOME
from health_predict.params import IntakeParams
from health_predict.steps.data.intake_encounters import intake_encounters
from health_predict.steps.data.intake_outcomes import intake_outcomes
from health_predict.store.batches import matured, read_matured
from health_predict.store.storage import Folder

COUNT = 8
LAG = 20
FIRST = date(2026, 1, 1)
PARAMS = IntakeParams(min_known=0.5, reporting_lag=LAG)
TABLE = select_cohort(factories.encounters(40)).head(COUNT)
IDS = TABLE["encounter_id"].to_list()


class Said(NamedTuple):
    who: int  # position of the encounter
    outcome: str
    day: int | None  # days after FIRST


def clock() -> datetime:
    return datetime(2026, 12, 31, tzinfo=UTC)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


discharges = st.lists(st.none() | st.integers(0, 40), min_size=COUNT, max_size=COUNT)
statements = st.lists(
    st.builds(Said, st.integers(0, COUNT - 1), st.sampled_from(["<30", ">30", "NO"]), st.none() | st.integers(0, 120)),
    min_size=1,
    max_size=30,
    unique_by=lambda one: (one.who, one.day),  # so that the newest does not depend on the order
)


def known(place: Path, days: Sequence[int | None], files: Sequence[Sequence[Said] | None]) -> list[dict[int, str]]:
    """What counts of each batch in the end, in order; None among the files is when the encounters arrive: those with
    a day of discharge and the others."""
    storage = Folder(str(place / "store"))
    for number, file in enumerate(files):
        if file is not None:
            source = place / f"{number}.csv"
            pl.DataFrame(
                {
                    "encounter_id": [IDS[one.who] for one in file],
                    OUTCOME: [one.outcome for one in file],
                    "as_of": ["" if one.day is None else str(day(one.day)) for one in file],
                }
            ).write_csv(source)
            intake_outcomes(storage, PARAMS, "me", str(source), clock=clock)
            continue
        raw = TABLE.drop(OUTCOME).with_columns(pl.all().cast(pl.String).fill_null("?"))
        raw = raw.with_columns(pl.Series("discharged_on", [None if one is None else str(day(one)) for one in days]))
        undated = raw.filter(pl.col("discharged_on").is_null()).drop("discharged_on")  # refused after files with days
        for name, part in (("undated", undated), ("dated", raw.drop_nulls())):
            source = place / f"encounters-{name}.csv"
            part.write_csv(source)
            intake_encounters(storage, PARAMS, "me", str(source), clock=clock)
    rows = (read_matured(storage, number).select("encounter_id", OUTCOME).iter_rows() for number in matured(storage))
    return [{IDS.index(who): became for who, became in batch} for batch in rows]


def that_may_count(days: Sequence[int | None], said: Sequence[Said]) -> dict[int, str]:
    """The rule, written once more: the newest statement about each encounter, if its time has come."""
    newest = {
        one.who: one for one in sorted(said, key=lambda one: -1 if one.day is None else one.day)
    }  # the last of each
    latest = max((one.day for one in said if one.day is not None), default=-1)
    found = {}
    for who, one in newest.items():
        discharged = days[who]
        due = None if discharged is None else discharged + 30 + LAG
        is_stated = due is None or (one.day is not None and one.day >= due)
        if is_stated or (one.outcome == "<30" and due is not None and latest >= due):
            found[who] = one.outcome
    return found


@given(days=discharges, said=statements, data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_outcome_counts_before_its_time_in_whatever_order_things_are_said(days, said, data):
    mixed = data.draw(st.permutations(said))
    cut = data.draw(st.integers(0, len(said)))
    files = data.draw(st.permutations([one for one in (mixed[:cut], mixed[cut:]) if one] + [None]))
    with TemporaryDirectory() as folder:
        found = known(Path(folder), days, files)
    allowed = that_may_count(days, said)
    dated = {who for who, discharged in enumerate(days) if discharged is not None}
    for whose in (dated, set(range(COUNT)) - dated):
        expected = {who: outcome for who, outcome in allowed.items() if who in whose}
        if whose and len(expected) >= PARAMS.min_known * len(whose):
            assert expected in found
        assert all(batch == expected for batch in found if batch.keys() & whose)
