from dataclasses import replace

import numpy as np
import pytest

from health_predict.evaluation.metrics import Interval, evaluate
from health_predict.monitoring.performance import Performance
from health_predict.monitoring.retraining import Evidence, Stock, decide
from health_predict.params import BootstrapParams, RetrainingParams

PARAMS = RetrainingParams()
PLENTY = Stock(trained_rows=100_000, new_rows=8_000, new_outcomes=900, batches=1)
METRICS = evaluate(np.tile([0, 0, 0, 1], 20), np.tile([0.2, 0.3], 40), np.arange(80), 0.25, BootstrapParams(5))
SAME = Interval(0.0, -0.01, 0.01)
FINE = Performance(METRICS, METRICS, SAME, SAME, SAME, False, False, False, False, ())
FELL = replace(FINE, auroc_change=Interval(-0.03, -0.05, -0.01), discrimination=True)
OFF = replace(FINE, calibration=True)


def seen(*performances, importance=0.0, administrative=0.0, scores=False):
    return [
        Evidence(number, importance, administrative, scores, found)
        for number, found in enumerate(performances, start=1)
    ]


@pytest.mark.parametrize(
    ("performances", "action"),
    [
        ([], "none"),
        ([None], "none"),
        ([FINE, FINE], "none"),
        ([FELL], "none"),
        ([FELL, FELL], "retrain"),
        ([FELL, FELL, None], "retrain"),
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
        "nothing yet", "not matured", "fine", "fell once", "fell twice", "newest not matured", "twice in five",
        "too long ago", "recovered", "fell beyond doubt", "off once", "off twice", "off beyond doubt",
        "off twice, fell once", "fell twice, off once",
    ],
)  # fmt: skip
def test_outcomes_decide(performances, action):
    decision = decide(seen(*performances), PLENTY, PARAMS)
    assert decision.action == action
    assert decision.reasons


def test_calibration_that_a_recalibration_did_not_cure_retrains():
    decision = decide(seen(OFF, OFF), replace(PLENTY, recalibrated=True), PARAMS)
    assert decision.action == "retrain"
    assert "recalibrated already" in decision.reasons[0]


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
    assert decide([], replace(PLENTY, trained_rows=limit), PARAMS).action == "retrain"
    assert decide([], replace(PLENTY, trained_rows=limit + 1), PARAMS).action == "none"


def test_age_retrains():
    assert decide([], replace(PLENTY, batches=PARAMS.max_age), PARAMS).action == "retrain"


@pytest.mark.parametrize("scarce", [{"new_rows": 1_999}, {"new_outcomes": 199}], ids=str)
def test_nothing_is_retrained_before_there_is_something_to_learn_from(scarce):
    decision = decide(seen(FELL, FELL), replace(PLENTY, **scarce), PARAMS)
    assert decision.action == "none"
    assert "are needed" in decision.reasons[-1]


def test_with_too_little_to_learn_from_recalibration_is_still_open():
    evidence = seen(FELL, replace(FELL, calibration=True, severe_calibration=True))
    assert decide(evidence, replace(PLENTY, new_rows=0), PARAMS).action == "recalibrate"
