"""What quality a family reaches on the whole cohort, by two protocols that leak nothing.

`grouped-cv`: folds of patients; every encounter is scored by a model that has seen no encounter of its patient.
`chronological`: trained on the first encounters in file order, scored on the last.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from health_predict.data.cohort import LabelledEncounters
from health_predict.features.encounters import engineer
from health_predict.features.preprocessor import Preprocessor
from health_predict.params import Family, PreprocessorParams, Protocol, SearchParams, StudyParams
from health_predict.training.candidates import CANDIDATES, Fold, predict_proba
from health_predict.training.fit import best_f1_threshold, calibrate

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class StudyScores:
    """The encounters that were scored, as positions in the cohort, and what they were given."""

    rows: Rows
    y_proba: NDArray[np.float64]
    threshold: float  # of the last fold


def study(
    cohort: LabelledEncounters,
    protocol: Protocol,
    family: Family,
    params: StudyParams,
    preprocessor: PreprocessorParams,
    search: SearchParams,
    on_fold: Callable[[int, int], None],
) -> StudyScores:
    """Scores of a family's default configuration, calibrated on patients of the training part held back for it.

    `on_fold(done, folds)` hears of every fold. Row order within `rows` is that of the cohort.
    """
    features = engineer(cohort.encounters)
    scored, scores, threshold = [], [], 0.0
    folds = list(_folds(cohort, protocol, params))
    for number, (train, test) in enumerate(folds, start=1):
        proba, threshold = _score(features, cohort, train, test, family, params, preprocessor, search)
        scored.append(test)
        scores.append(proba)
        on_fold(number, len(folds))
    rows = np.concatenate(scored)
    order = np.argsort(rows)
    return StudyScores(rows[order], np.concatenate(scores)[order], threshold)


def _folds(cohort: LabelledEncounters, protocol: Protocol, params: StudyParams) -> Iterator[tuple[Rows, Rows]]:
    rows = np.arange(len(cohort.encounters))
    if protocol == "chronological":
        first = round(len(rows) * (1 - params.holdout_share))
        yield rows[:first], rows[first:]
    else:
        yield from GroupKFold(params.folds, shuffle=True, random_state=params.seed).split(rows, groups=cohort.patients)


def _score(
    features: pl.DataFrame,
    cohort: LabelledEncounters,
    train: Rows,
    test: Rows,
    family: Family,
    params: StudyParams,
    preprocessor_params: PreprocessorParams,
    search: SearchParams,
) -> tuple[NDArray[np.float64], float]:
    held_back = GroupShuffleSplit(1, test_size=params.calibration_share, random_state=params.seed)
    fitted, calibration = (train[part] for part in next(held_back.split(train, groups=cohort.patients[train])))
    candidate, y = CANDIDATES[family], cohort.outcomes
    preprocessor = Preprocessor(candidate.encoding, preprocessor_params)
    X_train = preprocessor.fit_transform(features[fitted], y[fitted])
    X_calibration = preprocessor.transform(features[calibration])
    fold = Fold(X_train, y[fitted], X_calibration, y[calibration])
    model = candidate.fit(candidate.default(len(fitted)), fold, search.reports, search.seed, lambda _step, _auroc: None)
    scores = predict_proba(model, X_calibration)
    recalibration = calibrate(scores, y[calibration])
    threshold = best_f1_threshold(recalibration.apply(scores), y[calibration])
    return recalibration.apply(predict_proba(model, preprocessor.transform(features[test]))), threshold
