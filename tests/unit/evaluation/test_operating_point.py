"""The threshold of a capacity flags as many as can be followed up, and never more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from health_predict.evaluation.operating_point import threshold_at
from health_predict.params import CAPACITIES, BundleParams

CAPACITY = st.floats(*CAPACITIES)
ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=40)


@given(ROWS, CAPACITY, st.booleans())
def test_at_most_the_capacity_is_flagged_and_the_next_risk_would_be_too_many(rows, capacity, weighted):
    risks = np.array([risk for risk, _ in rows]) / 12
    represents = np.array([float(stands_for) for _, stands_for in rows]) + (0 if weighted else 1)
    represents = represents if represents.any() else represents + 1
    threshold = threshold_at(capacity, risks, represents)
    flagged = risks >= threshold
    assert represents[flagged].sum() <= capacity * represents.sum() * (1 + 1e-9)
    assert represents[risks >= risks[~flagged].max()].sum() > capacity * represents.sum()


@pytest.mark.parametrize("capacity", [0.07, 0.2, 0.29, 0.57, 0.99])
def test_exactly_the_capacity_is_flagged_where_all_risks_differ(capacity):
    risks = np.random.default_rng(1).permutation(100) / 100
    assert (risks >= threshold_at(capacity, risks)).sum() == round(100 * capacity)


def test_rounding_of_a_risk_flags_nobody_else():
    risks = np.random.default_rng(2).random(500)
    threshold = threshold_at(0.2, risks)
    assert np.array_equal(risks >= threshold, risks.astype(np.float32) >= threshold)


@pytest.mark.parametrize("risk", [0.0, 0.1, 1.0])
def test_nobody_is_flagged_where_all_risks_are_equal(risk):
    assert threshold_at(0.5, np.full(10, risk)) > risk


@pytest.mark.parametrize("capacity", [0.0, 0.009, 1.0, 20.0, float("nan")])
def test_a_capacity_that_is_no_share_to_plan_for_is_refused(capacity):
    with pytest.raises(ValueError, match=r"a share of discharges from 0.01 to 0.99, not"):
        BundleParams(capacity=capacity)
