from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from factories import encounters
from health_predict.data.cohort import label
from health_predict.errors import DataError
from health_predict.evaluation.metrics import Interval, evaluate
from health_predict.monitoring.performance import change, estimate_auroc, performance, prediction_drift
from health_predict.monitoring.reference import profile
from health_predict.params import BootstrapParams, DriftParams, PerformanceParams

FEW = BootstrapParams(replicates=100)
PARAMS, DRIFT = PerformanceParams(), DriftParams(replicates=10)
THRESHOLD = 0.15
CAPACITY = 0.297  # as many are above the threshold


def world(rows, seed, *, risk_times=1.0, reversed_share=0.0):
    """Calibrated risks and outcomes drawn from them; then the truth is moved."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1.5, 11.0, rows)
    true = np.clip(p * risk_times, 0, 1)
    swapped = rng.random(rows) < reversed_share
    true[swapped] = rng.permutation(true[swapped])
    return rng.random(rows) < true, p, np.arange(rows) // 2


def reference_window():
    y, p, patients = world(6_000, 1)
    return evaluate(y, p, patients, THRESHOLD, FEW)


REFERENCE = reference_window()


def judged(**moved):
    return performance(*world(8_000, 2, **moved), REFERENCE, PARAMS, FEW)


def test_a_model_as_good_as_it_was_gives_no_reason():
    found = judged()
    assert not found.detected
    assert found.auroc_change.lower < 0 < found.auroc_change.upper


def test_more_outcomes_than_expected_are_a_finding_about_calibration_only():
    found = judged(risk_times=1.5)
    assert found.calibration
    assert found.severe_calibration
    assert not found.discrimination
    assert "observed over expected" in found.reasons[0]


def test_outcomes_that_strike_others_are_a_finding_about_discrimination():
    found = judged(reversed_share=0.6)
    assert found.discrimination
    assert found.severe_discrimination
    assert "AUROC" in found.reasons[0]


def test_what_was_so_when_the_model_was_approved_is_no_finding():
    y, p, patients = world(6_000, 1, risk_times=1.5)
    approved = evaluate(y, p, patients, THRESHOLD, FEW)
    found = performance(*world(8_000, 2, risk_times=1.5), approved, PARAMS, FEW)
    assert found.current.observed_expected.estimate > PARAMS.observed_expected[1]
    assert not (found.calibration or found.severe_calibration or found.detected)


def test_a_finding_that_has_to_come_again_is_no_alarm_yet():
    """Between the two levels: evidence for the policy, and the batch's status stays quiet."""
    moved = world(8_000, 2, risk_times=1.13)
    found = performance(*moved, REFERENCE, replace(PARAMS, alarm_level=1 - 1e-9), FEW)
    assert found.calibration
    assert not found.detected
    assert performance(*moved, REFERENCE, replace(PARAMS, alarm_level=PARAMS.level), FEW).detected


def test_outcomes_that_determine_no_calibration_slope_cannot_be_judged():
    with pytest.raises(DataError, match="do not determine a calibration slope"):
        performance(np.arange(50) % 2, np.full(50, 0.1), np.arange(50), REFERENCE, PARAMS, FEW)


def test_a_little_less_than_certain_is_not_severe():
    found = judged(risk_times=1.13)
    assert (found.calibration, found.severe_calibration) == (True, False)


def test_outcomes_that_are_all_the_same_cannot_be_judged():
    with pytest.raises(DataError, match="some with and some without"):
        performance(np.zeros(50), np.full(50, 0.1), np.arange(50), REFERENCE, PARAMS, FEW)


def test_a_change_of_independent_estimates_is_wider_than_either():
    found = change(Interval(0.64, 0.62, 0.66), Interval(0.68, 0.65, 0.71))
    assert found.estimate == pytest.approx(-0.04)
    assert found.upper - found.lower == pytest.approx(2 * np.hypot(0.02, 0.03))


def test_the_estimated_auroc_is_the_realised_one_where_risks_are_calibrated():
    y, p, _ = world(200_000, 3)
    assert estimate_auroc(p) == pytest.approx(roc_auc_score(y, p), abs=0.006)


def test_the_estimated_auroc_does_not_see_a_changed_relation():
    y, p, _ = world(200_000, 3, reversed_share=0.6)
    assert estimate_auroc(p) > roc_auc_score(y, p) + 0.05


def test_the_estimated_auroc_is_that_of_soft_outcomes():
    p = np.array([0.1, 0.1, 0.4, 0.9])
    soft = np.tile([0, 1], 4)
    expected = roc_auc_score(soft, np.repeat(p, 2), sample_weight=np.column_stack([1 - p, p]).ravel())
    assert estimate_auroc(p) == pytest.approx(expected)


@pytest.mark.parametrize("p", [[0.2, 1.2], [0.2, float("nan")], [0.0, 0.0], [1.0, 1.0]])
def test_scores_that_promise_nothing_are_an_error(p):
    with pytest.raises(DataError):
        estimate_auroc(np.array(p))


def scores_reference():
    return profile(label(encounters(600, seed=1), "lt30"), world(3_000, 4)[1], params=DRIFT)


def test_scores_of_the_same_kind_are_no_alarm():
    found = prediction_drift(scores_reference(), world(8_000, 5)[1], THRESHOLD, CAPACITY, PARAMS, DRIFT)
    assert not found.detected
    assert found.flag_rate == pytest.approx(CAPACITY, abs=0.02)


def test_scores_that_moved_are_an_alarm_with_the_load_that_they_mean():
    found = prediction_drift(
        scores_reference(), 1.5 * world(8_000, 5)[1].clip(0, 0.6), THRESHOLD, CAPACITY, PARAMS, DRIFT
    )
    assert any("stability index" in reason for reason in found.reasons)
    assert any("flagged" in reason for reason in found.reasons)


def test_the_flagged_are_held_against_the_capacity():
    found = prediction_drift(scores_reference(), world(8_000, 5)[1], THRESHOLD, 0.05, PARAMS, DRIFT)
    assert found.flag_rate_planned == 0.05
    assert any("5.0% were planned for" in reason for reason in found.reasons)


def test_scores_that_promise_less_are_an_alarm():
    p = world(8_000, 5)[1]
    found = prediction_drift(scores_reference(), p.mean() + 0.6 * (p - p.mean()), THRESHOLD, CAPACITY, PARAMS, DRIFT)
    assert any("AUROC estimated" in reason for reason in found.reasons)


def test_few_scores_cannot_be_judged():
    with pytest.raises(DataError, match="10 scores are too few"):
        prediction_drift(scores_reference(), np.full(10, 0.1), THRESHOLD, CAPACITY, PARAMS, DRIFT)
