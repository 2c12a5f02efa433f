import numpy as np
import pytest

from health_predict.data.follow_up import FollowUp
from health_predict.monitoring.follow_up import effect_of
from health_predict.params import BootstrapParams, FollowUpParams

PARAMS, BOOTSTRAP = FollowUpParams(), BootstrapParams(replicates=200)
ROWS = 20_000


def found(ratio: float, likely=0.5, seed: int = 1, rows: int = ROWS, said: bool = True):
    """The effect among flagged encounters with risks of .2 to .6, followed up by chance."""
    rng = np.random.default_rng(seed)
    risks = rng.uniform(0.2, 0.6, rows)
    followed_up = rng.random(rows) < (likely(risks) if callable(likely) else likely)
    outcomes = rng.random(rows) < np.where(followed_up, ratio * risks, risks)
    care = FollowUp(risks, risks >= 0.2, followed_up, ~followed_up & said)
    return effect_of(outcomes, care, np.arange(rows), PARAMS, BOOTSTRAP)


@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.2])
def test_the_risk_ratio_is_found(ratio):
    effect = found(ratio)
    assert effect.ratio.estimate == pytest.approx(ratio, abs=0.05)
    assert effect.ratio.lower < ratio < effect.ratio.upper
    assert f"risk ratio {effect.ratio}" in str(effect)


def test_where_the_sicker_were_followed_up_it_is_compared_at_the_same_risk():
    effect = found(0.7, likely=lambda risks: np.where(risks > 0.4, 0.8, 0.2))
    crude = (effect.readmitted / effect.followed_up) / (effect.not_followed_up_readmitted / effect.not_followed_up)
    assert crude > 0.85
    assert effect.ratio.estimate == pytest.approx(0.7, abs=0.05)


def test_its_interval_holds_the_truth_as_often_as_it_says():
    effects = [found(0.7, seed=seed, rows=1_500).ratio for seed in range(100)]
    assert sum(one.lower <= 0.7 <= one.upper for one in effects) >= 88


def test_it_is_not_given_where_nobody_was_without_or_too_few_were_readmitted():
    assert found(0.7, likely=0.0) is None
    everybody = found(0.7, likely=1.0)
    assert everybody.ratio is None
    assert "too few to compare" in str(everybody)
    assert found(0.7, rows=12).ratio is None
    assert found(0.7, said=False).ratio is None
