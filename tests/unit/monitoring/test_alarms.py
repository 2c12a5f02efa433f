"""What is new in a report, what is worse, and what was known."""

from dataclasses import replace

import numpy as np
import pytest

from health_predict.evaluation.metrics import Interval, evaluate
from health_predict.monitoring.alarms import ADVICE, INPUTS, Alarm, Watched, news
from health_predict.monitoring.drift import Drift, FieldDrift, Statistics
from health_predict.monitoring.measures import Kind, Measure, measures
from health_predict.monitoring.performance import Performance, PredictionDrift
from health_predict.monitoring.separation import Separation
from health_predict.params import BootstrapParams, Params

PARAMS = Params()


def measure(kind: Kind, subject: str = "", level: float = 0.3, weight: float = 1.0, found: bool = True) -> Measure:
    return Measure(kind, subject, level, 0.1, 0.01, found, weight, f"{kind} {subject} {level}")


def report(number: int, *found: Measure, version: str = "1", learnt: tuple[int, ...] = (), table: str = "") -> Watched:
    return Watched(f"batch {number}", version, table or f"table of {version}", (number,), learnt, found)


def told(alarm: Alarm) -> dict[str, list[str]]:
    return {name: [item.subject for item in getattr(alarm, name)] for name in ("new", "worse", "known", "gone")}


def test_what_no_earlier_report_has_is_new_and_raises_an_alarm_with_what_to_do():
    found = news(report(1, measure("missing", "diag_1")), [], PARAMS)
    assert told(found) == {"new": ["diag_1"], "worse": [], "known": [], "gone": []}
    assert found.raised
    assert found.advice == (ADVICE["missing"],)
    assert found.changed == ()


def test_what_stays_as_it_was_is_known_since_the_batch_that_told_of_it():
    earlier = [report(1), report(2, measure("missing", "diag_1")), report(3, measure("missing", "diag_1"))]
    found = news(report(4, measure("missing", "diag_1")), earlier, PARAMS)
    assert told(found) == {"new": [], "worse": [], "known": ["diag_1"], "gone": []}
    assert [item.since for item in found.known] == ["batch 2"]
    assert not found.raised
    assert found.advice == ()


@pytest.mark.parametrize(
    ("levels", "error", "worse"),
    [
        ((0.3, 0.39), 0.01, False),
        ((0.3, 0.41), 0.01, True),
        ((0.3, 0.41), 0.04, False),  # within its noise
        ((0.3, 0.35, 0.39, 0.41), 0.01, True),  # slowly, since it was told of
        ((0.3, 0.2, 0.39), 0.01, False),  # back to where it was told of
        ((0.3, 0.41, 0.45), 0.01, False),  # told of already
    ],
)
def test_worse_is_as_far_again_as_made_it_a_finding_beyond_noise_since_it_was_told_of(levels, error, worse):
    reports = [
        report(number, replace(measure("field", "age", level), error=error)) for number, level in enumerate(levels, 1)
    ]
    found = news(reports[-1], reports[:-1], PARAMS)
    assert bool(found.worse) is found.raised is worse
    assert [item.since for item in (*found.worse, *found.known)] == ["batch 1"]


def test_what_has_gone_and_comes_back_is_new_again():
    here, away = measure("missing", "diag_1"), measure("missing", "diag_1", 0.0, found=False)
    gone = news(report(2, away), [report(1, here)], PARAMS)
    assert told(gone)["gone"] == ["diag_1"]
    assert told(news(report(3, here), [report(1, here), report(2, away)], PARAMS))["new"] == ["diag_1"]


def test_what_is_about_its_limit_does_not_come_and_go():
    here, about = measure("field", "age", 0.11), measure("field", "age", 0.09, found=False)
    assert not any(told(news(report(2, about), [report(1, here)], PARAMS)).values())
    assert told(news(report(3, here), [report(1, here), report(2, about)], PARAMS))["known"] == ["age"]


def test_what_was_not_measured_again_has_not_gone():
    here = measure("auroc")
    assert not any(told(news(report(2), [report(1, here)], PARAMS)).values())
    assert told(news(report(3, here), [report(1, here), report(2)], PARAMS))["known"] == [""]


@pytest.mark.parametrize("kind", ADVICE)
@pytest.mark.parametrize(
    ("learnt", "table", "inputs_known"), [((), "", False), ((1,), "", True), ((2,), "", False), ((), "of 1", True)]
)
def test_under_another_champion_all_is_new_but_inputs_that_it_has_learnt_from(kind, learnt, table, inputs_known):
    before = report(1, measure(kind), version="1", table="of 1")
    found = news(report(3, measure(kind), version="2", learnt=learnt, table=table), [before], PARAMS)
    assert bool(found.known) is (inputs_known and kind in INPUTS)
    assert bool(found.new) is not bool(found.known)
    assert found.changed[0] == "Version 2 is in production; batch 1 met version 1."


def test_a_version_that_is_back_after_a_rollback_remembers():
    earlier = [report(1, measure("scores")), report(2, version="2")]
    assert told(news(report(3, measure("scores")), earlier, PARAMS))["known"] == [""]


def test_drifted_fields_raise_an_alarm_once_those_not_told_of_carry_enough_reliance():
    first, second = measure("field", "age", weight=0.03), measure("field", "race", weight=0.03)
    note = measure("field", "payer_code", weight=0.0)
    earlier = [report(1, first)]
    assert not news(report(1, first, note), [], PARAMS).raised
    both = report(2, first, second)
    assert news(both, earlier, PARAMS).raised
    assert not news(report(3, first, second, note), [*earlier, both], PARAMS).raised
    assert not news(report(3, first, note), [*earlier, both], PARAMS).raised


def test_what_changed_since_the_last_batch_is_said_whatever_was_known_before():
    away = measure("field", "age", 0.0, found=False)
    earlier = [report(1, measure("field", "age")), report(2, away, measure("missing", "race", 0.2))]
    now = report(3, measure("field", "age"), measure("missing", "race", 0.0, found=False))
    assert news(now, earlier, PARAMS).changed == (
        "Not found in batch 2: age.",
        "Found in batch 2, and not here: missing race.",
    )


METRICS = evaluate(np.tile([0, 0, 0, 1], 200), np.tile([0.2, 0.3], 400), np.arange(800), 0.25, BootstrapParams(50))
SAME = Interval(0.0, -0.01, 0.01)
FINE = Performance(METRICS, METRICS, SAME, SAME, SAME, False, False, False, False, ())
FELL = replace(FINE, auroc_change=Interval(-0.03, -0.05, -0.01), alarms=("auroc",))
NUMBERS = Statistics(0.0, 0.0, None, None, None)
AGE = FieldDrift("age", 0.2, False, 0.4, 0.4, 9.0, 5.0, 0.0, True, 0.0, 0.6, 0.3, 0.0, NUMBERS)
QUIET = PredictionDrift(1_000, 0.01, 0.5, 0.1, 0.1, 0.2, 0.2, 0.2, 0.7, 0.7, ())


def found_in(predictions: PredictionDrift = QUIET, *outcomes: Performance, fields=(AGE,), auroc=0.5) -> dict:
    drift = Drift(1_000, 1_000, tuple(fields), 0.2, 0.0, (), ())
    apart = Separation(2_000, auroc, 0.6, ("it is",) if auroc >= 0.6 else ())
    named = [(f" in batch {number}", one) for number, one in enumerate(outcomes, 1)]
    return {one.key: one for one in measures(drift, apart, predictions, named, PARAMS) if one.found}


def test_a_report_is_taken_apart_into_its_findings_and_what_they_weigh():
    found = found_in(auroc=0.7)
    assert {key: one.weight for key, one in found.items()} == {
        ("field", "age"): 0.2, ("missing", "age"): 1.0, ("unknown", "age"): 1.0, ("combinations", ""): 1.0,
    }  # fmt: skip
    assert found["missing", "age"].text == "age missing in 60% of encounters, in training 0%"
    assert found["unknown", "age"].level == 0.3


def test_an_administrative_field_is_a_note_and_raises_nothing():
    payer = replace(AGE, field="payer_code", administrative=True, importance=0.01)
    assert {one.weight for one in found_in(fields=[payer]).values()} == {0.0}


@pytest.mark.parametrize(("rate", "direction"), [(0.4, "more"), (0.1, "fewer"), (0.0, "fewer")])
def test_more_flags_than_planned_and_fewer_are_two_findings(rate, direction):
    found = found_in(replace(QUIET, flag_rate=rate, alarms=("flag_rate",)), fields=())
    assert list(found) == [("flag_rate", direction)]


def test_scores_and_their_promise_are_findings_where_the_monitor_says_so():
    moved = replace(QUIET, psi=0.3, estimated_auroc=0.65, alarms=("scores", "estimated_auroc"))
    assert set(found_in(moved, fields=())) == {("scores", ""), ("estimated_auroc", "")}
    assert not found_in(replace(moved, alarms=()), fields=())


def test_of_several_outcomes_the_worst_is_told_with_its_batch():
    worse = replace(FELL, auroc_change=Interval(-0.06, -0.08, -0.04))
    found = found_in(QUIET, FINE, worse, FELL, fields=())
    assert list(found) == [("auroc", "")]
    assert found["auroc", ""].level == pytest.approx(0.06)
    assert "in batch 2" in found["auroc", ""].text


def test_outcomes_off_on_one_side_are_another_finding_than_on_the_other():
    def off(ratio: float) -> Performance:
        current = replace(METRICS, observed_expected=replace(METRICS.observed_expected, estimate=ratio))
        return replace(FINE, current=current, alarms=("observed_expected",))

    assert list(found_in(QUIET, off(1.3), fields=())) == [("observed_expected", "above 1")]
    assert list(found_in(QUIET, off(0.7), fields=())) == [("observed_expected", "below 1")]
