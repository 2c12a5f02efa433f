import polars as pl

import factories
from health_predict.data.cohort import is_eligible, outcome, select_cohort


def test_cohort_leaves_out_the_dead_and_hospices_and_keeps_the_order():
    codes = [1, 11, 3, 13, 14, 19, 20, 21, 6, 12]
    table = factories.encounters(10).with_columns(discharge_disposition_id=pl.Series(codes, dtype=pl.Int16))
    cohort = select_cohort(table)
    assert cohort["discharge_disposition_id"].to_list() == [1, 3, 6, 12]
    assert cohort["encounter_id"].is_sorted()


def test_outcome_is_readmission_within_30_days_or_at_all():
    table = factories.encounters(3).with_columns(readmitted=pl.Series(["<30", ">30", "NO"]))
    assert outcome(table, "lt30").tolist() == [True, False, False]
    assert outcome(table, "any").tolist() == [True, True, False]


def test_an_encounter_whose_disposition_is_unknown_stays():
    table = factories.encounters(50).with_columns(discharge_disposition_id=pl.lit(None, pl.Int16))
    assert select_cohort(table).height == 50


def test_a_stay_that_ends_in_a_transfer_to_acute_care_or_against_advice_is_not_eligible():
    codes = [1, 2, 3, 6, 7, 9, 18, 27, 29, None]
    table = factories.encounters(10).with_columns(discharge_disposition_id=pl.Series(codes, dtype=pl.Int16))
    assert is_eligible(table).tolist() == [code not in (2, 7, 9, 27, 29) for code in codes]
