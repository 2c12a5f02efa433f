"""Each rule of the gate trips alone, and what it says is what a reader needs."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from health_predict.data.cohort import outcome, select_cohort
from health_predict.errors import DataError
from health_predict.evaluation import clinical_scores
from health_predict.evaluation.gate import (
    Comparison,
    EligibleStays,
    Opponent,
    Scores,
    checks,
    compare_models,
    objections,
    stance,
)
from health_predict.evaluation.metrics import (
    AurocComparison,
    Differences,
    Interval,
    Measurement,
    Metrics,
    compare,
    compare_auroc,
    evaluate,
)
from health_predict.evaluation.subgroups import SubgroupMetrics, subgroups
from health_predict.params import BootstrapParams, GateParams
from health_predict.simulation.synthetic import generate

PARAMS = GateParams()
FEW = BootstrapParams(replicates=20)
NOBODY = pl.Series("encounter_id", [], dtype=pl.Int64)


def measured_at(estimate: float, lower: float, upper: float) -> Measurement:
    """With the standard error that a normal 95% interval of this width has."""
    return Measurement(estimate, lower, upper, (upper - lower) / 3.92)


SAME = Measurement(0.0, 0.0, 0.0, 0.0)
EQUAL = Differences(SAME, SAME, SAME, SAME)
METRICS = Metrics(
    rows=8_000,
    outcomes=900,
    patients=6_000,
    threshold=0.15,
    calibration_slope=Interval(1.0, 0.9, 1.1),
    observed_expected=Interval(1.0, 0.93, 1.07),
    flag_rate=Interval(0.21, 0.20, 0.22),
    **{
        field.name: Interval(0.67, 0.65, 0.69)
        for field in fields(Metrics)
        if field.type == "Interval" or field.type is Interval
        if field.name not in ("observed_expected", "flag_rate")
    },
)
AMONG_WOMEN = SubgroupMetrics("sex", "Female", 4_000, 450, measured_at(0.66, 0.63, 0.69), SAME)
FINE = Comparison(
    challenger_version="8",
    challenger=METRICS,
    champion=Opponent("7", METRICS, EQUAL, capacity=0.20),
    first=Opponent("1", METRICS, EQUAL),
    clinical={
        "LACE (adapted)": AurocComparison(
            measured_at(0.67, 0.65, 0.69), measured_at(0.58, 0.56, 0.60), measured_at(0.09, 0.07, 0.11)
        )
    },
    subgroups=(AMONG_WOMEN, SubgroupMetrics("race", "Asian", 50, 4)),
    seen=0,
    fingerprints={"comparison": "invented"},
    capacity=0.20,
    eligible=EligibleStays(7_700, 850, METRICS, Opponent("7", METRICS, EQUAL, capacity=0.20)),
)


WITHOUT_CHAMPION = {"champion": None, "first": None, "eligible": replace(FINE.eligible, champion=None)}


def against(opponent: Opponent, **differences) -> Opponent:
    return replace(opponent, differences=replace(opponent.differences, **differences))


def clinical(difference: Measurement) -> dict:
    return {name: replace(score, difference=difference) for name, score in FINE.clinical.items()}


def among_eligible(**differences) -> Comparison:
    return replace(FINE, eligible=replace(FINE.eligible, champion=against(FINE.champion, **differences)))


def flagging(challenger: float, champion: float) -> Comparison:
    found = replace(METRICS, flag_rate=Interval(challenger, challenger - 0.01, challenger + 0.01))
    before = replace(METRICS, flag_rate=Interval(champion, champion - 0.01, champion + 0.01))
    return replace(FINE, challenger=found, champion=replace(FINE.champion, metrics=before))


def women(**changes) -> tuple:
    return (replace(AMONG_WOMEN, **changes),)


TRIPS = {
    "target": (replace(FINE, target="any"), "any for the challenger, lt30 for the champion, lt30 for the first model"),
    "looks": (replace(FINE, look=6), "Question 6 to this hold-out; after 5 a fresh one is needed"),
    "seen": (replace(FINE, seen=3), "3 of the 8000 encounters compared were used in training"),
    "rows": (replace(FINE, challenger=replace(METRICS, rows=1_999)), "1999 encounters compared; at least 2000"),
    "outcomes": (replace(FINE, challenger=replace(METRICS, outcomes=199)), "199 readmissions among them; at least 200"),
    "clinical": (replace(FINE, clinical=clinical(measured_at(0.02, 0.0, 0.04))), "LACE (adapted) (0.580) is +0.020"),
    "too few expected": (
        replace(FINE, challenger=replace(METRICS, observed_expected=Interval(1.26, 1.2, 1.3))),
        "observed over expected are 1.260 (1.200 to 1.300)",
    ),
    "too many expected": (
        replace(FINE, challenger=replace(METRICS, observed_expected=Interval(0.79, 0.7, 0.9))),
        "within 0.80 and 1.25",
    ),
    "auroc": (
        replace(FINE, champion=against(FINE.champion, auroc=measured_at(-0.004, -0.0151, 0.006))),
        "AUROC minus that of champion 7 is -0.004 (95%: -0.015 to +0.006); the lower bound has to be above -0.015.",
    ),
    "average precision": (
        replace(FINE, champion=against(FINE.champion, average_precision=measured_at(0.0, -0.026, 0.026))),
        "Average precision minus that of champion 7 is +0.000 (95%: -0.026 to +0.026)",
    ),
    "brier": (
        replace(FINE, champion=against(FINE.champion, brier=measured_at(0.0009, 0.0001, 0.0017))),
        "Brier score minus that of champion 7 is +0.00090 (95%: +0.00010 to +0.00170)",
    ),
    "eligible stays": (
        replace(FINE, eligible=EligibleStays(300, 159)),
        "300 of the 8000 encounters compared are eligible index stays",
    ),
    "auroc on eligible stays": (
        among_eligible(auroc=measured_at(-0.004, -0.0151, 0.006)),
        "AUROC on eligible index stays minus that of champion 7 is -0.004 (95%: -0.015 to +0.006)",
    ),
    "average precision on eligible stays": (
        among_eligible(average_precision=measured_at(0.0, -0.026, 0.026)),
        "Average precision on eligible index stays minus that of champion 7 is +0.000 (95%: -0.026 to +0.026)",
    ),
    "as near as a champion of another capacity": (
        replace(flagging(0.26, 0.26), champion=replace(flagging(0.26, 0.26).champion, capacity=0.30)),
        "26.0% of the encounters are flagged at a capacity of 20.0%; the flag rate has to lie within 16.0% and 25.0%.",
    ),
    "nobody flagged, as by the champion": (flagging(0.0, 0.0), "0.0% of the encounters are flagged"),
    "too many flagged": (flagging(0.26, 0.20), "26.0% of the encounters are flagged at a capacity of 20.0%"),
    "too few flagged": (
        flagging(0.159, 0.1598),
        "within 16.0% and 25.0%, or as near to it as that of champion 7, 16.0%",
    ),
    "ppv": (
        replace(FINE, champion=against(FINE.champion, ppv=measured_at(-0.021, -0.04, -0.002))),
        "highest 20.0%, minus that of champion 7, is -0.021 (95%: -0.040 to -0.002); it may not be below -0.020",
    ),
    "first": (
        replace(FINE, first=against(FINE.first, auroc=measured_at(-0.015, -0.021, -0.009))),
        "AUROC minus that of first model 1 is -0.015",
    ),
    "subgroup floor": (
        replace(FINE, subgroups=women(auroc=measured_at(0.45, 0.41, 0.49))),
        "AUROC for sex Female is 0.450 (97.5%: 0.404 to 0.496)",
    ),
    "subgroup loss": (
        replace(FINE, subgroups=women(auroc_difference=measured_at(-0.06, -0.1, -0.02))),
        "AUROC for sex Female minus the champion's is -0.060 (97.5%: -0.106 to -0.014)",
    ),
}


def test_no_objections_when_all_is_well():
    assert objections(FINE, PARAMS) == []
    assert len({check.name for check in checks(FINE, PARAMS)}) == len(checks(FINE, PARAMS)) == 18


SAYS = {
    "target": (
        "Predicted is lt30 for the challenger, lt30 for the champion, lt30 for the first model; production "
        "answers for lt30 alone."
    ),
    "unseen data": "0 of the 8000 encounters compared were used in training one of the models; none may be.",
    "enough encounters": "8000 encounters compared; at least 2000 needed.",
    "enough outcomes": "900 readmissions among them; at least 200 needed.",
    "looks": (
        "Question 1 to this hold-out; after 5 a fresh one is needed, of outcomes that have matured since "
        "(docs/gate.md)."
    ),
    "better than LACE (adapted)": (
        "AUROC minus that of LACE (adapted) (0.580) is +0.090 (95%: +0.070 to +0.110); the lower bound has to"
        " be above 0."
    ),
    "calibration in the large": (
        "Readmissions observed over expected are 1.000 (0.930 to 1.070); the estimate has to lie within 0.80 and 1.25."
    ),
    "AUROC against champion 7": (
        "AUROC minus that of champion 7 is +0.000 (95%: +0.000 to +0.000); the lower bound has to be above -0.015."
    ),
    "average precision against champion 7": (
        "Average precision minus that of champion 7 is +0.000 (95%: +0.000 to +0.000); the lower bound has to"
        " be above -0.025."
    ),
    "Brier score against champion 7": (
        "Brier score minus that of champion 7 is +0.00000 (95%: +0.00000 to +0.00000) (lower is better); the "
        "lower bound may not be above 0, which would show that the risks got worse."
    ),
    "eligible index stays": (
        "7700 of the 8000 encounters compared are eligible index stays, neither transferred to acute care nor "
        "discharged against advice, with 850 readmissions; at least 160 needed."
    ),
    "AUROC on eligible index stays against champion 7": (
        "AUROC on eligible index stays minus that of champion 7 is +0.000 (95%: +0.000 to +0.000); the lower bound has "
        "to be above -0.015."
    ),
    "average precision on eligible index stays against champion 7": (
        "Average precision on eligible index stays minus that of champion 7 is +0.000 (95%: +0.000 to +0.000); the "
        "lower bound has to be above -0.025."
    ),
    "flag rate": (
        "21.0% of the encounters are flagged at a capacity of 20.0%; the flag rate has to lie within 16.0% and 25.0%, "
        "or as near to it as that of champion 7, 21.0%."
    ),
    "positive predictive value against champion 7": (
        "Positive predictive value where each model flags its highest 20.0%, minus that of champion 7, is +0.000 (95%: "
        "+0.000 to +0.000); it may not be below -0.020 with the whole interval below 0."
    ),
    "AUROC against first model 1": (
        "AUROC minus that of first model 1 is +0.000 (95%: +0.000 to +0.000); the lower bound has to be above -0.020."
    ),
    "AUROC floor, sex Female": (
        "AUROC for sex Female is 0.660 (97.5%: 0.626 to 0.694); the upper bound may not be below 0.50."
    ),
    "AUROC loss, sex Female": (
        "AUROC for sex Female minus the champion's is +0.000 (97.5%: +0.000 to +0.000); it may not be below "
        "-0.050 with the whole interval below 0."
    ),
}


def test_a_comparison_that_was_stored_before_is_read():
    """A figure that is measured since then has a default."""
    stored = json.loads((Path(__file__).parent / "comparison.json").read_bytes())
    assert objections(Comparison.from_dict(stored), PARAMS) == []


def test_every_rule_says_its_number_and_its_limit_whether_it_passed_or_not():
    assert {check.name: check.sentence for check in checks(FINE, PARAMS)} == SAYS


@pytest.mark.parametrize("rule", TRIPS)
def test_each_rule_trips_alone_and_names_its_numbers(rule):
    comparison, says = TRIPS[rule]
    assert [says in sentence for sentence in objections(comparison, PARAMS)] == [True]


def test_every_rule_can_trip():
    tripped = {
        check.name for comparison, _ in TRIPS.values() for check in checks(comparison, PARAMS) if not check.passed
    }
    assert tripped == {check.name for check in checks(FINE, PARAMS)}


@pytest.mark.parametrize(
    ("difference", "says"),
    [
        (
            measured_at(0.008, 0.001, 0.015),
            "better than champion 7: the difference is +0.008 (95%: +0.001 to +0.015). The",
        ),
        (measured_at(-0.008, -0.015, -0.001), "worse than champion 7: the difference is -0.008"),
        (
            measured_at(0.004, -0.003, 0.011),
            "not told apart from champion 7: the difference is +0.004 (95%: -0.003 to +0.011), a tie",
        ),
        (SAME, "not told apart from champion 7"),
    ],
)
def test_a_tie_with_the_champion_is_called_a_tie(difference, says):
    said = stance(replace(FINE, champion=against(FINE.champion, auroc=difference)), PARAMS)
    assert says in said
    assert "it need not be better" in said
    assert stance(replace(FINE, champion=None), PARAMS) == "Nothing is in production, so nothing else is replaced."


def test_objections_add_up():
    bad = replace(FINE, seen=1, challenger=replace(METRICS, rows=10, outcomes=2))
    assert len(objections(bad, PARAMS)) == 3


@pytest.mark.parametrize(
    "comparison",
    [
        replace(FINE, challenger=replace(METRICS, rows=2_000, outcomes=200)),
        replace(FINE, challenger=replace(METRICS, observed_expected=Interval(0.80, 0.7, 0.9))),
        replace(FINE, champion=against(FINE.champion, auroc=measured_at(-0.002, -0.0099, 0.006))),
        replace(FINE, champion=against(FINE.champion, brier=measured_at(0.0009, -0.0001, 0.0019))),
        replace(FINE, look=5),
        replace(FINE, eligible=EligibleStays(300, 160, METRICS, FINE.champion)),
        among_eligible(auroc=measured_at(-0.004, -0.0149, 0.006)),
        flagging(0.249, 0.20),
        flagging(0.161, 0.20),
        flagging(0.30, 0.30),  # outside, as the champion
        flagging(0.13, 0.40),
        replace(FINE, champion=against(FINE.champion, ppv=measured_at(-0.019, -0.03, -0.008))),  # a small loss
        replace(FINE, champion=against(FINE.champion, ppv=measured_at(-0.03, -0.07, 0.01))),  # not shown to be a loss
        replace(FINE, subgroups=women(auroc=measured_at(0.45, 0.39, 0.51))),  # not shown to be below chance
        replace(FINE, subgroups=women(auroc_difference=measured_at(-0.06, -0.13, 0.01))),  # not shown to be a loss
        replace(FINE, subgroups=women(auroc_difference=measured_at(-0.04, -0.06, -0.02))),  # a small loss
    ],
)
def test_just_inside_a_limit_passes(comparison):
    assert objections(comparison, PARAMS) == []


@pytest.mark.parametrize(
    "rule",
    ["target", "looks", "seen", "rows", "outcomes", "clinical", "too few expected", "eligible stays", "subgroup floor"],
)
def test_without_a_champion_the_absolute_rules_hold(rule):
    alone = replace(FINE, **WITHOUT_CHAMPION, subgroups=women(auroc_difference=None))
    assert objections(alone, PARAMS) == []
    comparison, says = TRIPS[rule]
    found = objections(replace(comparison, champion=None, first=None), PARAMS)
    assert any(says.split(",")[0] in sentence for sentence in found)


@pytest.mark.parametrize(
    ("comparison", "objects"),
    [
        (replace(FINE, champion=against(FINE.champion, auroc=Measurement(-0.005, -0.015, 0.005, 0.005))), 1),
        (replace(FINE, first=against(FINE.first, auroc=Measurement(-0.01, -0.02, 0.0, 0.005))), 1),
        (replace(FINE, clinical=clinical(Measurement(0.02, 0.0, 0.04, 0.01))), 1),
        (replace(FINE, champion=against(FINE.champion, brier=Measurement(0.001, 0.0, 0.002, 0.0005))), 0),
        (replace(FINE, challenger=replace(METRICS, observed_expected=Interval(1.25, 1.2, 1.3))), 0),
        (replace(FINE, subgroups=women(auroc=Measurement(0.5, 0.5, 0.5, 0.0))), 0),
        (replace(FINE, subgroups=women(auroc_difference=Measurement(-0.05, -0.05, -0.05, 0.0))), 0),
        (replace(FINE, subgroups=women(auroc_difference=Measurement(-0.06, -0.1, 0.0, 0.0))), 0),
    ],
)
def test_on_the_limit_nothing_is_shown(comparison, objects):
    assert len(objections(comparison, PARAMS)) == objects


@pytest.mark.parametrize("role", ["champion", "first"])
def test_models_of_another_target_are_not_compared(role):
    other = replace(FINE, **{role: replace(getattr(FINE, role), target="any")})
    assert [sentence.startswith("Predicted is lt30 for the challenger") for sentence in objections(other, PARAMS)] == [
        True
    ]


def test_production_may_answer_for_another_target_if_all_models_do():
    everyone = {role: replace(getattr(FINE, role), target="any") for role in ("champion", "first")}
    assert objections(replace(FINE, target="any", **everyone), replace(PARAMS, target="any")) == []


# The lower bounds at looks 1 to 4 of an estimate with standard error .01: 1.96, 2.24, 2.50 and 2.73 errors below it.
@pytest.mark.parametrize(("look", "errors"), [(1, 1.9600), (2, 2.2414), (3, 2.4977), (4, 2.7344), (5, 2.9552)])
@pytest.mark.parametrize(
    ("rule", "limit"), [("auroc", -0.015), ("average_precision", -0.025), ("first", -0.020), ("clinical", 0.0)]
)
def test_each_look_halves_the_error_of_what_has_to_be_shown(look, errors, rule, limit):
    def asked(estimate: float) -> list[str]:
        found = Measurement(estimate, estimate - 0.0196, estimate + 0.0196, 0.01)
        asked = replace(FINE, look=look)
        if rule == "clinical":
            return objections(replace(asked, clinical=clinical(found)), PARAMS)
        if rule == "first":
            return objections(replace(asked, first=against(FINE.first, auroc=found)), PARAMS)
        return objections(replace(asked, champion=against(FINE.champion, **{rule: found})), PARAMS)

    assert asked(limit + 0.01 * errors + 1e-4) == []
    (said,) = asked(limit + 0.01 * errors - 1e-4)
    assert f"({100 * (1 - 0.05 / 2 ** (look - 1)):.4g}%: " in said


def test_all_looks_together_stay_below_one_error_in_twenty():
    tails = [PARAMS.tail * 0.5 ** (look - 1) for look in range(1, 100)]
    assert sum(tails) <= 0.05
    assert PARAMS.tail == pytest.approx(
        (1 - BootstrapParams().level) / 2
    )  # the first look's interval is the bootstrap's


@pytest.mark.parametrize("look", [1, 5])
def test_what_is_refused_when_shown_to_be_bad_is_refused_at_every_look_alike(look):
    worse = replace(FINE, look=look, champion=against(FINE.champion, brier=measured_at(0.0009, 0.0001, 0.0017)))
    assert len(objections(worse, PARAMS)) == 1
    harmful = replace(FINE, look=look, subgroups=women(auroc_difference=measured_at(-0.06, -0.1, -0.02)))
    assert len(objections(harmful, PARAMS)) == 1


def test_a_finding_in_one_of_many_subgroups_has_to_be_clearer():
    lost = replace(AMONG_WOMEN, auroc_difference=measured_at(-0.06, -0.11, -0.01))
    alone = replace(FINE, subgroups=(lost,))
    among = replace(FINE, subgroups=(lost, *(replace(AMONG_WOMEN, group=f"group {n}") for n in range(5))))
    assert len(objections(alone, PARAMS)) == 1
    assert objections(among, PARAMS) == []
    sentence = next(check.sentence for check in checks(among, PARAMS) if check.name == "AUROC loss, sex Female")
    assert "(99.58%: -0.133 to +0.013)" in sentence  # twelve tests: .05 / 12 outside


def test_no_difference_has_a_plus_sign():
    nothing = against(FINE.champion, auroc=Measurement(-0.0, -0.0, -0.0, 0.0))
    assert SAYS["AUROC against champion 7"] in {
        check.sentence for check in checks(replace(FINE, champion=nothing), PARAMS)
    }


def test_a_single_test_needs_no_correction():
    alone = replace(FINE, **WITHOUT_CHAMPION, subgroups=women(auroc_difference=None))
    sentence = next(check.sentence for check in checks(alone, PARAMS) if check.name == "AUROC floor, sex Female")
    assert "0.660 (95%: 0.630 to 0.690)" in sentence


def test_groups_that_are_not_judged_cost_nothing():
    judged = [check.sentence for check in checks(FINE, PARAMS) if "sex" in check.name]
    more = replace(FINE, subgroups=(*FINE.subgroups, SubgroupMetrics("race", "Other", 50, 4)))
    assert [check.sentence for check in checks(more, PARAMS) if "sex" in check.name] == judged


def test_there_is_no_look_before_the_first():
    with pytest.raises(ValueError, match="not 0"):
        replace(FINE, look=0)
    with pytest.raises(DataError, match="not 0"):
        Comparison.from_dict(FINE.to_dict() | {"look": 0})


@pytest.fixture(scope="module")
def measured():
    encounters = select_cohort(generate(2_200, seed=3))
    y = outcome(encounters)
    risks = np.clip(0.08 + 0.25 * y + np.random.default_rng(0).normal(0, 0.03, len(y)), 0.01, 0.99)
    return encounters, y, Scores("8", risks, 0.15, capacity=0.20)


def gated(measured, challenger=None, champion=None, trained_on=NOBODY) -> Comparison:
    encounters, y, scores = measured
    return compare_models(
        encounters,
        y,
        challenger or scores,
        champion=champion,
        first=champion,
        trained_on=trained_on,
        fingerprints={"comparison": "invented"},
        capacity=0.20,
        gate=PARAMS,
        bootstrap=FEW,
    )


def test_the_same_model_on_both_sides_gives_exactly_zero_and_passes(measured):
    comparison = gated(measured, champion=replace(measured[2], version="7", y_proba=measured[2].y_proba.copy()))
    assert comparison.champion.differences == comparison.first.differences == EQUAL
    judged = [subgroup for subgroup in comparison.subgroups if not subgroup.too_small]
    assert judged
    assert all(subgroup.auroc_difference == SAME for subgroup in judged)
    calibrated = replace(comparison, challenger=replace(comparison.challenger, observed_expected=Interval(1, 1, 1)))
    assert objections(calibrated, PARAMS) == []


def test_all_are_measured_on_the_same_encounters(measured):
    encounters, y, scores = measured
    patients = encounters["patient_nbr"].to_numpy()
    other = Scores("7", np.roll(scores.y_proba, 1), 0.12, "lt30")
    found = gated(measured, champion=other)
    assert (found.challenger_version, found.champion.version, found.first.version) == ("8", "7", "7")
    assert found.challenger == evaluate(y, scores.y_proba, patients, 0.15, FEW)
    assert found.champion.metrics == found.first.metrics == evaluate(y, other.y_proba, patients, 0.12, FEW)
    differences = compare(y, scores.y_proba, other.y_proba, patients, FEW, capacity=0.20)
    assert found.champion.differences == found.first.differences == differences
    stays = ~encounters["discharge_disposition_id"].is_in([2, 7, 9, 27, 29]).to_numpy()
    parts = y[stays], scores.y_proba[stays], other.y_proba[stays]
    assert (found.capacity, found.eligible.rows, found.eligible.outcomes) == (0.20, stays.sum(), y[stays].sum())
    assert 0 < stays.sum() < len(y)
    assert found.eligible.challenger == evaluate(*parts[:2], patients[stays], 0.15, FEW)
    assert found.eligible.champion.metrics == evaluate(parts[0], parts[2], patients[stays], 0.12, FEW)
    assert found.eligible.champion.differences == compare(*parts, patients[stays], FEW, capacity=0.20)
    assert found.clinical == {
        name: compare_auroc(y, scores.y_proba, score(encounters), patients, FEW)
        for name, score in clinical_scores.SCORES.items()
    }
    minimum, opponent = PARAMS.min_subgroup_outcomes, other.y_proba
    assert list(found.subgroups) == subgroups(
        encounters, y, scores.y_proba, threshold=0.15, params=FEW, min_outcomes=minimum, champion_proba=opponent
    )
    assert found.fingerprints == {"comparison": "invented"}
    assert gated(measured).subgroups == tuple(
        subgroups(encounters, y, scores.y_proba, threshold=0.15, params=FEW, min_outcomes=minimum)
    )


def test_where_nobody_stayed_to_the_end_the_gate_says_so(measured):
    encounters, y, scores = measured
    transferred = encounters.with_columns(discharge_disposition_id=pl.lit(2, pl.Int16))
    found = gated((transferred, y, scores), champion=replace(scores, version="7"))
    assert found.eligible == EligibleStays(0, 0)
    assert [said for said in objections(found, PARAMS) if "eligible" in said] == [
        f"0 of the {len(y)} encounters compared are eligible index stays, neither transferred to acute care nor "
        "discharged against advice, with 0 readmissions; at least 160 needed."
    ]


def test_a_score_no_better_than_the_clinical_ones_is_refused(measured):
    _, y, scores = measured
    noise = np.random.default_rng(2).uniform(0.05, 0.2, len(y))
    found = objections(gated(measured, challenger=replace(scores, y_proba=noise)), PARAMS)
    assert sum("LACE (adapted)" in sentence or "HOSPITAL (partial)" in sentence for sentence in found) == 2


def test_encounters_that_a_model_was_trained_on_are_counted(measured):
    encounters = measured[0]
    trained_on = pl.concat([encounters["encounter_id"][:7], pl.Series("encounter_id", [-1, -2])])
    assert gated(measured).seen == 0
    assert gated(measured, trained_on=trained_on).seen == 7
    assert gated(measured, trained_on=trained_on).rows == len(encounters)


@pytest.mark.parametrize("with_champion", [True, False])
def test_a_comparison_survives_json(measured, with_champion):
    comparison = gated(measured, champion=measured[2] if with_champion else None)
    assert Comparison.from_dict(json.loads(json.dumps(comparison.to_dict()))) == comparison
    assert Comparison.from_dict(json.loads(json.dumps(FINE.to_dict()))) == FINE


def test_look_and_target_survive_json(measured):
    asked = replace(gated(measured), look=3, target="any")
    assert Comparison.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked


def test_each_model_brings_its_target(measured):
    scores = measured[2]
    comparison = gated(measured, challenger=replace(scores, target="any"), champion=scores)
    assert (comparison.target, comparison.champion.target, comparison.first.target) == ("any", "lt30", "lt30")
    studied = gated(measured, champion=replace(scores, target="any"))
    assert (studied.target, studied.champion.target, studied.first.target) == ("lt30", "any", "any")
    assert gated(measured).look == 1


@pytest.mark.parametrize("field", ["challenger", "champion", "clinical", "subgroups", "seen"])
def test_a_stored_comparison_that_lacks_something_is_refused(field):
    document = FINE.to_dict()
    with pytest.raises(DataError, match=field):
        Comparison.from_dict(document | {field: "invented"})
    del document[field]
    with pytest.raises(DataError, match=field):
        Comparison.from_dict(document)
