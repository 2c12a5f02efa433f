"""Models learn from whom encounters represent, in every family; and where all stand for themselves, as ever."""

from dataclasses import replace

import numpy as np
import pytest

import factories
from health_predict.data.cohort import label, select_cohort
from health_predict.params import BundleParams, PreprocessorParams, SearchParams
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import fit, prepare

TRAIN = label(select_cohort(factories.encounters(2_000, seed=41)), "lt30")
VALIDATION = label(select_cohort(factories.encounters(800, seed=42)), "lt30")


def fitted(family, train, validation):
    candidate = CANDIDATES[family]
    prepared = prepare(candidate.encoding, train, validation, PreprocessorParams())
    return fit(family, candidate.default(len(train.outcomes)), prepared, SearchParams(), BundleParams.capacity)


@pytest.mark.parametrize("family", CANDIDATES)
def test_whom_nobody_represents_is_not_learnt_from(family):
    without = np.random.default_rng(1).random(2_000)[: len(TRAIN.outcomes)] < 0.2
    train = replace(TRAIN, represents=np.where(without, 0.0, 1.0))
    flipped = replace(train, outcomes=TRAIN.outcomes ^ without)  # whatever became of them
    validation = replace(VALIDATION, represents=np.ones(len(VALIDATION.outcomes)))
    found = fitted(family, train, validation).predict_proba(VALIDATION.encounters)
    assert np.array_equal(found, fitted(family, flipped, validation).predict_proba(VALIDATION.encounters))
    if family != "random_forest":  # whose trees draw other rows where rows have weights
        assert np.allclose(found, fitted(family, TRAIN.of(~without), VALIDATION).predict_proba(VALIDATION.encounters))


@pytest.mark.parametrize("family", CANDIDATES)
def test_readmissions_that_represent_more_make_risks_higher(family):
    def times(part):
        return replace(part, represents=np.where(part.outcomes, 2.0, 1.0))

    plain = fitted(family, TRAIN, VALIDATION)
    found = fitted(family, times(TRAIN), times(VALIDATION))
    doubled = times(VALIDATION).represents
    assert found.predict_proba(VALIDATION.encounters).mean() > 1.4 * plain.predict_proba(VALIDATION.encounters).mean()
    risks = found.predict_proba(VALIDATION.encounters)
    assert doubled @ risks == pytest.approx(doubled @ VALIDATION.outcomes, rel=0.01)  # calibrated on those represented
