"""What a model is judged on and learns from does not depend on whether its flags helped, and does if one looks away."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from health_predict.data.follow_up import FollowUp, represent
from health_predict.evaluation.metrics import auroc
from health_predict.params import FollowUpParams, ScenarioParams
from health_predict.simulation.scenarios import follow_up

ROWS = 30_000
PARAMS = FollowUpParams()


def world(seed: int, ratio: float, share: float):
    """Calibrated risks; outcomes without and with follow-up of those from .15 on; and whom each represents."""
    rng = np.random.default_rng(seed)
    risks = rng.beta(1.5, 10, ROWS)
    untreated = rng.random(ROWS) < risks
    readmitted = pl.Series(np.where(untreated, "<30", "NO"))
    params = ScenarioParams(follow_up_ratio=ratio, follow_up_share=share, seed=seed)
    followed_up, became = follow_up(readmitted, risks >= 0.15, 0, params)
    seen = (became == "<30").to_numpy()
    found = represent(seen, FollowUp.of(risks, 0.15, pl.Series(followed_up)), PARAMS)
    return risks, untreated, seen, found


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 1.0), st.floats(0.1, 0.8))
@settings(max_examples=25, deadline=None)
def test_weighted_outcomes_are_those_without_follow_up(seed, ratio, share):
    risks, untreated, seen, found = world(seed, ratio, share)
    assert found.unknown is None
    assert found.weights.sum() == pytest.approx(ROWS)
    assert found.weights @ risks == pytest.approx(risks.sum(), rel=0.02)
    # Readmissions of the flagged, some 2,300 of which at least a fifth was not followed up: six errors.
    assert found.weights @ seen == pytest.approx(untreated.sum(), rel=0.16)
    counted = found.weights > 0
    weighted = auroc(seen[counted], risks[counted], found.weights[counted])
    assert weighted == pytest.approx(auroc(untreated, risks), abs=0.025)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_without_an_effect_looking_away_gives_the_same(seed):
    _, untreated, seen, found = world(seed, 1.0, 0.5)
    assert (seen == untreated).all()
    assert found.weights @ seen == pytest.approx(seen.sum(), rel=0.08)


def test_with_an_effect_looking_away_does_not():
    risks, untreated, seen, found = world(1, 0.7, 0.5)
    assert seen.sum() / risks.sum() < 0.95
    assert untreated.sum() / risks.sum() == pytest.approx(1, abs=0.04)
    assert found.weights @ seen / risks.sum() == pytest.approx(1, abs=0.06)
