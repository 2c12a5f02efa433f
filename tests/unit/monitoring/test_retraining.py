from dataclasses import replace

import numpy as np
import pytest

from health_predict.evaluation.metrics import Interval, evaluate
from health_predict.monitoring.performance import Performance
from health_predict.monitoring.retraining import Evidence, Finding, Moved, Stock, decide, gather
from health_predict.params import BootstrapParams, RetrainingParams

PARAMS = RetrainingParams()
PLENTY = Stock(trained_rows=100_000, new_rows=8_000, new_outcomes=900, batches=1)
METRICS = evaluate(np.tile([0, 0, 0, 1], 20), np.tile([0.2, 0.3], 40), np.arange(80), 0.25, BootstrapParams(5))
SAME = Interval(0.0, -0.01, 0.01)
FINE = Performance(METRICS, METRICS, SAME, SAME, SAME, False, False, False, False, ())
FELL = replace(FINE, auroc_change=Interval(-0.03, -0.05, -0.01), discrimination=True)
OFF = replace(FINE, calibration=True)


def seen(*performances, importance=0.0, administrative=0.0, scores=False):
    """Evidence of as many batches, judged alike."""
    moved = (Moved(importance, administrative, scores),) * len(performances)
    return Evidence(moved, performances, performances)


@pytest.mark.parametrize(
    ("performances", "action"),
    [
        ([], "none"),
        ([FINE, FINE], "none"),
        ([FELL], "none"),
        ([FELL, FELL], "retrain"),
        ([FELL, FINE, FINE, FINE, FELL], "retrain"),
        ([FELL, FINE, FINE, FINE, FINE, FELL], "none"),
        ([FELL, FELL, FINE], "none"),
        ([replace(FELL, severe_discrimination=True)], "retrain"),
        ([OFF], "none"),
        ([OFF, OFF], "recalibrate"),
        ([replace(OFF, severe_calibration=True)], "recalibrate"),
        ([OFF, replace(FELL, calibration=True)], "recalibrate"),
        ([FELL, replace(FELL, calibration=True)], "retrain"),
    ],
    ids=[
        "nothing yet", "fine", "fell once", "fell twice", "twice in five", "too long ago", "recovered",
        "fell beyond doubt", "off once", "off twice", "off beyond doubt", "off twice, fell once",
        "fell twice, off once",
    ],
)  # fmt: skip
def test_outcomes_decide(performances, action):
    decision = decide(seen(*performances), PLENTY, PARAMS)
    assert decision.action == action
    assert decision.reasons


def test_calibration_that_a_recalibration_did_not_cure_retrains():
    decision = decide(seen(OFF, OFF), replace(PLENTY, recalibrated=True), PARAMS)
    assert decision.action == "retrain"
    assert "tried already" in decision.reasons[0]


def test_administrative_drift_alone_never_retrains():
    evidence = seen(*[FINE] * 20, administrative=1.0)
    decision = decide(evidence, PLENTY, PARAMS)
    assert decision.action == "none"
    assert "Administrative" in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("importance", "scores", "action"),
    [(0.9, False, "none"), (0.1, True, "none"), (0.9, True, "retrain")],
    ids=["inputs only", "scores only", "both"],
)
def test_inputs_retrain_only_where_the_model_leans_on_them_and_its_scores_moved(importance, scores, action):
    assert decide(seen(FINE, FINE, importance=importance, scores=scores), PLENTY, PARAMS).action == action


def test_enough_new_data_retrains():
    limit = int(PLENTY.new_rows / PARAMS.growth)
    assert decide(seen(), replace(PLENTY, trained_rows=limit), PARAMS).action == "retrain"
    assert decide(seen(), replace(PLENTY, trained_rows=limit + 1), PARAMS).action == "none"


def test_age_retrains():
    assert decide(seen(), replace(PLENTY, batches=PARAMS.max_age), PARAMS).action == "retrain"


@pytest.mark.parametrize("found", [FELL, OFF], ids=["fell", "off"])
@pytest.mark.parametrize("scarce", [{"new_rows": 1_999}, {"new_outcomes": 199}], ids=str)
def test_nothing_is_done_before_there_is_something_to_learn_from_and_to_judge_on(found, scarce):
    decision = decide(seen(found, found), replace(PLENTY, **scarce), PARAMS)
    assert decision.action == "none"
    assert "are needed" in decision.reasons[-1]


def test_new_data_or_age_retrains_where_a_recalibration_would_do():
    assert decide(seen(OFF, OFF), replace(PLENTY, batches=PARAMS.max_age), PARAMS).action == "retrain"


QUIET, LOUD = Moved(0.0, 0.0, False), Moved(0.9, 0.0, True)
MODELS = {"1": "a", "2": "a", "3": "b"}  # 2 is 1 with another calibration


def found(*findings):
    """Findings in their order, as `version, what` each."""
    return [Finding(version, what) for version, what in findings]


def test_a_batch_that_was_not_judged_under_the_champion_is_not_one_without_drift():
    """A batch is judged under the version before where it led to a retraining, and scored by the one after."""
    findings = found(("1", LOUD), ("3", FINE), ("3", LOUD), ("3", FINE), ("3", LOUD))
    evidence = gather(findings, "3", MODELS)
    assert evidence.moved == (LOUD, LOUD)
    assert decide(evidence, PLENTY, PARAMS).action == "retrain"


def test_a_fall_is_remembered_over_a_recalibration_and_a_calibration_is_not():
    evidence = gather(
        found(("1", QUIET), ("1", replace(FELL, calibration=True)), ("1", QUIET), ("2", FELL)), "2", MODELS
    )
    assert evidence == Evidence((), (FELL,), (replace(FELL, calibration=True), FELL))
    assert decide(evidence, PLENTY, PARAMS).action == "retrain"


def test_a_rollback_does_not_bring_back_what_was_found_before():
    findings = found(("1", FELL), ("1", LOUD), ("3", FINE), ("1", LOUD))
    assert gather(findings, "1", MODELS) == Evidence(moved=(LOUD,))
