import warnings
from dataclasses import replace

import msgspec
import numpy as np
import polars as pl
import pytest

from factories import encounters
from health_predict.data.cohort import label, select_cohort
from health_predict.data.schema import CLINICAL, FIELD, MISSING
from health_predict.errors import DataError
from health_predict.monitoring.drift import discovery_threshold, field_drift, ks, statistics, unseen_p_value
from health_predict.monitoring.reference import Reference, profile, value_counts
from health_predict.params import DriftParams

PARAMS = DriftParams(replicates=60)
TABLE = select_cohort(encounters(9_000, seed=3))
BEFORE, AFTER = TABLE.head(5_000), TABLE.tail(3_000)
ILLER = AFTER.with_columns(pl.col("number_inpatient") + 2)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return profile(label(BEFORE, "lt30"), np.linspace(0.05, 0.4, 500), params=PARAMS)


def with_importance(reference: Reference, importance: dict[str, float]) -> Reference:
    return msgspec.structs.replace(reference, importance=importance)


def of(drift, name):
    return next(field for field in drift.fields if field.field == name)


@pytest.mark.parametrize("field", CLINICAL, ids=lambda field: field.name)
def test_every_statistic_equals_evidently_s(field):
    evidently = pytest.importorskip("evidently.legacy.calculations.stattests")
    from evidently.legacy.core import ColumnType

    kind = ColumnType.Numerical if field.is_quantity else ColumnType.Categorical
    tables = (BEFORE, ILLER)
    first, second = (
        (table[field.name] if field.is_quantity else table[field.name].cast(pl.String).fill_null(MISSING)).to_pandas()
        for table in tables
    )

    def expected(test):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.approx(test.func(first, second, kind, 0.1)[0], abs=1e-9)

    found = statistics(field, *(value_counts(table)[field.name] for table in tables))
    assert found.psi == expected(evidently.psi_stat_test)
    # A rounding error of 1e-16 below its root is 1e-8: compared where it is not a root of rounding.
    assert found.jensen_shannon**2 == pytest.approx(
        float(np.nan_to_num(evidently.jensenshannon_stat_test.func(first, second, kind, 0.1)[0])) ** 2, abs=1e-9
    )
    if field.is_quantity:
        assert found.wasserstein == expected(evidently.wasserstein_stat_test)
        assert found.ks == expected(evidently.ks_stat_test)
    elif first.nunique() > 1 or second.nunique() > 1:
        assert found.chi_square == expected(evidently.chi_stat_test)


@pytest.mark.parametrize("mean", [9.0, 9.1, 9.25, 10.0])
def test_ks_of_more_rows_than_the_exact_test_takes_equals_scipy_s(mean):
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    values = np.arange(40.0)
    first, second = (np.bincount(rng.poisson(rate, 12_000), minlength=40)[:40] for rate in (9.0, mean))
    expected = ks_2samp(np.repeat(values, first), np.repeat(values, second)).pvalue
    assert ks(values, first.astype(float), second.astype(float)) == pytest.approx(expected, abs=1e-9)


def test_encounters_of_the_same_kind_are_no_alarm(reference):
    drift = field_drift(reference, value_counts(AFTER), PARAMS)
    assert not drift.detected
    assert drift.importance_drifted == 0
    assert (drift.reference_rows, drift.rows) == (5_000, 3_000)


def test_drift_of_a_field_that_the_model_leans_on_is_an_alarm_that_names_it(reference):
    leaning = dict.fromkeys(reference.importance, 0.0) | {"number_inpatient": 1.0}
    drift = field_drift(with_importance(reference, leaning), value_counts(ILLER), PARAMS)
    assert drift.importance_drifted == 1.0
    assert "number_inpatient" in drift.reasons[0]
    assert of(drift, "number_inpatient").statistic > of(drift, "number_inpatient").threshold


def test_the_same_drift_is_a_note_where_the_model_does_not_read_the_field(reference):
    elsewhere = dict.fromkeys(reference.importance, 0.0) | {"age": 1.0}
    drift = field_drift(with_importance(reference, elsewhere), value_counts(ILLER), PARAMS)
    assert of(drift, "number_inpatient").drifted
    assert not drift.detected
    assert "number_inpatient" in drift.notes[0]


def test_administrative_drift_is_a_note_and_counts_apart(reference):
    rebilled = AFTER.with_columns(pl.lit("WC").alias("payer_code"))
    drift = field_drift(reference, value_counts(rebilled), PARAMS)
    assert of(drift, "payer_code").drifted
    assert not drift.detected
    assert drift.importance_drifted == 0
    assert drift.administrative_drifted == pytest.approx(reference.importance["payer_code"])
    assert "payer_code" in drift.notes[0]


def test_a_column_that_goes_empty_is_an_alarm(reference):
    empty = AFTER.with_columns(pl.lit(None, pl.String).alias("diag_1"))
    drift = field_drift(reference, value_counts(empty), PARAMS)
    assert of(drift, "diag_1").missing == 1.0
    assert any("diag_1 is missing in 100% of encounters" in reason for reason in drift.reasons)


def test_a_count_that_goes_empty_is_an_alarm_too(reference):
    empty = AFTER.with_columns(pl.lit(None, pl.Int32).alias("num_medications"))
    drift = field_drift(reference, value_counts(empty), PARAMS)
    assert any("num_medications is missing" in reason for reason in drift.reasons)


def test_codes_that_training_never_saw_are_an_alarm_without_being_repeated(reference):
    renamed = AFTER.with_columns(pl.col("diag_1").replace({"428": "I50"}))
    drift = field_drift(reference, value_counts(renamed), PARAMS)
    assert of(drift, "diag_1").unknown == pytest.approx((renamed["diag_1"] == "I50").mean())
    assert any("diag_1 were never seen" in reason for reason in drift.reasons)
    assert "I50" not in " ".join(drift.reasons + drift.notes)


def test_a_rare_value_that_chance_kept_from_training_is_no_alarm(reference):
    """A field that is given for few encounters: a handful with a value of its own is 4% of them, and nothing."""
    before = {MISSING: 4_850, "[75-100)": 100, "[50-75)": 49, ">200": 1}
    now = {MISSING: 2_895, "[75-100)": 70, "[50-75)": 31, "[150-175)": 4}
    counts = dict(value_counts(AFTER)) | {"weight": now}
    drift = field_drift(
        msgspec.structs.replace(reference, fields=reference.fields | {"weight": before}), counts, PARAMS
    )
    assert of(drift, "weight").unknown > PARAMS.max_unknown
    assert of(drift, "weight").unknown_p_value > 0.05
    assert not any("weight" in reason for reason in drift.reasons)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": 99, "b": 1}, {"a": 100}, 1.0),
        ({"a": 100}, {"a": 97, "new": 3}, 0.125),
        ({MISSING: 50, "a": 99, "b": 1}, {"a": 98, "new": 2}, 0.5),
    ],
    ids=["nothing new", "nothing rare before", "one was new"],
)
def test_new_values_are_as_likely_as_values_that_came_once(before, now, expected):
    assert unseen_p_value(before, now) == pytest.approx(expected)


def test_a_difference_that_chance_does_not_explain_but_is_tiny_is_no_drift(reference):
    def many(counts):
        return {name: {value: 500 * count for value, count in found.items()} for name, found in counts.items()}

    shifted = BEFORE.with_columns(pl.col("num_medications") + (pl.int_range(pl.len()) % 20 == 0))
    large = msgspec.structs.replace(reference, fields=many(reference.fields), rows=500 * reference.rows)
    drift = field_drift(large, many(value_counts(shifted)), PARAMS)
    assert of(drift, "num_medications").statistic > of(drift, "num_medications").threshold
    assert not any(field.drifted for field in drift.fields)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (AFTER.head(499), "499 encounters"),
        (AFTER.head(0), "0 encounters"),
    ],
    ids=["few", "none"],
)
def test_a_batch_too_small_to_judge_is_an_error_not_no_drift(reference, batch, message):
    with pytest.raises(DataError, match=message):
        field_drift(reference, value_counts(batch), PARAMS)


def test_a_batch_without_a_field_is_an_error_that_names_it(reference):
    with pytest.raises(DataError, match="lack insulin"):
        value_counts(AFTER.drop("insulin"))
    counts = {name: found for name, found in value_counts(AFTER).items() if name != "age"}
    with pytest.raises(DataError, match="the batch's counts lack age"):
        field_drift(reference, counts, PARAMS)


def test_counts_that_do_not_add_up_are_an_error(reference):
    counts = dict(value_counts(AFTER)) | {"age": {"[70-80)": 1}}
    with pytest.raises(DataError, match="do not add up"):
        field_drift(reference, counts, PARAMS)


def test_statistics_of_a_field_without_encounters_are_an_error():
    with pytest.raises(DataError, match="no encounters"):
        statistics(FIELD["race"], {"Asian": 3}, {})


def test_discoveries_follow_benjamini_and_hochberg():
    # Their own example (1995, section 3.2): four of fifteen at .05.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    p += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    cut = discovery_threshold(np.array(p), 0.05)
    assert sum(value <= cut for value in p) == 4
    assert discovery_threshold(np.array([0.5, 0.9]), 0.05) == pytest.approx(0.025)


def test_the_false_alarm_rate_is_kept_where_patients_come_back():
    """At a rate of 30% and without the demand for an effect, about 10% of the batches show any discovery."""
    strict = replace(PARAMS, false_alarm_rate=0.30, min_effect=0.0, min_importance=0.0)
    people = TABLE["patient_nbr"].unique().sort().to_numpy()
    alarms = 0
    for seed in range(20):
        first = np.random.default_rng(seed).random(len(people)) < 0.6
        chosen = pl.col("patient_nbr").is_in(people[first].tolist())
        reference = profile(label(TABLE.filter(chosen), "lt30"), np.array([0.1]), params=strict)
        drift = field_drift(reference, value_counts(TABLE.filter(~chosen)), strict)
        alarms += any(field.drifted for field in drift.fields)
    assert alarms <= 6  # P(more than 6 of 20 at 10%) is .002
