import polars as pl
import pytest
from polars.testing import assert_frame_equal

from factories import encounters
from health_predict.data.cohort import select_cohort
from health_predict.data.decode import decode, encode
from health_predict.data.schema import CLINICAL, FIELD, OUTCOME
from health_predict.data.validation import DTYPES, validate
from health_predict.errors import DataError
from health_predict.params import ScenarioParams, ValidationParams
from health_predict.simulation.scenarios import SCENARIOS, illness, inject

PARAMS = ScenarioParams()
BATCH = select_cohort(encounters(2_000, seed=6))
FITTING = [name for name, scenario in SCENARIOS.items() if not scenario.refused]


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("elapsed", [0, 3])
def test_only_possible_values_are_left(name, elapsed):
    found = inject(name, BATCH, elapsed, PARAMS)
    assert dict(found.schema) == DTYPES
    assert found["encounter_id"].is_unique().all()
    assert found["encounter_id"].is_in(BATCH["encounter_id"].implode()).all()
    checked = validate(decode(encode(found)), ValidationParams(max_quarantined_share=0.0))
    assert_frame_equal(checked.encounters, found)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_seed_gives_the_same_batch(name):
    assert_frame_equal(inject(name, BATCH, 1, PARAMS), inject(name, BATCH, 1, PARAMS))


def test_none_changes_nothing():
    assert_frame_equal(inject("none", BATCH, 5, PARAMS), BATCH)


@pytest.mark.parametrize("name", ["gradual_covariate_shift", "abrupt_covariate_shift", "label_shift"])
def test_shifts_choose_rows_and_change_none(name):
    found = inject(name, BATCH, 0, PARAMS)
    assert_frame_equal(found, BATCH.filter(pl.col("encounter_id").is_in(found["encounter_id"].implode())))


def test_a_gradual_shift_grows_until_it_is_where_an_abrupt_one_begins():
    everyone = BATCH.with_columns(illness=pl.Series(illness(BATCH)))

    def ill(name, elapsed):
        ids = inject(name, BATCH, elapsed, PARAMS).select("encounter_id")
        return ids.join(everyone, on="encounter_id")["illness"].mean()

    gradual = [ill("gradual_covariate_shift", elapsed) for elapsed in range(PARAMS.gradual_batches)]
    assert 0.02 < gradual[0] < gradual[1] < gradual[2] < gradual[3]
    assert gradual[3] == pytest.approx(ill("abrupt_covariate_shift", 0), abs=0.05)


def test_label_shift_multiplies_the_share_of_readmissions():
    before, after = ((table[OUTCOME] == "<30").mean() for table in (BATCH, inject("label_shift", BATCH, 0, PARAMS)))
    assert after == pytest.approx(PARAMS.label_shift * before, abs=0.002)


def test_concept_shift_changes_who_is_readmitted_and_not_how_many_or_what_they_look_like():
    found = inject("concept_shift", BATCH, 0, PARAMS)
    assert_frame_equal(found.drop(OUTCOME), BATCH.drop(OUTCOME))
    assert sorted(found[OUTCOME]) == sorted(BATCH[OUTCOME])

    def ill_when_readmitted(table):
        return illness(table)[(table[OUTCOME] == "<30").to_numpy()].mean()

    assert ill_when_readmitted(found) < ill_when_readmitted(BATCH) - 0.2


def test_coding_change_renames_diagnoses_and_nothing_else():
    found = inject("coding_change", BATCH, 0, PARAMS)
    changed = [field.name for field in CLINICAL if not found[field.name].equals(BATCH[field.name])]
    assert changed == ["diag_1", "diag_2", "diag_3"]
    assert (found["diag_1"] == "I50").sum() == (BATCH["diag_1"] == "428").sum() > 0


def test_a_missing_feed_is_a_column_that_may_be_empty_and_is():
    assert FIELD[PARAMS.missing_field].nullable
    assert inject("missing_feed", BATCH, 0, PARAMS)[PARAMS.missing_field].is_null().all()


def test_a_schema_break_is_refused_at_the_door():
    broken = inject("schema_break", BATCH, 0, PARAMS)
    with pytest.raises(DataError, match="time_in_hospital"):
        decode(broken.write_csv().encode())


@pytest.mark.parametrize(("name", "elapsed"), [("earthquake", 0), ("none", -1)])
def test_what_cannot_be_injected_is_said(name, elapsed):
    with pytest.raises(DataError, match=r"no scenario 'earthquake'; known are none|elapsed is -1"):
        inject(name, BATCH, elapsed, PARAMS)
