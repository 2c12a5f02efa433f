"""No outcome of an encounter under evaluation, nor of its patient, reaches what it is scored with."""

import numpy as np
import pytest

import factories
from health_predict.data.cohort import LabelledEncounters, label, select_cohort
from health_predict.params import PreprocessorParams, SearchParams, StudyParams
from health_predict.training.study import study

COHORT = label(select_cohort(factories.encounters(1_200, seed=21)), "lt30")
PARAMS = StudyParams(folds=3)


def scored(protocol, outcomes):
    cohort = LabelledEncounters(COHORT.encounters, outcomes)
    return study(cohort, protocol, "lightgbm", PARAMS, PreprocessorParams(), SearchParams(), lambda *_: None)


@pytest.fixture(scope="module")
def by_patient():
    return scored("grouped-cv", COHORT.outcomes)


def test_other_outcomes_of_the_last_encounters_change_no_score_of_theirs():
    as_it_was = scored("chronological", COHORT.outcomes)
    changed = COHORT.outcomes.copy()
    changed[as_it_was.rows] = ~changed[as_it_was.rows]
    assert np.array_equal(scored("chronological", changed).y_proba, as_it_was.y_proba)


def test_other_outcomes_of_a_patient_change_scores_of_others_alone(by_patient):
    people, encounters = np.unique(COHORT.patients, return_counts=True)
    patient = people[encounters.argmax()]
    theirs = patient == COHORT.patients
    assert theirs.sum() > 1  # comes back, so that encounters of theirs could inform each other
    changed = np.where(theirs, ~COHORT.outcomes, COHORT.outcomes)
    again = scored("grouped-cv", changed)
    assert np.array_equal(again.y_proba[theirs], by_patient.y_proba[theirs])
    assert not np.array_equal(again.y_proba, by_patient.y_proba)


def test_every_encounter_is_scored_once(by_patient):
    assert np.array_equal(by_patient.rows, np.arange(len(COHORT.encounters)))
