import msgspec
import numpy as np
import polars as pl
import pytest

from factories import encounters
from health_predict.data.cohort import label
from health_predict.data.schema import CLINICAL
from health_predict.errors import DataError
from health_predict.monitoring.reference import Reference, percentiles, profile, reliance, value_counts
from health_predict.params import DriftParams

PARAMS = DriftParams(replicates=20)
TABLE = encounters(800, seed=8)
SCORES = np.linspace(0.02, 0.5, 101)


def test_the_profile_counts_every_clinical_field_and_holds_no_identifier():
    found = profile(label(TABLE, "lt30"), SCORES, params=PARAMS)
    assert set(found.fields) == set(found.nulls) == {field.name for field in CLINICAL}
    assert {sum(counts.values()) for counts in found.fields.values()} == {found.rows} == {800}
    assert found.outcomes == (TABLE["readmitted"] == "<30").sum()
    document = msgspec.json.encode(found).decode()
    assert not any(str(number) in document for number in TABLE["patient_nbr"])


def test_the_profile_survives_its_file():
    found = profile(label(TABLE, "lt30"), SCORES, params=PARAMS)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Reference) == found


def test_the_same_encounters_give_the_same_profile():
    assert profile(label(TABLE, "lt30"), SCORES, params=PARAMS) == profile(label(TABLE, "lt30"), SCORES, params=PARAMS)


def test_missing_is_counted_and_none_measured_is_a_value():
    counts = value_counts(TABLE)
    assert counts["race"]["?"] == TABLE["race"].null_count()
    assert counts["A1Cresult"]["None"] == (TABLE["A1Cresult"] == "None").sum()


def test_scores_are_kept_as_percentiles_with_their_number():
    found = profile(label(TABLE, "lt30"), SCORES, params=PARAMS)
    assert (found.scores, found.scored) == (percentiles(SCORES), 101)
    assert found.scores == pytest.approx(SCORES)


def test_returning_patients_widen_the_null_of_what_stays_with_them():
    """Every patient twice, with the same race: the statistic of the race varies twice as much."""
    once = encounters(2_000, seed=9).with_columns(patient_nbr=pl.int_range(1, 2_001, dtype=pl.Int64))
    params = DriftParams(replicates=300)
    alone = profile(label(once, "lt30"), SCORES, params=params).nulls["race"]
    twice = profile(label(pl.concat([once, once]), "lt30"), SCORES, params=params).nulls["race"]
    assert twice.mean / alone.mean == pytest.approx(2.0, rel=0.15)


def test_a_model_relies_on_the_field_that_it_reads():
    shares = reliance(lambda table: (table["number_inpatient"].to_numpy() > 0) * 0.3, TABLE, seed=1)
    assert shares["number_inpatient"] == 1.0
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_model_that_answers_the_same_to_everything_has_no_importance_to_weigh():
    with pytest.raises(DataError, match="answers the same"):
        reliance(lambda table: np.full(len(table), 0.1), TABLE, seed=1)


@pytest.mark.parametrize(("table", "scores"), [(TABLE.head(0), SCORES), (TABLE, SCORES[:0])], ids=["rows", "scores"])
def test_nothing_to_profile_is_an_error(table, scores):
    with pytest.raises(DataError, match="empty"):
        profile(label(table, "lt30"), scores, params=PARAMS)
