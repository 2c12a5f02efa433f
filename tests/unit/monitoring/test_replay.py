import re

import numpy as np
import pytest
from numpy.typing import NDArray

from health_predict.evaluation.metrics import Interval, Measurement, auroc
from health_predict.params import BootstrapParams
from health_predict.reports.replay_page import page
from health_predict.simulation.replay import Outcome, Row, realised, summarise

RNG = np.random.default_rng(3)
Y = RNG.random(400) < 0.2
RISK = np.clip(0.2 + 0.2 * Y + RNG.normal(0, 0.1, 400), 0.01, 0.99)


def outcome(auroc: float, never: float, oe: float = 1.0) -> Outcome:
    flags = Interval(0.2, 0.19, 0.21), Interval(0.4, 0.37, 0.43), Interval(0.22, 0.2, 0.24), Interval(4.5, 4.2, 5.0)
    eligible = {"auroc_eligible": auroc - 0.01, "auroc_eligible_never_retrained": never - 0.02}
    return Outcome(auroc, never, Interval(auroc - never, 0.0, 0.0), 0.7, oe, 0.8, *flags, **eligible)


ROWS = (
    Row(1, 100, version="1", outcome=outcome(0.66, 0.66), distances={"age": 0.1, "race": 0.4}, drifted=("race",)),
    Row(2, 0, refused="time_in_hospital is missing"),
    Row(
        3,
        100,
        alarms=("AUROC <fell>.",),
        raised=True,
        new=("AUROC 0.6 & <less>",),
        known=("since batch 1: race",),
        action="retrain",
        reasons=("Half as many again.",),
        promoted="2",
        answered_meanwhile=37,
        version="2",
        outcome=outcome(0.68, 0.64, 1.1),
        distances={"age": 0.2, "race": 0.5},
    ),
    Row(4, 100, action="retrain", objections=("AUROC minus that of champion 2 is -0.020.",), version="2"),
    Row(5, 100, action="recalibrate", promoted="3", version="3", left_out=12),
    Row(6, 20, waits=True, version="3", unjudged="0 of 20 encounters have the outcome"),
)


def judged(eligible: NDArray[np.bool_]) -> Outcome:
    return realised(Y, RISK, RISK, np.arange(400), eligible, 0.3, ("Batch 1: AUROC fell.",), BootstrapParams(50))


def test_a_model_beside_itself_differs_by_exactly_nothing():
    found = judged(np.arange(400) % 10 > 0)
    assert found.auroc_difference == Measurement(0.0, 0.0, 0.0, 0.0)
    assert found.auroc == found.auroc_never_retrained
    assert found.alarms == ("Batch 1: AUROC fell.",)
    assert found.observed_expected == pytest.approx(Y.sum() / RISK.sum())


def test_a_batch_says_who_was_flagged_and_how_eligible_stays_were_ranked():
    eligible, flags = np.arange(400) % 10 > 0, RISK >= 0.3
    found = judged(eligible)
    assert found.flag_rate.estimate == pytest.approx(flags.mean())
    assert found.recall.estimate == pytest.approx((flags & Y).sum() / Y.sum())
    assert found.precision.estimate == pytest.approx((flags & Y).sum() / flags.sum())
    assert found.number_to_follow_up.estimate == pytest.approx(flags.sum() / (flags & Y).sum())
    assert found.auroc_eligible == found.auroc_eligible_never_retrained == auroc(Y[eligible], RISK[eligible])
    for nobody in (np.zeros(400, bool), ~Y):
        assert judged(nobody).auroc_eligible is None


def test_means_are_over_the_batches_whose_outcomes_are_known():
    found = summarise("none", 1, False, "invented world", ROWS)
    assert found.mean_auroc_retrained == pytest.approx(0.67)
    assert found.mean_auroc_never_retrained == pytest.approx(0.65)
    assert found.mean_auroc_difference == pytest.approx(0.02)
    assert found.mean_auroc_eligible_retrained == pytest.approx(0.66)
    assert found.mean_auroc_eligible_never_retrained == pytest.approx(0.63)
    assert found.mean_abs_oe_deviation == pytest.approx(0.05)
    assert found.mean_estimation_error == pytest.approx(0.03)
    assert found.mean_abs_estimation_error == pytest.approx(0.03)
    assert (found.retrainings, found.recalibrations, found.promotions) == (2, 1, 2)
    assert (found.alarms, found.new_alarms) == (1, 1)


def test_a_replay_in_which_nothing_was_scored_has_no_means():
    found = summarise("schema_break", 1, False, "invented world", ROWS[1:2])
    assert found.mean_auroc_retrained is None
    assert page(found)


def test_the_page_says_what_happened_and_loads_nothing():
    found = page(summarise("concept_shift", 3, True, "invented world", ROWS)).decode()
    assert "Simulation invented world" in found
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", found)
    for text in ("Invented data", "time_in_hospital is missing", "Half as many again.", "version 2 promoted",
                 "37 requests", "off the realised one by 0.030",
                 "100 (12 died or went to a hospice, left out)", "waits for more encounters", "not judged: 0 of 20",
                 "AUROC 0.680, O/E 1.10",
                 "Of 100 discharges 20 are flagged; 4 of them are readmitted",
                 "22.0% (20.0 to 24.0)", "4.5 (4.2 to 5.0)", "not matured yet",
                 "declined", "AUROC &lt;fell&gt;.", "New alarm", "AUROC 0.6 &amp; &lt;less&gt;",
                 "since batch 1: race", "1 alarms, 1 of them for new or worse findings",
                 "concept_shift from batch 3 on"):  # fmt: skip
        assert text in found
