from dataclasses import replace

import polars as pl
import pytest

from factories import encounters
from health_predict.data.schema import OUTCOME
from health_predict.data.splits import Supply, fresh, needed, pool, recalibration, retraining, supply
from health_predict.errors import DataError
from health_predict.params import AssemblyParams, GateParams

PARAMS = AssemblyParams(test_rows=120, validation_rows=80)
GATE = GateParams(min_rows=50, min_outcomes=5)
TABLE = encounters(2_000)
BATCHES = [TABLE.head(1_000), TABLE.slice(1_000, 500), TABLE.slice(1_500)]
NONE = TABLE["encounter_id"].head(0)


def patients(table: pl.DataFrame) -> set[int]:
    return set(table["patient_nbr"].to_list())


def ids(table: pl.DataFrame) -> set[int]:
    return set(table["encounter_id"].to_list())


def divided(batches=BATCHES, known=NONE, params=PARAMS, gate=GATE):
    return retraining(batches, pool(batches, known, params, gate), params, gate)


def test_test_and_validation_are_of_the_newest_batch_and_the_rest_is_trained_on():
    parts = divided()
    for part, rows in ((parts.test, 120), (parts.validation, 80)):
        assert ids(part) <= ids(BATCHES[-1])
        assert rows <= part.height < rows + 20
    held_out = patients(parts.test) | patients(parts.validation)
    expected = TABLE.filter(~pl.col("patient_nbr").is_in(list(held_out)))
    assert parts.train.equals(expected)


@pytest.mark.parametrize("size", [25, 50, 100, 250])
def test_a_hold_out_of_small_batches_goes_back_over_as_many_as_it_needs_and_no_further(size):
    batches = [TABLE.slice(start, size) for start in range(0, TABLE.height, size)]
    found = pool(batches, NONE, PARAMS, GATE)
    wanted = (PARAMS.test_rows + PARAMS.validation_rows) / PARAMS.max_share
    assert found.equals(TABLE.tail(found.height))
    assert wanted <= found.height < wanted + size
    parts = divided(batches)
    assert parts.test.height >= PARAMS.test_rows
    assert ids(parts.test) <= ids(found)


def test_what_is_known_is_held_out_from_nothing_and_trained_on_all_the_same():
    known = BATCHES[-1]["encounter_id"].gather_every(2)
    parts = divided(known=known)
    assert not (ids(parts.test) | ids(parts.validation)) & set(known)
    assert set(known) & ids(parts.train)
    assert sum(map(len, fresh(BATCHES, known))) == TABLE.height - len(known)


def test_fewer_encounters_are_divided_in_proportion():
    few = pool([BATCHES[-1]], NONE, replace(PARAMS, test_rows=4_000, validation_rows=2_000), GATE)
    parts = divided(params=replace(PARAMS, test_rows=4_000, validation_rows=2_000), batches=[TABLE.head(1_500), few])
    assert parts.test.height == pytest.approx(0.6 * TABLE.height, abs=10)
    assert parts.validation.height == pytest.approx(0.3 * TABLE.height, abs=10)
    assert not parts.train.is_empty()


@pytest.mark.parametrize(
    "gate",
    [GATE, replace(GATE, min_rows=100, min_outcomes=10), replace(GATE, min_outcomes=30), replace(GATE, min_rows=400)],
    ids=["few", "more", "many readmissions", "more than the test part should have"],
)
def test_from_as_many_as_are_needed_the_gate_gets_what_it_needs(gate):
    enough = needed(PARAMS, gate)
    height = next(rows for rows in range(TABLE.height) if supply(TABLE.tail(rows)).covers(enough))
    first, candidates = TABLE.head(TABLE.height - height), TABLE.tail(height)
    parts = retraining([first, candidates], pool([candidates], NONE, PARAMS, gate), PARAMS, gate)
    assert supply(parts.test).covers(Supply(gate.min_rows, gate.min_outcomes))
    assert not parts.validation.is_empty()


def test_what_is_calibrated_on_and_what_is_compared_on_share_no_patient_and_are_all_there_is():
    candidates = pool(BATCHES, NONE, PARAMS, GATE)
    validation, test = recalibration(candidates, PARAMS, GATE)
    assert not patients(validation) & patients(test)
    assert validation.height + test.height == candidates.height
    assert test.height >= PARAMS.test_rows


def test_supply_counts_readmissions_within_30_days():
    assert supply(TABLE) == Supply(2_000, int((TABLE[OUTCOME] == "<30").sum()))
    assert not Supply(10, 1).covers(Supply(10, 2))
    assert not Supply(9, 2).covers(Supply(10, 2))
    assert Supply(10, 2).covers(Supply(10, 2))


def test_the_same_batches_are_divided_the_same_and_another_batch_anew():
    assert divided().test.equals(divided().test)
    assert not divided(BATCHES[1:]).test.equals(divided().test)


def test_an_encounter_that_matured_twice_is_refused():
    with pytest.raises(DataError, match="twice"):
        divided([*BATCHES, BATCHES[0]])


@pytest.mark.parametrize("batches", [[], [TABLE.clear()]], ids=["no batch", "no rows"])
def test_nothing_to_divide_is_an_error(batches):
    with pytest.raises(DataError):
        divided(batches)
