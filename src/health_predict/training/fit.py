"""Fits the final model of a family: with its best configuration, calibrated, with a threshold."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from health_predict.data.cohort import LabelledEncounters
from health_predict.errors import DataError
from health_predict.evaluation.metrics import evaluate
from health_predict.evaluation.operating_point import threshold_at
from health_predict.features.calibration import Calibration, log_odds
from health_predict.features.preprocessor import Preprocessor
from health_predict.params import BootstrapParams, Encoding, Family, PreprocessorParams, SearchParams
from health_predict.training.candidate import Classifier, Config, Fold, Report, predict_proba
from health_predict.training.candidates import CANDIDATES


@dataclass(frozen=True)
class Prepared:
    """One encoding of the training and validation encounters, shared by the families that use it."""

    preprocessor: Preprocessor
    fold: Fold


@dataclass(frozen=True)
class Fitted:
    """A trained model with its preprocessing, calibration and threshold."""

    family: Family
    config: Config
    preprocessor: Preprocessor
    model: Classifier
    calibration: Calibration
    threshold: float  # probability from which an encounter is flagged

    def predict_proba(self, encounters: pl.DataFrame) -> NDArray[np.float64]:
        """Calibrated probability of the outcome for each typed encounter, shape (rows,), row order kept."""
        X = self.preprocessor.transform(self.preprocessor.engineer(encounters))
        return self.calibration.apply(log_odds(predict_proba(self.model, X)))


def prepare(
    encoding: Encoding, train: LabelledEncounters, validation: LabelledEncounters, params: PreprocessorParams
) -> Prepared:
    """Fit the preprocessing on the training encounters and transform both parts.

    Encounters with weight 0 are left out of both parts. The rates of categories count the others once each: weights
    would change only the encoding of a category. Raises DataError where a part has too few encounters with, or without,
    the outcome.
    """
    train, validation = train.judgeable, validation.judgeable
    _check_outcomes(params.min_of_each_outcome, training=train, validation=validation)
    preprocessor = Preprocessor(encoding, params)
    X_train = preprocessor.fit_transform(preprocessor.engineer(train.encounters), train.outcomes)
    X_validation = preprocessor.transform(preprocessor.engineer(validation.encounters))
    weights = train.represents, validation.represents
    return Prepared(preprocessor, Fold(X_train, train.outcomes, X_validation, validation.outcomes, *weights))


def _check_outcomes(least: int, **parts: LabelledEncounters) -> None:
    for name, part in parts.items():
        with_it, without = int(part.outcomes.sum()), int((~part.outcomes).sum())
        if min(with_it, without) < least:
            raise DataError(
                f"too little to learn from: of {with_it + without:,} {name} encounters {with_it:,} have the outcome "
                f"and {without:,} have not, where {least} of each are needed; give more encounters"
            )


def fit(
    family: Family,
    config: Config,
    prepared: Prepared,
    params: SearchParams,
    capacity: float,
    report: Report = lambda _step, _auroc: None,
) -> Fitted:
    """Train one configuration for all steps, and calibrate the model on the validation part.

    The threshold is the risk from which the share `capacity` of the validation part is flagged.
    """
    fold = prepared.fold
    model = CANDIDATES[family].fit(config, fold, params.reports, params.seed, report)
    scores = log_odds(predict_proba(model, fold.X_validation))
    calibration = calibrate(scores, fold.y_validation, fold.w_validation)
    threshold = threshold_at(capacity, calibration.apply(scores), fold.w_validation)
    return Fitted(family, config, prepared.preprocessor, model, calibration, threshold)


def calibrate(
    scores: NDArray[np.float64], y: NDArray[np.bool_], represents: NDArray[np.float64] | None = None
) -> Calibration:
    """Maximum-likelihood logistic recalibration of log-odds `scores` to outcomes, both of shape (rows,)."""
    model = LogisticRegression(C=np.inf, tol=1e-8).fit(scores[:, None], y, represents)
    return Calibration(float(model.intercept_[0]), float(model.coef_[0, 0]))


def cross_calibrated(y_proba: NDArray[np.float64], labelled: LabelledEncounters, folds: int) -> NDArray[np.float64]:
    """Probabilities of the encounters, each calibrated on the encounters of other patients, shape (rows,), order kept.

    `y_proba` are the model's probabilities for `labelled`. Its patients are divided into `folds`, or as many as there
    are patients; a calibration fitted on the other folds replaces that of each fold.
    """
    scores, y, represents = log_odds(y_proba), labelled.outcomes, labelled.represents
    divided = GroupKFold(min(folds, len(np.unique(labelled.patients))))
    calibrated = np.empty(len(scores))
    for others, fold in divided.split(scores, groups=labelled.patients):
        weights = None if represents is None else represents[others]
        calibrated[fold] = calibrate(scores[others], y[others], weights).apply(scores[fold])
    return calibrated


def recalibration(
    y_proba: NDArray[np.float64],
    y: NDArray[np.bool_],
    patients: NDArray[np.int64],
    params: BootstrapParams,
    represents: NDArray[np.float64] | None = None,
) -> Calibration:
    """Recalibration of probabilities to the outcomes of newer encounters, both of shape (rows,).

    Only the intercept changes where the interval of the calibration slope contains 1 (Vergouwe et al., Statistics in
    Medicine 2017;36:4529), or where the slope is not positive, which would reverse the order of the risks; otherwise
    intercept and slope. Raises DataError as `metrics.evaluate` does.
    """
    found = evaluate(y, y_proba, patients, threshold=0.5, params=params, represents=represents)
    slope = found.calibration_slope
    if slope is None or slope.lower <= 1 <= slope.upper or slope.estimate <= 0:
        return Calibration(found.calibration_intercept.estimate)
    return calibrate(log_odds(y_proba), y, represents)


def importance(fitted: Fitted) -> dict[str, float]:
    """Share of each engineered feature in the model's own measure of importance, adding up to 1.

    The measure is the library's (gain, impurity), for a linear model the absolute standardised coefficient; one-hot
    columns are added up to their feature.
    """
    columns = fitted.preprocessor.feature_names
    values = fitted.model.coef_[0] if hasattr(fitted.model, "coef_") else fitted.model.feature_importances_
    shares: dict[str, float] = {}
    for column, value in zip(columns, np.abs(values) / np.abs(values).sum(), strict=True):
        feature = column.partition("=")[0]
        shares[feature] = shares.get(feature, 0.0) + float(value)
    return shares
