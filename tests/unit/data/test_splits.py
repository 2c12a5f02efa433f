import polars as pl
import pytest

import factories
from health_predict.data.splits import split
from health_predict.errors import DataError
from health_predict.params import SplitParams

TABLE = factories.encounters(2_000)


def test_split_keeps_shares_and_file_order():
    splits = split(TABLE, SplitParams())
    initial = [splits.train, splits.validation, splits.test]
    assert splits.future.equals(TABLE[400:])
    assert pl.concat(initial).sort("encounter_id").equals(TABLE[:400])
    assert all(part["encounter_id"].is_sorted() for part in initial)
    patients = TABLE[:400]["patient_nbr"].n_unique()
    assert [part["patient_nbr"].n_unique() / patients for part in initial] == pytest.approx([0.7, 0.15, 0.15], abs=0.01)


def test_split_depends_on_the_seed_and_on_nothing_else():
    first = split(TABLE, SplitParams(seed=1))
    assert first.train.equals(split(TABLE, SplitParams(seed=1)).train)
    assert not first.train.equals(split(TABLE, SplitParams(seed=2)).train)


def test_returning_patients_stay_in_the_future():
    splits = split(TABLE, SplitParams())
    assert splits.future["patient_nbr"].is_in(splits.train["patient_nbr"].to_list()).any()


def test_split_refuses_what_leaves_a_part_empty():
    with pytest.raises(DataError, match="nothing is left for validation, test"):
        split(TABLE[:5], SplitParams())


def test_split_refuses_a_missing_patient():
    with pytest.raises(DataError, match="patient_nbr is missing"):
        split(TABLE.with_columns(patient_nbr=pl.lit(None, pl.Int64)), SplitParams())
