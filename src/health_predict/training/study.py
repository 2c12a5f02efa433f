"""Scores of a model family on the whole cohort, by two protocols without leakage.

`grouped-cv`: folds of patients; every encounter is scored by a model that has seen no encounter of its patient.
`chronological`: trained on the first encounters in file order, scored on the last.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from health_predict.data.cohort import LabelledEncounters
from health_predict.features.encounters import engineer, without
from health_predict.features.preprocessor import Preprocessor
from health_predict.params import Family, PreprocessorParams, Protocol, SearchParams, StudyParams
from health_predict.training.candidate import Candidate, Fold, predict_proba
from health_predict.training.candidates import CANDIDATES

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class StudyScores:
    """Positions in the cohort of the encounters that were scored, ascending, and their scores."""

    rows: Rows
    y_proba: NDArray[np.float64]


def study(
    cohort: LabelledEncounters,
    protocol: Protocol,
    family: Family,
    params: StudyParams,
    preprocessor: PreprocessorParams,
    search: SearchParams,
    on_fold: Callable[[int, int], None],
) -> StudyScores:
    """Scores, 0 to 1, of a family's default configuration, without recalibration.

    A recalibration of each fold would take encounters from its training, and its noise would shift folds against
    each other. `on_fold(done, folds)` is called after every fold.
    """
    features = engineer(cohort.encounters, without(preprocessor.exclude or ()))
    scored, scores = [], []
    folds = list(_folds(cohort, protocol, params))
    for number, (train, test) in enumerate(folds, start=1):
        scored.append(test)
        scores.append(_score(features, cohort.outcomes, train, test, CANDIDATES[family], preprocessor, search))
        on_fold(number, len(folds))
    rows = np.concatenate(scored)
    order = np.argsort(rows)
    return StudyScores(rows[order], np.concatenate(scores)[order])


def _folds(cohort: LabelledEncounters, protocol: Protocol, params: StudyParams) -> Iterator[tuple[Rows, Rows]]:
    rows = np.arange(len(cohort.encounters))
    if protocol == "chronological":
        first = round(len(rows) * (1 - params.holdout_share))
        yield rows[:first], rows[first:]
    else:
        folds = GroupKFold(params.folds, shuffle=True, random_state=params.seed)
        yield from folds.split(rows, groups=cohort.patients)


def _score(
    features: pl.DataFrame,
    y: NDArray[np.bool_],
    train: Rows,
    test: Rows,
    candidate: Candidate,
    preprocessor_params: PreprocessorParams,
    search: SearchParams,
) -> NDArray[np.float64]:
    preprocessor = Preprocessor(candidate.encoding, preprocessor_params)
    X_train = preprocessor.fit_transform(features[train], y[train])
    # Intermediate results decide nothing here, so they are measured on the training part itself.
    fold = Fold(X_train, y[train], X_train, y[train])
    model = candidate.fit(candidate.default(len(train)), fold, 1, search.seed, lambda _step, _auroc: None)
    return predict_proba(model, preprocessor.transform(features[test]))
