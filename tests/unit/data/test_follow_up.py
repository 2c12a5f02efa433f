import numpy as np
import polars as pl
import pytest

from factories import encounters
from health_predict.data.cohort import label
from health_predict.data.follow_up import (
    REPRESENTS,
    FollowUp,
    for_training,
    judgeable,
    represent,
    together,
    with_representation,
)
from health_predict.data.splits import pool, retraining, supply, total
from health_predict.params import AssemblyParams, FollowUpParams, GateParams

PARAMS = FollowUpParams()
ROWS = 4_000
RISKS = np.linspace(0.02, 0.6, ROWS)
FLAGGED = RISKS >= 0.2
RNG = np.random.default_rng(5)
OUTCOMES = RNG.random(ROWS) < RISKS
CHANCE = RNG.random(ROWS) < 0.5


def care(followed_up, without=None) -> FollowUp:
    """Care that says of every flagged encounter what was done, or only what is given."""
    return FollowUp(RISKS, FLAGGED, followed_up, FLAGGED & ~followed_up if without is None else without)


def test_those_not_followed_up_stand_for_all_of_about_the_same_risk():
    followed_up = FLAGGED & CHANCE
    found = represent(OUTCOMES, care(followed_up), PARAMS)
    assert found.unknown is None
    assert found.weights.sum() == pytest.approx(ROWS)
    assert found.weights[FLAGGED].sum() == pytest.approx(FLAGGED.sum())
    assert not found.weights[followed_up].any()
    assert (found.weights[~FLAGGED] == 1).all()
    assert found.weights @ RISKS == pytest.approx(RISKS.sum(), rel=0.01)


def test_where_care_chose_the_sickest_the_rest_of_each_stratum_makes_up_for_them():
    likely = np.where(RISKS > 0.4, 0.8, 0.2)
    followed_up = FLAGGED & (np.random.default_rng(6).random(ROWS) < likely)
    weights = represent(OUTCOMES, care(followed_up), PARAMS).weights
    others = ~followed_up
    assert RISKS[others].mean() < 0.97 * RISKS.mean()
    assert weights @ RISKS / weights.sum() == pytest.approx(RISKS.mean(), rel=0.01)


def test_with_follow_up_everywhere_it_is_told_that_nobody_can_know():
    found = represent(OUTCOMES, care(FLAGGED), PARAMS)
    assert not found.weights.any()
    assert "cannot be known" in found.unknown
    above = FLAGGED & (CHANCE | (RISKS > 0.5))  # everybody above a second threshold
    assert represent(OUTCOMES, care(above), PARAMS).unknown


def test_a_flagged_encounter_of_which_nothing_is_said_is_not_taken_for_one_without_follow_up():
    followed_up, silent = FLAGGED & CHANCE, np.zeros(ROWS, dtype=bool)
    assert represent(OUTCOMES, care(followed_up, silent), PARAMS).unknown
    half = FLAGGED & ~CHANCE & (np.arange(ROWS) % 2 == 0)
    found = represent(OUTCOMES, care(followed_up, half), PARAMS)
    assert set(np.flatnonzero(found.weights)) == set(np.flatnonzero(~FLAGGED | half))
    assert found.weights.sum() == pytest.approx(ROWS)


def test_an_assumed_effect_gives_back_the_readmissions_that_it_prevented():
    prevented = FLAGGED & OUTCOMES & (np.random.default_rng(7).random(ROWS) >= 0.7)
    became = OUTCOMES & ~prevented
    found = represent(became, care(FLAGGED), FollowUpParams(assumed_ratio=0.7))
    assert found.unknown is None
    assert found.weights.sum() == pytest.approx(ROWS)
    assert found.weights @ became == pytest.approx(OUTCOMES.sum(), rel=0.05)
    assert became.sum() < 0.85 * OUTCOMES.sum()


def test_to_fit_on_those_followed_up_count_too_with_what_it_prevented_given_back():
    followed_up = FLAGGED & CHANCE
    became = OUTCOMES & ~(followed_up & (np.random.default_rng(9).random(ROWS) >= 0.7))
    table = pl.DataFrame(
        {"encounter_id": np.arange(ROWS), REPRESENTS: represent(became, care(followed_up), PARAMS).weights}
    )
    train = table.sample(fraction=0.9, seed=1)
    found = for_training(train, [(table, became, care(followed_up))], PARAMS)
    assert found.drop(REPRESENTS).equals(train.drop(REPRESENTS))
    weights, rows = found[REPRESENTS].to_numpy(), found["encounter_id"].to_numpy()
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(train.height, rel=0.01)
    mine = followed_up[rows]
    assert weights[mine] @ became[rows][mine] == pytest.approx(OUTCOMES[rows][mine].sum(), rel=0.1)
    assert (weights[~mine] == 1).all()


def test_where_what_follow_up_prevents_cannot_be_measured_those_followed_up_stay_out():
    followed_up = FLAGGED & CHANCE
    table = pl.DataFrame({"encounter_id": np.arange(ROWS), REPRESENTS: np.where(followed_up, 0.0, 1.0)})
    assert for_training(table, [], PARAMS).equals(table)
    nobody = np.zeros(ROWS, dtype=bool)
    assert for_training(table, [(table, nobody, care(followed_up))], PARAMS).equals(table)


def test_tables_without_follow_up_are_put_together_as_they_are():
    one, two = encounters(50, seed=1), encounters(60, seed=2)
    assert together([one, two]).equals(pl.concat([one, two]))
    joined = together([one, with_representation(two, np.arange(60.0))])
    assert joined[REPRESENTS].to_list() == [1.0] * 50 + list(range(60))
    assert judgeable(joined).height == 109


def test_labels_keep_whom_each_encounter_represents():
    table = with_representation(encounters(60, seed=2), np.arange(60.0))
    labelled = label(table, "lt30")
    assert REPRESENTS not in labelled.encounters.columns
    assert labelled.represents.tolist() == list(range(60))
    kept = labelled.judgeable
    assert (len(kept.encounters), len(kept.outcomes), kept.represents.min()) == (59, 59, 1.0)
    assert label(encounters(60, seed=2), "lt30").represents is None


def test_a_hold_out_has_its_rows_in_encounters_that_can_be_judged():
    first, batch = encounters(400, seed=3), encounters(1_000, seed=4)
    batch = batch.with_columns(pl.col("encounter_id", "patient_nbr") + 10_000_000)
    weights = np.where(np.random.default_rng(8).random(1_000) < 0.3, 0.0, 1.5)
    matured = [first, with_representation(batch, weights)]
    assert supply(matured[1]).rows == total([matured[1]]).rows == (weights > 0).sum()
    params, gate = AssemblyParams(test_rows=200, validation_rows=100), GateParams(min_rows=100, min_outcomes=3)
    parts = retraining(matured, pool(matured[1:], first["encounter_id"], params, gate), params, gate)
    assert 200 <= judgeable(parts.test).height < parts.test.height
    assert judgeable(parts.validation).height >= 100
    ids = pl.concat([part["encounter_id"] for part in (parts.train, parts.validation, parts.test)])
    assert ids.is_unique().all()
