"""Drift of a table with itself is nothing, and what is not drift does not look like it."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import encounters
from health_predict.data.cohort import label
from health_predict.monitoring.drift import field_drift, jensen_shannon, psi, wasserstein
from health_predict.monitoring.reference import profile, statistic, value_counts
from health_predict.params import DriftParams

PARAMS = DriftParams(replicates=20)
TABLE = encounters(900, seed=2)
REFERENCE = profile(label(TABLE, "lt30"), np.array([0.1, 0.2]), params=PARAMS)
SETTINGS = settings(max_examples=40, deadline=None)

counts = st.lists(st.integers(0, 1_000), min_size=2, max_size=30).filter(any)


def table(first: list[int], second: list[int]) -> tuple[np.ndarray, np.ndarray]:
    cells = max(len(first), len(second))
    return tuple(np.array(found + [0] * (cells - len(found)), float) for found in (first, second))


def test_drift_of_a_table_with_itself_is_zero():
    drift = field_drift(REFERENCE, value_counts(TABLE), PARAMS)
    assert not drift.detected
    assert {field.distance for field in drift.fields} == {0.0}
    assert {field.statistic for field in drift.fields} == {0.0}
    assert {field.p_value for field in drift.fields} == {1.0}


@SETTINGS
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(seed):
    shuffled = TABLE[np.random.default_rng(seed).permutation(len(TABLE))]
    assert value_counts(shuffled) == value_counts(TABLE)


@SETTINGS
@given(first=counts, second=counts)
def test_distances_are_zero_to_themselves_never_negative_and_symmetric_where_they_should_be(first, second):
    a, b = table(first, second)
    values = np.arange(len(a), dtype=float)
    for distance in (psi, jensen_shannon, lambda x, y: wasserstein(values, x, y)):
        assert distance(a, a) == 0
        assert distance(a, b) >= 0
    assert jensen_shannon(a, b) == pytest.approx(jensen_shannon(b, a), abs=1e-7)
    for ordered in (True, False):
        assert statistic(a, b, ordered) == pytest.approx(statistic(b, a, ordered))


@SETTINGS
@given(first=counts, second=counts, times=st.integers(2, 50))
def test_distances_do_not_grow_with_the_number_of_rows(first, second, times):
    a, b = table(first, second)
    assert jensen_shannon(a, times * b) == pytest.approx(jensen_shannon(a, b), abs=1e-7)
    values = np.arange(len(a), dtype=float)
    assert wasserstein(values, a, times * b) == pytest.approx(wasserstein(values, a, b), abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.5, 1.0))
def test_p_values_are_probabilities(seed, share):
    rows = np.random.default_rng(seed).random(len(TABLE)) < share
    drift = field_drift(REFERENCE, value_counts(TABLE.filter(pl.Series(rows))), DriftParams(min_rows=100))
    assert all(0 <= field.p_value <= 1 for field in drift.fields)
    for found in (field.statistics for field in drift.fields):
        assert all(0 <= p <= 1 for p in (found.ks, found.chi_square) if p is not None)
