import polars as pl
from hypothesis import given
from hypothesis import strategies as st

import factories
from health_predict.data.batches import batches
from health_predict.data.splits import split
from health_predict.params import SplitParams

TABLE = factories.encounters(400)


@given(count=st.integers(10, 300), returns=st.randoms(use_true_random=False), seed=st.integers(0, 2**32 - 1))
def test_no_patient_is_on_two_sides_of_a_split(count, returns, seed):
    patients = [900_000_001 + (row if row < 10 else returns.randrange(count)) for row in range(TABLE.height)]
    cohort = TABLE.with_columns(patient_nbr=pl.Series(patients, dtype=pl.Int64))
    splits = split(cohort, SplitParams(initial_share=0.5, seed=seed))
    sides = [set(part["patient_nbr"]) for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    rows = pl.concat([splits.train, splits.validation, splits.test, splits.future])
    assert rows.sort("encounter_id").equals(cohort)


@given(count=st.integers(1, 12), first=st.sampled_from(TABLE["encounter_id"].to_list()))
def test_batches_hold_every_encounter_once_in_order(count, first):
    params = SplitParams(batches=count, first_unordered_id=first)
    ordered = TABLE.filter(pl.col("encounter_id") < first).height
    if count > 1 and 0 < ordered < count - 1:
        return  # too few of the first scheme for a batch each: refused, see the unit test
    parts = batches(TABLE, params)
    assert len(parts) == count
    assert pl.concat(parts).equals(TABLE)
