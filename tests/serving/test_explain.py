"""Contributions add up, leave out what is as usual, and are Shapley values."""

from itertools import permutations

import numpy as np
import pytest

import factories
from health_predict.bundle.explain import _design
from health_predict.data.cohort import select_cohort
from health_predict.data.schema import FACTORS
from health_predict.serving.core.model import load_model
from serving.support import CLINICAL_NAMES


@pytest.fixture(scope="module")
def explainer(bundle_folder):
    return load_model(bundle_folder).explainer


def test_contributions_add_up_to_the_difference_from_the_reference(explainer):
    for encounter in select_cohort(factories.encounters(100, seed=72)).to_dicts():
        explained = explainer.explain(encounter)
        total = explained.reference_probability + sum(c.amount for c in explained.contributions)
        assert total == pytest.approx(explained.probability, abs=1e-12)
        assert explained.probability == explainer.bundle.predict_one(encounter)


def test_contributions_add_up_beside_codes_of_icd10(explainer):
    encounter = {**explainer.reference, "diag_1": "I5023", "diag_2": "V58", "diag_3": "E878"}
    explained = explainer.explain(encounter)
    total = explained.reference_probability + sum(c.amount for c in explained.contributions)
    assert total == pytest.approx(explained.probability, abs=1e-12)
    assert explained.probability == explainer.bundle.predict_one(encounter)


def test_the_reference_has_nothing_to_explain(explainer):
    assert all(c.amount == 0 for c in explainer.explain(explainer.reference).contributions)


def test_a_factor_that_is_as_usual_contributes_nothing(explainer):
    encounter = {**explainer.reference, "number_inpatient": 6, "age": "[30-40)"}
    found = {c.factor.name: c.amount for c in explainer.explain(encounter).contributions}
    assert {name for name, amount in found.items() if amount} <= {"Hospital use in the year before", "Age"}
    assert found["Hospital use in the year before"] > 0


def test_every_clinical_field_belongs_to_one_factor():
    grouped = [name for factor in FACTORS for name in factor.fields]
    assert sorted(grouped) == sorted(CLINICAL_NAMES)


@pytest.mark.parametrize("factors", [1, 3, 5])
def test_few_factors_get_their_exact_shapley_values(factors):
    coalitions, weights = _design(factors)
    values = np.random.default_rng(1).random(len(coalitions)).tolist()
    score = {tuple(row): value for row, value in zip(coalitions.tolist(), values, strict=True)}
    expected = np.zeros(factors)
    orders = list(permutations(range(factors)))
    for order in orders:
        present = [False] * factors
        for factor in order:
            before = score[tuple(present)]
            present[factor] = True
            expected[factor] += (score[tuple(present)] - before) / len(orders)
    np.testing.assert_allclose(weights @ np.array(list(score.values())), expected, atol=1e-12)
