from dataclasses import replace

import numpy as np
import pytest

from health_predict.evaluation.metrics import Interval, evaluate
from health_predict.monitoring.performance import Performance
from health_predict.monitoring.retraining import BatchEvidence, Evidence, Moved, Stock, decide, gather
from health_predict.params import BootstrapParams, RetrainingParams

PARAMS = RetrainingParams()
PLENTY = Stock(100_000, new_rows=8_000, batches=1, fresh_rows=8_000, fresh_outcomes=900, needed_rows=3_612,
               needed_outcomes=362)  # fmt: skip
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
@pytest.mark.parametrize("scarce", [{"fresh_rows": 3_611}, {"fresh_outcomes": 361}], ids=str)
def test_nothing_is_done_before_the_gate_could_decide_about_it(found, scarce):
    decision = decide(seen(found, found), replace(PLENTY, **scarce), PARAMS)
    assert decision.action == "none"
    assert "3612 with 362 are needed" in decision.reasons[-1]


def test_a_retraining_for_much_new_data_waits_for_what_it_can_be_judged_on():
    declined = replace(PLENTY, new_rows=50_000, batches=9, fresh_rows=3_000)
    assert decide(seen(), declined, PARAMS).action == "none"
    assert decide(seen(), replace(declined, fresh_rows=3_612), PARAMS).action == "retrain"


def test_new_data_or_age_retrains_where_a_recalibration_would_do():
    assert decide(seen(OFF, OFF), replace(PLENTY, batches=PARAMS.max_age), PARAMS).action == "retrain"


QUIET, LOUD = Moved(0.0, 0.0, False), Moved(0.9, 0.0, True)
MODELS = {"1": "a", "2": "a", "3": "b"}  # 2 is 1 with another calibration


def found(*findings):
    """Findings as `batch, version, lines of the ledger, what` each."""
    return [BatchEvidence(*finding) for finding in findings]


def test_what_was_judged_or_scored_under_another_version_is_no_evidence():
    """A batch is judged under the version before where it led to a retraining, and scored by the one after."""
    findings = found((1, "1", 1, LOUD), (1, "3", 2, FINE), (2, "3", 2, LOUD), (2, "3", 2, FINE), (3, "3", 2, LOUD))
    evidence = gather(findings, ["1", "3"], MODELS)
    assert evidence.moved == (LOUD, LOUD)
    assert evidence.realised == (FINE, FINE)
    assert decide(evidence, PLENTY, PARAMS).action == "retrain"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)], ids=str)
def test_evidence_is_in_the_order_of_batches_however_late_outcomes_mature(order):
    findings = found((1, "3", 1, FELL), (2, "3", 1, FINE), (3, "3", 1, OFF), (3, "3", 1, LOUD))
    evidence = gather([findings[position] for position in order], ["3"], MODELS)
    assert evidence.realised == (FELL, FINE, OFF)
    assert evidence.moved == (LOUD,)


def test_outcomes_that_mature_after_a_promotion_count_for_the_version_that_scored_them():
    late = found((1, "1", 1, FELL), (2, "1", 1, FELL), (3, "3", 2, FINE))
    assert gather(late, ["1", "3"], MODELS).realised == (FINE,)


def test_a_declined_challenger_ends_no_tenure():
    assert gather(found((1, "1", 1, FELL), (2, "1", 2, FELL)), ["1", "1", "1"], MODELS).realised == (FELL, FELL)


def test_a_fall_is_remembered_over_a_recalibration_and_a_calibration_is_not():
    both = replace(FELL, calibration=True)
    findings = found((1, "1", 1, QUIET), (1, "1", 1, both), (2, "1", 1, QUIET), (2, "2", 2, FELL))
    evidence = gather(findings, ["1", "2"], MODELS)
    assert evidence == Evidence((), (FELL,), (both, FELL))
    assert decide(evidence, PLENTY, PARAMS).action == "retrain"


def test_a_rollback_does_not_bring_back_what_was_found_before():
    findings = found((1, "1", 1, FELL), (1, "1", 1, LOUD), (3, "1", 3, LOUD))
    assert gather(findings, ["1", "3", "1"], MODELS) == Evidence(moved=(LOUD,))
