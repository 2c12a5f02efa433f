import polars as pl
import pytest

import factories
from health_predict.data.batches import batches
from health_predict.errors import DataError
from health_predict.params import SplitParams

FUTURE = factories.encounters(103)


def test_batches_are_the_future_in_file_order_and_of_one_size():
    parts = batches(FUTURE, SplitParams(batches=10))
    assert pl.concat(parts).equals(FUTURE)
    assert {part.height for part in parts} == {10, 11}


@pytest.mark.parametrize(("tail", "late"), [(2, 1), (14, 1), (30, 3), (100, 9)])
def test_encounters_of_unknown_order_come_last_and_alone(tail, late):
    first = FUTURE["encounter_id"][-tail]
    parts = batches(FUTURE, SplitParams(batches=10, first_unordered_id=first))
    unordered = [set((part["encounter_id"] >= first).to_list()) for part in parts[10 - late :]]
    ordered = [set((part["encounter_id"] >= first).to_list()) for part in parts[: 10 - late]]
    assert unordered == [{True}] * late
    assert ordered == [{False}] * (10 - late)


def test_rows_of_unknown_order_are_never_ordered():
    shuffled = FUTURE.sample(fraction=1, shuffle=True, seed=3)
    parts = batches(shuffled, SplitParams(batches=4, first_unordered_id=1))
    assert pl.concat(parts).equals(shuffled)


def test_one_batch_is_the_whole_future():
    [only] = batches(FUTURE, SplitParams(batches=1, first_unordered_id=FUTURE["encounter_id"][-20]))
    assert only.equals(FUTURE)


def test_too_few_encounters_are_refused():
    with pytest.raises(DataError, match="3 encounters are too few for 10 batches"):
        batches(FUTURE[:3], SplitParams(batches=10))
