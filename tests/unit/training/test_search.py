import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import factories
from health_predict.data.cohort import label, select_cohort
from health_predict.params import BundleParams, PreprocessorParams, SearchParams
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import fit, prepare
from health_predict.training.search import Search, Trial, only_trial

TRIALS = (
    Trial(0, {"depth": 4}, (0.60, 0.62, 0.64), stopped=False, seconds=3.0),
    Trial(1, {"depth": 2}, (0.70,), stopped=True, seconds=1.0),
    Trial(2, {"depth": 3}, (0.61, 0.63, 0.66), stopped=False, seconds=3.0),
    Trial(3, {"depth": 6}, (0.50,), stopped=True, seconds=1.0),
    Trial(4, {"depth": 5}, (0.61, 0.66, 0.66), stopped=False, seconds=3.0),
)


def test_best_is_the_highest_at_the_end_and_of_equals_the_earliest():
    assert Search("xgboost", TRIALS).best.number == 2


def test_a_stopped_trial_is_never_the_best_however_it_began():
    assert Search("xgboost", TRIALS[:2]).best.number == 0


def test_stops_are_counted_by_step():
    found = Search("xgboost", (*TRIALS, Trial(5, {}, (0.6, 0.6), stopped=True, seconds=2.0)))
    assert found.stopped_at == {1: 2, 2: 1}
    assert found.stopped_share == pytest.approx(0.5)


def test_a_single_trial_is_the_default_fitted_to_its_end_and_that_is_the_model():
    train, validation = (label(select_cohort(factories.encounters(rows, seed=rows)), "lt30") for rows in (900, 600))
    prepared = prepare("target", train, validation, PreprocessorParams())
    heard = []
    search, fitted = only_trial(
        "lightgbm", prepared, SearchParams(trials=1), BundleParams.capacity, lambda *told: heard.append(told)
    )
    (trial,) = search.trials
    assert heard == [("lightgbm", trial)]
    assert search.best == trial
    assert trial.config == CANDIDATES["lightgbm"].default(len(train.outcomes))
    assert len(trial.auroc) == SearchParams().reports
    proba = fitted.predict_proba(validation.encounters)
    assert trial.score == pytest.approx(roc_auc_score(validation.outcomes, proba))
    again = fit("lightgbm", trial.config, prepared, SearchParams(), BundleParams.capacity)
    assert np.array_equal(again.predict_proba(validation.encounters), proba)
