import polars as pl
import pytest

import factories
from health_predict.data.decode import decode
from health_predict.data.schema import FIELD
from health_predict.data.validation import DTYPES, InvalidValues, validate
from health_predict.errors import DataError
from health_predict.params import ValidationParams

LENIENT = ValidationParams(max_quarantined_share=0.5)


def _raw(**first_row: str) -> pl.DataFrame:
    """Ten raw rows, the first with the values given."""
    raw = decode(factories.raw_csv(factories.encounters(10)))
    first = pl.int_range(pl.len()) == 0
    return raw.with_columns(pl.when(first).then(pl.lit(v)).otherwise(name).alias(name) for name, v in first_row.items())


def test_good_rows_become_typed_encounters():
    result = validate(_raw(), ValidationParams())
    assert dict(result.encounters.schema) == DTYPES
    assert result.encounters.equals(factories.encounters(10))
    assert result.quarantined.is_empty()
    assert result.quarantined.columns == ["line", "reason", *DTYPES]
    assert result.summary == ()


def test_none_is_a_value_and_a_question_mark_is_missing():
    encounters = validate(_raw(A1Cresult="None", max_glu_serum="None", race="?", payer_code=""), LENIENT).encounters
    first = encounters.row(0, named=True)
    assert (first["A1Cresult"], first["max_glu_serum"]) == ("None", "None")
    assert (first["race"], first["payer_code"]) == (None, None)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("time_in_hospital", "three", "is not a whole number from 1 to 365"),
        ("time_in_hospital", "3.5", "is not a whole number from 1 to 365"),
        ("time_in_hospital", "0", "is not a whole number from 1 to 365"),
        ("time_in_hospital", "366", "is not a whole number from 1 to 365"),
        ("number_emergency", "-1", "is not a whole number from 0 to 500"),
        ("admission_type_id", "99999", "is not a whole number from 0 to 32767"),
        ("patient_nbr", "?", "is missing"),
        ("encounter_id", "", "is missing"),
        ("gender", "?", "is missing"),
        ("gender", "female", "is not one of Female, Male, Unknown/Invalid"),
        ("age", "[70-75)", f"is not {FIELD['age'].rule}"),
        ("A1Cresult", "?", "is missing"),
        ("insulin", "Often", "is not one of No, Steady, Up, Down"),
        ("readmitted", "N", "is not one of <30, >30, NO"),
        ("diag_1", "4" * 65, "is not a text of at most 64 characters"),
    ],
)
def test_a_bad_value_sends_its_row_to_the_quarantine_with_line_and_reason(column, value, reason):
    raw = _raw(**{column: value})
    result = validate(raw, LENIENT)
    assert result.encounters.equals(factories.encounters(10)[1:])
    assert result.quarantined.drop("line", "reason").equals(raw.head(1))
    assert result.quarantined.select("line", "reason").row(0) == (2, f"{column} {reason}")
    assert result.summary == (InvalidValues(column, reason, 1),)


@pytest.mark.parametrize(
    ("column", "value"),
    [("race", "Martian"), ("medical_specialty", "Telemedicine"), ("diag_1", "Z99.9"), ("admission_type_id", "12")],
)
def test_a_new_value_of_an_open_code_set_is_accepted(column, value):
    assert validate(_raw(**{column: value}), ValidationParams()).quarantined.is_empty()


def test_a_row_with_two_faults_has_both_reasons_and_is_counted_in_both():
    result = validate(_raw(gender="?", age="old"), LENIENT)
    assert result.quarantined["reason"].to_list() == [f"gender is missing; age is not {FIELD['age'].rule}"]
    assert {(finding.column, finding.rows) for finding in result.summary} == {("gender", 1), ("age", 1)}


def test_of_a_repeated_encounter_the_first_row_stays():
    raw = _raw()
    result = validate(pl.concat([raw, raw.head(2)]), LENIENT)
    assert result.encounters.equals(factories.encounters(10))
    assert result.quarantined["line"].to_list() == [12, 13]
    assert result.summary == (InvalidValues("encounter_id", "is in an earlier line too", 2),)


def test_too_many_bad_rows_refuse_the_dataset_without_repeating_a_value():
    with pytest.raises(
        DataError, match=r"1 of 10 rows .* gender is not one of Female, Male, Unknown/Invalid in 1 rows. First lines: 2"
    ) as told:
        validate(_raw(gender="secret"), ValidationParams(max_quarantined_share=0.05))
    assert "secret" not in str(told.value)
