import numpy as np
import pytest

from health_predict.features.calibration import Calibration, log_odds

PROBABILITIES = np.array([0.0, 1e-9, 0.02, 0.114, 0.5, 0.93, 1.0])


def test_the_default_changes_nothing_but_certainty():
    proba = Calibration().apply(log_odds(PROBABILITIES))
    assert proba[2:6] == pytest.approx(PROBABILITIES[2:6], abs=1e-15)
    assert ((proba > 0) & (proba < 1)).all()


def test_one_score_gives_the_number_it_gives_in_a_table():
    calibration, scores = Calibration(-0.37, 1.21), log_odds(PROBABILITIES)
    assert [calibration.apply_one(float(score)) for score in scores] == calibration.apply(scores).tolist()


def test_order_is_kept_and_the_intercept_moves_the_odds():
    assert (np.diff(Calibration(0.4, 0.6).apply(np.linspace(-4, 4, 50))) > 0).all()
    assert Calibration(np.log(3.0), 1.0).apply(np.array([0.0])) == pytest.approx([0.75])


def test_float32_scores_are_calibrated_in_double_precision():
    scores = np.array([-1.5, 0.7], dtype=np.float32)
    assert Calibration(0.1, 1.1).apply(scores).dtype == np.float64


def test_two_calibrations_in_one_give_what_one_after_the_other_gives():
    first, second, scores = Calibration(-0.4, 1.3), Calibration(0.25, 0.8), np.linspace(-5, 5, 50)
    twice = second.apply(log_odds(first.apply(scores)))
    assert first.then(second).apply(scores) == pytest.approx(twice, rel=1e-9)
