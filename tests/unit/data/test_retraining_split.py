from dataclasses import replace

import polars as pl
import pytest

from factories import encounters
from health_predict.data.splits import retraining
from health_predict.errors import DataError
from health_predict.params import AssemblyParams

PARAMS = AssemblyParams(test_rows=120, validation_rows=80)
TABLE = encounters(2_000)
BATCHES = [TABLE.head(1_000), TABLE.slice(1_000, 500), TABLE.slice(1_500)]


def patients(table: pl.DataFrame) -> set[int]:
    return set(table["patient_nbr"].to_list())


def test_test_and_validation_are_of_the_newest_batch_and_the_rest_is_trained_on():
    parts = retraining(BATCHES, PARAMS)
    newest = set(BATCHES[-1]["encounter_id"].to_list())
    for part, rows in ((parts.test, 120), (parts.validation, 80)):
        assert set(part["encounter_id"].to_list()) <= newest
        assert rows <= part.height < rows + 20
    held_out = patients(parts.test) | patients(parts.validation)
    expected = TABLE.filter(~pl.col("patient_nbr").is_in(list(held_out)))
    assert parts.train.equals(expected)


def test_a_small_newest_batch_is_divided_in_proportion():
    parts = retraining(BATCHES, replace(PARAMS, test_rows=4_000, validation_rows=2_000, max_share=0.9))
    newest = BATCHES[-1].height
    assert parts.test.height == pytest.approx(0.6 * newest, abs=10)
    assert parts.validation.height == pytest.approx(0.3 * newest, abs=10)
    assert not parts.train.is_empty()


def test_the_same_batches_are_divided_the_same_and_another_batch_anew():
    assert retraining(BATCHES, PARAMS).test.equals(retraining(BATCHES, PARAMS).test)
    assert not retraining(BATCHES[1:], PARAMS).test.equals(retraining(BATCHES, PARAMS).test)


def test_an_encounter_that_matured_twice_is_refused():
    with pytest.raises(DataError, match="twice"):
        retraining([*BATCHES, BATCHES[0]], PARAMS)


@pytest.mark.parametrize("batches", [[], [TABLE.clear()]], ids=["no batch", "no rows"])
def test_nothing_to_divide_is_an_error(batches):
    with pytest.raises(DataError):
        retraining(batches, PARAMS)
