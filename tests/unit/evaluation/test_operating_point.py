"""The threshold of a capacity flags as many as can be followed up, and never more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from health_predict.evaluation.operating_point import in_words, threshold_at
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


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            (0.2, 0.22, 0.396),
            "Of 100 discharges 20 are flagged; 4 of them are readmitted within 30 days, which is 40 of",
        ),
        (
            (1.0, 0.114, 1.0),
            "Of 100 discharges 100 are flagged; 11 of them are readmitted within 30 days, which is 100 of",
        ),
        (
            (0.05, 0.3, 0.13),
            "Of 1,000 discharges 50 are flagged; 15 of them are readmitted within 30 days, which is 13",
        ),
        (
            (0.0001, 1.0, 0.0009),
            "Of 10,000 discharges 1 is flagged; 1 of them is readmitted within 30 days, which is fewer",
        ),
        (
            (0.0002, 0.2, 0.0009),
            "Of 10,000 discharges 2 are flagged; fewer than 1 of them is readmitted within 30 days",
        ),
        ((0.2, 0.0, 0.0), "Of 100 discharges 20 are flagged; none of them is readmitted within 30 days."),
        ((0.0, 0.0, 0.0), "Of 100 discharges none is flagged."),
    ],
)
def test_the_operating_point_is_said_in_whole_discharges(shares, said):
    assert in_words(*shares).startswith(said)
