"""Features that need no fitting: what they read, what they never read, and what odd values mean."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import factories
from health_predict.data.schema import FIELD, IDENTIFIERS, OUTCOME
from health_predict.data.validation import DTYPES
from health_predict.features.encounters import (
    ALL,
    HIDDEN,
    NUMBERS,
    Recorded,
    engineer,
)

TABLE = factories.encounters(300, seed=5)


def features_of(**values: str | int | None) -> dict[str, float | str]:
    """Features of one invented encounter with these values."""
    row = TABLE.head(1).with_columns(pl.lit(value, dtype=DTYPES[name]).alias(name) for name, value in values.items())
    return engineer(row).row(0, named=True)


def test_one_row_of_features_for_each_encounter_without_gaps():
    features = engineer(TABLE)
    assert features.columns == [*ALL.number_names, *ALL.category_names]
    assert features.height == TABLE.height
    assert set(features.select(ALL.number_names).dtypes) == {pl.Float64()}
    assert set(features.select(ALL.category_names).dtypes) == {pl.String()}
    assert not any(features.null_count().row(0))
    assert engineer(TABLE.clear()).is_empty()


def test_identifiers_and_the_outcome_change_no_feature():
    shuffled = TABLE.with_columns(
        pl.col("encounter_id").reverse() + 17,
        pl.col("patient_nbr").shuffle(seed=1),
        pl.col(OUTCOME).shuffle(seed=2),
    )
    assert_frame_equal(engineer(shuffled), engineer(TABLE))
    assert_frame_equal(engineer(TABLE.drop(*IDENTIFIERS, OUTCOME)), engineer(TABLE))


def test_no_feature_is_declared_on_an_identifier_or_the_outcome():
    read = {*ALL.coded_fields, *(number.field for number in NUMBERS if isinstance(number, Recorded))}
    assert read <= set(FIELD) - {*IDENTIFIERS, OUTCOME}


def test_other_encounters_of_the_patient_change_no_feature():
    patient = TABLE["patient_nbr"].mode().sort()[0]
    whole = TABLE.filter(pl.col("patient_nbr") == patient)
    assert whole.height > 1
    others = TABLE.filter(pl.col("patient_nbr") != patient)
    alone, crowded = engineer(whole.head(1)), engineer(pl.concat([whole.head(1), others, whole, whole]))
    assert_frame_equal(crowded.head(1), alone)
    assert_frame_equal(engineer(others), engineer(TABLE).filter(TABLE["patient_nbr"] != patient))


def test_not_measured_is_a_value_and_differs_from_missing():
    for field in ("A1Cresult", "max_glu_serum"):
        assert features_of(**{field: "None"})[field] == "None"
        assert features_of(**{field: None})[field] == "missing"
    assert features_of(A1Cresult="None")["hba1c_tested"] == 0
    assert features_of(A1Cresult="Norm")["hba1c_tested"] == 1
    assert features_of(A1Cresult=">8")["hba1c_tested"] == 1


@pytest.mark.parametrize("field", ["race", "payer_code", "admission_type_id", "discharge_disposition_id"])
def test_missing_and_unknown_codes_are_categories_of_their_own(field):
    odd = 99 if FIELD[field].is_whole_number else "Zzz"
    assert features_of(**{field: None})[field] == "missing"
    assert features_of(**{field: odd})[field] == "unknown"


def test_diagnoses_that_nobody_knows_add_nothing():
    for code, name in ((None, "missing"), ("xyz", "unknown"), ("000", "unknown")):
        features = features_of(diag_1=code, diag_2=code, diag_3=code)
        groups = [f"diag_{n}_{kind}" for n in (1, 2, 3) for kind in ("strack_group", "ccs_group", "category")]
        assert {features[group] for group in groups} == {name}
        assert features["comorbidities"] == features["charlson_index"] == features["diabetes_primary"] == 0


def test_spelling_of_a_diagnosis_does_not_matter():
    assert features_of(diag_1="8.45", diag_2="250.1", diag_3="v45.81") == features_of(
        diag_1="008", diag_2="250.10", diag_3="V45"
    )


@pytest.mark.parametrize("count", [number for number in NUMBERS if isinstance(number, Recorded)], ids=lambda n: n.field)
def test_counts_beyond_the_published_range_count_as_its_end(count):
    most = features_of(**{count.field: count.maximum})
    assert most[count.field] == count.maximum
    assert features_of(**{count.field: 30_000}) == most
    assert features_of(**{count.field: -1}) == features_of(**{count.field: 0}) == features_of(**{count.field: None})


def test_rates_per_day_have_no_zero_below_the_line():
    features = features_of(time_in_hospital=0, num_lab_procedures=30, num_medications=8)
    assert (features["labs_per_day"], features["medications_per_day"]) == (30, 8)
    assert features_of(time_in_hospital=4, num_lab_procedures=30)["labs_per_day"] == 7.5


def test_sums_over_fields():
    drugs = dict.fromkeys((name for name in ALL.coded_fields if FIELD[name].codes[:1] == ("No",)), "No")
    drugs = {name: "No" for name in drugs if name not in ("change", "diabetesMed")}
    features = features_of(
        **{**drugs, "insulin": "Up", "metformin": "Down", "glipizide": "Steady", "acarbose": "Up"},
        number_outpatient=1,
        number_emergency=2,
        number_inpatient=4,
        age="[70-80)",
    )
    assert [features[f"drugs_{name}"] for name in ("up", "down", "steady", "changed")] == [2, 1, 1, 3]
    assert features["utilisation"] == 7
    assert features["age_midpoint"] == 75


def test_a_comorbidity_named_twice_counts_once():
    once = features_of(diag_1="428", diag_2="250.00", diag_3=None)
    twice = features_of(diag_1="428", diag_2="250.00", diag_3="428")
    assert once["comorbidities"] == twice["comorbidities"] > 0
    assert once["charlson_index"] == twice["charlson_index"] > 0


def test_parts_of_the_charlson_index_are_not_features():
    assert HIDDEN
    assert not HIDDEN & set(engineer(TABLE).columns)
