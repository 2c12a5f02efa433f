"""What a decision says, word by word, and what it decides exactly on each limit."""

from dataclasses import replace

import numpy as np
import pytest

from health_predict.evaluation.metrics import Interval, evaluate
from health_predict.monitoring.performance import Performance
from health_predict.monitoring.retraining import Decision, Evidence, Moved, Stock, decide, repeated, too_few
from health_predict.params import BootstrapParams, RetrainingParams

PARAMS = RetrainingParams(window=5, needed=2, growth=0.2, max_age=4, min_importance=0.25)
STOCK = Stock(
    10_000, new_rows=1_999, batches=3, fresh_rows=3_000, fresh_outcomes=300, needed_rows=3_000, needed_outcomes=300
)
METRICS = replace(
    evaluate(np.tile([0, 0, 0, 1], 5), np.tile([0.2, 0.3], 10), np.arange(20), 0.25, BootstrapParams(5)),
    observed_expected=Interval(1.3, 1.2, 1.4),
    calibration_slope=Interval(0.9, 0.7, 1.1),
)
CHANGE = Interval(-0.03, -0.05, -0.01)
FINE = Performance(METRICS, METRICS, CHANGE, CHANGE, CHANGE, False, False, False, False, ())
FELL, OFF = replace(FINE, discrimination=True), replace(FINE, calibration=True)
STILL = Moved(0.0, 0.0, False)
FELL_SAYS = "AUROC changed by -0.030 (-0.050 to -0.010) from when the model was approved"
OFF_SAYS = "Readmissions observed over expected are 1.300 (1.200 to 1.400), calibration slope 0.900 (0.700 to 1.100)"
NOTHING = "No finding on outcomes that calls for action."


def outcomes(*performances) -> Evidence:
    return Evidence((STILL,), performances, performances)


def inputs(*moved) -> Evidence:
    return Evidence(moved, (), ())


def without_slope(performance: Performance) -> Performance:
    return replace(performance, current=replace(METRICS, calibration_slope=None))


@pytest.mark.parametrize(
    ("evidence", "stock", "action", "reasons"),
    [
        (Evidence(), STOCK, "none", ["No batch has been monitored under this model yet."]),
        (inputs(STILL), STOCK, "none", [NOTHING]),
        (
            inputs(STILL, Moved(0.4, 0.1, False)),
            STOCK,
            "none",
            [
                NOTHING,
                "Clinical fields with 40% of the model's reliance drifted, not enough for a retraining.",
                "Administrative fields drifted, which is no reason to retrain.",
            ],
        ),
        (
            inputs(STILL, Moved(0.3, 0.0, True), Moved(0.4, 0.0, False), Moved(0.25, 0.0, True)),
            STOCK,
            "retrain",
            ["Clinical fields with 25% of the model's reliance drifted and scores with them, repeatedly."],
        ),
        (outcomes(FELL, FINE, FELL), STOCK, "retrain", [f"{FELL_SAYS}, in 2 of the last 3 batches."]),
        (
            outcomes(FINE, FELL, FINE, FINE, FINE, FELL, FELL),
            STOCK,
            "retrain",
            [f"{FELL_SAYS}, in 2 of the last 5 batches."],
        ),
        (
            outcomes(replace(FINE, severe_discrimination=True)),
            STOCK,
            "retrain",
            [f"{FELL_SAYS}, beyond doubt in a single batch."],
        ),
        (outcomes(OFF, OFF), STOCK, "recalibrate", [f"{OFF_SAYS}, off in 2 of the last 2 batches."]),
        (
            outcomes(without_slope(replace(FINE, severe_calibration=True))),
            STOCK,
            "recalibrate",
            ["Readmissions observed over expected are 1.300 (1.200 to 1.400), beyond doubt in a single batch."],
        ),
        (
            outcomes(OFF, OFF),
            replace(STOCK, recalibrated=True),
            "retrain",
            [f"{OFF_SAYS}, off in 2 of the last 2 batches. A recalibration was tried already."],
        ),
        (
            inputs(STILL),
            replace(STOCK, new_rows=2_000),
            "retrain",
            ["2000 encounters matured since production was trained on 10000; 20.0% more are worth one."],
        ),
        (
            inputs(STILL),
            replace(STOCK, batches=4),
            "retrain",
            ["4 batches matured since production was trained; 4 is the limit."],
        ),
        (
            outcomes(OFF, OFF),
            replace(STOCK, batches=4),
            "retrain",
            ["4 batches matured since production was trained; 4 is the limit."],
        ),
    ],
)
def test_a_decision_says_why(evidence, stock, action, reasons):
    assert decide(evidence, stock, PARAMS) == Decision(action, tuple(reasons))


def test_a_retraining_gives_all_its_reasons():
    both = replace(FELL, calibration=True)
    found = decide(outcomes(both, both), replace(STOCK, batches=4, recalibrated=True), PARAMS)
    assert [reason.split()[0] for reason in found.reasons] == ["AUROC", "4", "Readmissions"]


@pytest.mark.parametrize("lacks", [{"fresh_rows": 2_999}, {"fresh_outcomes": 299}])
def test_what_the_gate_could_not_decide_is_not_started_and_says_what_is_missing(lacks):
    stock = replace(STOCK, batches=4, **lacks)
    found = decide(inputs(STILL), stock, PARAMS)
    assert found == Decision(
        "none",
        (
            "4 batches matured since production was trained; 4 is the limit.",
            too_few(stock.fresh_rows, stock.fresh_outcomes, 3_000, 300),
        ),
    )


def test_what_is_missing_is_named_with_its_number():
    assert too_few(12, 3, 3_000, 300) == (
        "Only 12 matured encounters with 3 readmissions are new to the models to be compared and were in no earlier "
        "hold-out; 3000 with 300 are needed for the gate to decide."
    )


@pytest.mark.parametrize(
    ("findings", "found"),
    [
        ([], False),
        ([True], False),
        ([True, True], True),
        ([True, False], False),
        ([True, False, False, False, True], True),
        ([True, False, False, False, False, True], False),
    ],
)
def test_a_finding_is_repeated_within_the_window_and_in_the_newest_batch(findings, found):
    assert repeated(findings, PARAMS) is found


@pytest.mark.parametrize("moved", [Moved(0.249, 0.0, True), Moved(0.9, 0.9, False), Moved(0.0, 1.0, True)])
def test_inputs_alone_or_too_little_of_them_never_retrain(moved):
    assert decide(inputs(moved, moved, moved), STOCK, PARAMS).action == "none"
