"""An encounter that stands for two counts as if it were there twice; one that stands for none is as if it were not."""

from dataclasses import replace

import numpy as np
import pytest

from factories import encounters
from health_predict.evaluation.gate import Scores, compare_models
from health_predict.evaluation.metrics import compare, compare_auroc, evaluate
from health_predict.params import BootstrapParams, GateParams

PARAMS = BootstrapParams(replicates=50)
RNG = np.random.default_rng(11)
ROWS = 600
PATIENTS = RNG.integers(0, 400, ROWS)
FIRST, SECOND = RNG.uniform(0.02, 0.7, (2, ROWS))
Y = RNG.random(ROWS) < FIRST
TIMES = np.where(np.isin(PATIENTS % 5, [0]), 0, 1 + PATIENTS % 3)  # alike for all encounters of a patient
TWICE = np.repeat(np.arange(ROWS), TIMES)


def same(found, expected):
    for name in ("auroc", "average_precision", "brier", "calibration_intercept", "calibration_slope",
                 "observed_expected", "f1", "precision", "recall", "specificity", "flag_rate"):  # fmt: skip
        one, other = getattr(found, name), getattr(expected, name)
        assert (one.estimate, one.lower, one.upper) == pytest.approx((other.estimate, other.lower, other.upper)), name


def test_metrics():
    found = evaluate(Y, FIRST, PATIENTS, 0.3, PARAMS, TIMES)
    same(found, evaluate(Y[TWICE], FIRST[TWICE], PATIENTS[TWICE], 0.3, PARAMS))
    assert (found.rows, found.outcomes) == ((TIMES > 0).sum(), Y[TIMES > 0].sum())


def test_metrics_where_each_stands_for_itself():
    assert evaluate(Y, FIRST, PATIENTS, 0.3, PARAMS, np.ones(ROWS)) == evaluate(Y, FIRST, PATIENTS, 0.3, PARAMS)


@pytest.mark.parametrize("function", [compare, compare_auroc])
def test_differences(function):
    found = function(Y, FIRST, SECOND, PATIENTS, PARAMS, TIMES)
    expected = function(Y[TWICE], FIRST[TWICE], SECOND[TWICE], PATIENTS[TWICE], PARAMS)
    for name in expected.__dataclass_fields__.keys() - {"ppv"}:
        one, other = getattr(found, name), getattr(expected, name)
        assert (one.estimate, one.lower, one.upper) == pytest.approx((other.estimate, other.lower, other.upper))


def test_the_difference_at_equal_workload():
    found = compare(Y, FIRST, SECOND, PATIENTS, PARAMS, TIMES, capacity=0.3)
    assert found.ppv == compare(Y[TWICE], FIRST[TWICE], SECOND[TWICE], PATIENTS[TWICE], PARAMS, capacity=0.3).ppv


def test_the_gate_s_comparison_counts_only_those_who_represent_some():
    table = encounters(ROWS, seed=3)
    scores = [Scores(name, risks, 0.3) for name, risks in (("2", FIRST), ("1", SECOND))]
    gate = GateParams(min_subgroup_outcomes=10)

    def compared(represents):
        return compare_models(
            table,
            Y,
            scores[0],
            champion=scores[1],
            first=None,
            trained_on=table["encounter_id"].head(0),
            fingerprints={},
            capacity=0.3,
            gate=gate,
            bootstrap=PARAMS,
            represents=represents,
        )

    found = compared(TIMES)
    assert found.rows == (TIMES > 0).sum()
    assert sum(one.rows for one in found.subgroups if one.attribute == "sex") == found.rows
    assert replace(compared(np.ones(ROWS))) == compared(None)
    assert found.champion.differences.auroc.estimate == pytest.approx(
        compare(Y, FIRST, SECOND, table["patient_nbr"].to_numpy(), PARAMS, TIMES).auroc.estimate
    )
