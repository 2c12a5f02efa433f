"""The gate is monotonic: making a challenger worse never helps it."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from health_predict.evaluation.gate import Comparison, Scores, checks, compare_models, objections
from health_predict.params import BootstrapParams, GateParams
from health_predict.simulation.synthetic import generate

ROWS = 160
ENCOUNTERS = generate(ROWS, seed=4)
SMALL = GateParams(min_rows=1, min_outcomes=1, min_subgroup_outcomes=5)
LAX = GateParams(
    min_rows=1,
    min_outcomes=1,
    max_auroc_loss=2,
    max_average_precision_loss=2,
    max_auroc_loss_from_first=2,
    observed_expected=(0, 1e9),
    max_subgroup_auroc_loss=2,
    min_subgroup_auroc=0,
)
SETTINGS = settings(max_examples=25, deadline=None)

seeds = st.integers(0, 2**32 - 1)


def compared(y: NDArray[np.bool_], challenger: NDArray, champion: NDArray, gate: GateParams) -> Comparison:
    return compare_models(
        ENCOUNTERS,
        y,
        Scores("2", challenger, 0.3),
        champion=Scores("1", champion, 0.3),
        first=Scores("1", champion, 0.3),
        trained_on=ENCOUNTERS["encounter_id"][:0],
        fingerprints={},
        capacity=0.3,
        gate=gate,
        bootstrap=BootstrapParams(replicates=25),
    )


def failed(comparison: Comparison) -> set[str]:
    return {check.name for check in checks(comparison, SMALL) if not check.passed}


@SETTINGS
@given(seed=seeds, skill=st.floats(-1, 3), swaps=st.integers(1, 60))
def test_a_worse_candidate_never_passes_a_gate_that_a_better_one_fails(seed, skill, swaps):
    rng = np.random.default_rng(seed)
    y = rng.random(ROWS) < 0.3
    champion = rng.uniform(0.05, 0.6, ROWS)
    better = np.clip(0.3 + 0.1 * skill * (y - 0.3) + rng.normal(0, 0.1, ROWS), 0.01, 0.99)
    worse = better.copy()
    for readmitted, other in zip(
        rng.choice(np.flatnonzero(y), swaps), rng.choice(np.flatnonzero(~y), swaps), strict=True
    ):
        if worse[readmitted] > worse[other]:
            worse[[readmitted, other]] = worse[[other, readmitted]]
    at_worst, at_best = compared(y, worse, champion, SMALL), compared(y, better, champion, SMALL)
    assert failed(at_best) <= failed(at_worst)
    if objections(at_best, SMALL):
        assert objections(at_worst, SMALL)


@SETTINGS
@given(seed=seeds, margin=st.floats(1e-6, 0.05))
def test_a_challenger_worse_on_every_row_never_passes_even_the_laxest_gate(seed, margin):
    rng = np.random.default_rng(seed)
    y = rng.random(ROWS) < 0.3
    champion = np.clip(0.2 + 0.4 * y + rng.normal(0, 0.05, ROWS), 0.06, 0.94)
    worse = np.where(y, champion - margin, champion + margin)
    assert any("risks got worse" in sentence for sentence in objections(compared(y, worse, champion, LAX), LAX))


@SETTINGS
@given(seed=seeds)
def test_a_model_is_never_refused_for_being_worse_than_itself(seed):
    rng = np.random.default_rng(seed)
    y = rng.random(ROWS) < 0.3
    risks = rng.uniform(0.05, 0.6, ROWS)
    names = failed(compared(y, risks, risks.copy(), SMALL))
    assert not [name for name in names if "against" in name or "loss" in name]


@SETTINGS
@given(seed=seeds, skill=st.floats(-1, 3))
def test_asking_a_hold_out_again_is_never_easier(seed, skill):
    rng = np.random.default_rng(seed)
    y = rng.random(ROWS) < 0.3
    champion, challenger = rng.uniform(0.05, 0.6, ROWS), np.clip(0.3 + 0.1 * skill * y + rng.normal(0, 0.1, ROWS), 0, 1)
    comparison = compared(y, challenger, champion, SMALL)
    for look in range(1, SMALL.max_looks + 2):
        assert failed(replace(comparison, look=look)) <= failed(replace(comparison, look=look + 1))
    assert "looks" in failed(replace(comparison, look=SMALL.max_looks + 1))
