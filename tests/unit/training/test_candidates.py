"""Every family trains in steps, reports what the model is then, and can be ended by its report."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import factories
from health_predict.data.cohort import label, select_cohort
from health_predict.params import Family, PreprocessorParams
from health_predict.training.candidate import predict_proba
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import prepare

TRAIN = label(select_cohort(factories.encounters(900, seed=31)), "lt30")
VALIDATION = label(select_cohort(factories.encounters(400, seed=32)), "lt30")
PREPARED = {encoding: prepare(encoding, TRAIN, VALIDATION, PreprocessorParams()) for encoding in ("target", "one_hot")}
FAMILIES = tuple(CANDIDATES)
SIZE = {"logistic_regression": "max_iter", "catboost": "iterations"}  # n_estimators elsewhere


class EndedError(Exception):
    pass


def small(family: Family, size: int = 12) -> dict:
    return {**CANDIDATES[family].default(900), SIZE.get(family, "n_estimators"): size}


def fold_of(family: Family):
    return PREPARED[CANDIDATES[family].encoding].fold


def fit(family: Family, report, seed: int = 3):
    return CANDIDATES[family].fit(small(family), fold_of(family), 3, seed, report)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_reported_in_order_and_the_last_is_the_model(family):
    reports = []
    model = fit(family, lambda step, auroc: reports.append((step, auroc)))
    assert [step for step, _ in reports] == [1, 2, 3]
    fold = fold_of(family)
    expected = roc_auc_score(fold.y_validation, predict_proba(model, fold.X_validation))
    assert reports[-1][1] == pytest.approx(expected, abs=2e-4)  # boosters measure in single precision
    assert len({auroc for _, auroc in reports}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_report_that_raises_ends_the_training(family):
    steps = []

    def end(step: int, _auroc: float) -> None:
        steps.append(step)
        raise EndedError("told to end")

    with pytest.raises(Exception, match="told to end"):  # CatBoost wraps it in an error of its own
        fit(family, end)
    assert steps == [1]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_seed_gives_one_model(family):
    scores = [predict_proba(fit(family, lambda *_: None), fold_of(family).X_validation) for _ in range(2)]
    assert np.array_equal(*scores)
    assert ((scores[0] > 0) & (scores[0] < 1)).all()


def test_a_trial_has_one_row_for_each_training_encounter():
    """Nothing is resampled, before or after the split: the matrix and the outcomes are the training encounters'."""
    for prepared in PREPARED.values():
        assert prepared.fold.X_train.shape[0] == TRAIN.encounters["encounter_id"].n_unique()
        assert np.array_equal(prepared.fold.y_train, TRAIN.outcomes)
        assert prepared.fold.X_validation.shape[0] == len(VALIDATION.encounters)
        assert np.array_equal(prepared.fold.y_validation, VALIDATION.outcomes)
