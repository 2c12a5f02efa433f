"""Every encounter is in one group of each attribute, and small groups make no claims."""

import numpy as np
import polars as pl
import pytest

from health_predict.data.cohort import outcome, select_cohort
from health_predict.errors import DataError
from health_predict.evaluation.metrics import evaluate
from health_predict.evaluation.subgroups import subgroups
from health_predict.params import BootstrapParams
from health_predict.simulation.synthetic import generate

FEW = BootstrapParams(replicates=30)


@pytest.fixture(scope="module")
def cohort():
    encounters = select_cohort(generate(3_000, seed=5))
    rng = np.random.default_rng(0)
    y = outcome(encounters)
    return encounters, y, np.clip(0.12 + 0.05 * y + rng.normal(0, 0.05, len(y)), 0.01, 0.99)


def find(found, group):
    return next(subgroup for subgroup in found if subgroup.group == group)


def test_the_groups_of_each_attribute_add_up_to_all_encounters(cohort):
    encounters, y, p = cohort
    found = subgroups(encounters, y, p, threshold=0.15, params=FEW, min_outcomes=20)
    for attribute in ("sex", "race", "age"):
        groups = [subgroup for subgroup in found if subgroup.attribute == attribute]
        assert sum(subgroup.rows for subgroup in groups) == len(encounters)
        assert sum(subgroup.outcomes for subgroup in groups) == y.sum()
    assert [s.group for s in found if s.attribute == "age"] == ["30 to 59", "60 to 69", "70 and over", "under 30"]
    assert find(found, "missing").rows == encounters["race"].null_count()


def test_a_groups_metrics_are_those_of_its_encounters_alone(cohort):
    encounters, y, p = cohort
    women = (encounters["gender"] == "Female").to_numpy()
    alone = evaluate(y[women], p[women], encounters["patient_nbr"].to_numpy()[women], 0.15, FEW)
    found = find(subgroups(encounters, y, p, threshold=0.15, params=FEW, min_outcomes=20), "Female")
    bounds = (found.auroc.estimate, found.auroc.lower, found.auroc.upper)
    assert bounds == (alone.auroc.estimate, alone.auroc.lower, alone.auroc.upper)
    assert (found.precision, found.flag_rate) == (alone.precision, alone.flag_rate)
    assert found.false_negative_rate.estimate == pytest.approx(1 - alone.recall.estimate)
    assert found.false_negative_rate.lower <= found.false_negative_rate.estimate <= found.false_negative_rate.upper
    assert found.auroc_difference is None


def test_small_groups_are_counted_and_not_judged(cohort):
    encounters, y, p = cohort
    found = subgroups(encounters, y, p, threshold=0.15, params=FEW, min_outcomes=20)
    small = find(found, "Asian")
    assert small.too_small
    assert small.rows > 0
    assert small.auroc is small.observed_expected is small.flag_rate is small.auroc_difference is None
    everyone = subgroups(encounters, y, p, threshold=0.15, params=FEW, min_outcomes=10_000)
    assert all(subgroup.too_small for subgroup in everyone)
    nobody = y & (encounters["gender"] == "Female").to_numpy()
    assert find(subgroups(encounters, nobody, p, threshold=0.15, params=FEW, min_outcomes=0), "Male").too_small


def test_the_difference_from_the_same_champion_is_zero(cohort):
    encounters, y, p = cohort
    found = subgroups(encounters, y, p, threshold=0.15, params=FEW, min_outcomes=20, champion_proba=p)
    differences = [subgroup.auroc_difference for subgroup in found if not subgroup.too_small]
    assert differences
    assert all((d.estimate, d.lower, d.upper) == (0.0, 0.0, 0.0) for d in differences)


def test_an_age_outside_the_known_bands_is_unknown(cohort):
    encounters, y, p = cohort
    odd = encounters.with_columns(pl.lit("[200-210)").alias("age"))
    assert find(subgroups(odd, y, p, threshold=0.15, params=FEW, min_outcomes=20), "unknown").rows == len(odd)


def test_outcomes_for_other_encounters_are_refused(cohort):
    encounters, y, p = cohort
    with pytest.raises(DataError, match="one for each"):
        subgroups(encounters, y[1:], p[1:], threshold=0.15, params=FEW, min_outcomes=20)
