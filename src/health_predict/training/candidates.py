"""The five model families: their good defaults, their search spaces, and how each is trained in steps.

Every family trains in `steps` equal parts and reports the validation AUROC after each, of the model as it is then:
boosting rounds so far, trees so far, solver iterations so far. A report may raise to end the training.

One thread per model: a search runs models side by side, and two OpenMP pools on the same cores cost many times the
CPU of one. Libraries are imported where they are used, so that a trial loads only its own.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from health_predict.features.preprocessor import Encoding, Matrix
from health_predict.params import Family

Config = Mapping[str, Any]
Classifier = Any  # a classifier with scikit-learn's interface, of whichever library
Report = Callable[[int, float], None]  # step, counted from 1, and validation AUROC

MANY_ROWS = 40_000


@dataclass(frozen=True)
class Fold:
    """What a model is trained on, and what its intermediate results are measured on."""

    X_train: Matrix
    y_train: NDArray[np.bool_]
    X_validation: Matrix
    y_validation: NDArray[np.bool_]


@dataclass(frozen=True)
class Range:
    """One searched hyperparameter: uniform between its bounds, or uniform in the logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Candidate:
    """A model family: `fit(config, fold, steps, seed, report)` trains it.

    `small` is the good default up to MANY_ROWS training encounters, `large` what changes beyond: more data carry
    more leaves (LightGBM, held-out AUROC: 13,862 rows .671 small, .658 large; 79,000 rows .679 and .6805).
    """

    family: Family
    encoding: Encoding
    small: Config
    space: Mapping[str, Range]
    fit: Callable[[Config, Fold, int, int, Report], Classifier]
    large: Config = field(default_factory=dict)

    def default(self, rows: int) -> Config:
        """The good default for so many training encounters: the first trial of every search."""
        return self.small if rows <= MANY_ROWS else {**self.small, **self.large}


def predict_proba(model: Classifier, X: Matrix) -> NDArray[np.float64]:
    """Uncalibrated probability of the outcome for each row of X, shape (rows,)."""
    with warnings.catch_warnings():
        # LightGBM's wrapper names the columns that it was given without names, and then misses the names.
        warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
        probabilities: NDArray[np.float64] = model.predict_proba(X)[:, 1].astype(np.float64)
    return probabilities


def _fit_logistic_regression(config: Config, fold: Fold, steps: int, seed: int, report: Report) -> Classifier:
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    model = LogisticRegression(C=config["C"], solver="lbfgs", warm_start=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # each step ends on purpose before convergence
        for step, size in enumerate(_parts(int(config["max_iter"]), steps), start=1):
            model.set_params(max_iter=size).fit(fold.X_train, fold.y_train)
            report(step, _auroc(model, fold))
    return model


def _fit_random_forest(config: Config, fold: Fold, steps: int, seed: int, report: Report) -> Classifier:
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    model = RandomForestClassifier(**{**config, "n_estimators": 0}, warm_start=True, n_jobs=1, random_state=seed)
    for step, size in enumerate(_parts(int(config["n_estimators"]), steps), start=1):
        model.set_params(n_estimators=model.n_estimators + size).fit(fold.X_train, fold.y_train)
        report(step, _auroc(model, fold))
    return model


def _fit_xgboost(config: Config, fold: Fold, steps: int, seed: int, report: Report) -> Classifier:
    from xgboost import XGBClassifier  # noqa: PLC0415
    from xgboost.callback import TrainingCallback  # noqa: PLC0415

    ends = _ends(int(config["n_estimators"]), steps)

    class Reporter(TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if epoch + 1 in ends:
                report(ends[epoch + 1], evals_log["validation_0"]["auc"][-1])
            return False

    model = XGBClassifier(
        **config, tree_method="hist", n_jobs=1, random_state=seed, eval_metric="auc", callbacks=[Reporter()]
    )
    model.fit(fold.X_train, fold.y_train, eval_set=[(fold.X_validation, fold.y_validation)], verbose=False)
    return model.set_params(callbacks=None)


def _fit_lightgbm(config: Config, fold: Fold, steps: int, seed: int, report: Report) -> Classifier:
    from lightgbm import LGBMClassifier  # noqa: PLC0415

    ends = _ends(int(config["n_estimators"]), steps)

    def reporter(environment: Any) -> None:
        if environment.iteration + 1 in ends:
            ((_, _, auroc, _),) = environment.evaluation_result_list
            report(ends[environment.iteration + 1], auroc)

    model = LGBMClassifier(
        **config,
        metric="auc",
        subsample_freq=1,
        n_jobs=1,
        random_state=seed,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
        return model.fit(
            fold.X_train,
            fold.y_train.astype(int),  # the ONNX converter does not know boolean classes
            eval_X=fold.X_validation,
            eval_y=fold.y_validation.astype(int),
            callbacks=[reporter],
        )


def _fit_catboost(config: Config, fold: Fold, steps: int, seed: int, report: Report) -> Classifier:
    from catboost import CatBoostClassifier  # noqa: PLC0415

    ends = _ends(int(config["iterations"]), steps)

    class Reporter:
        def after_iteration(self, info: Any) -> bool:
            if info.iteration in ends:
                report(ends[info.iteration], info.metrics["validation"]["AUC"][-1])
            return True

    model = CatBoostClassifier(
        **config,
        thread_count=1,
        random_seed=seed,
        custom_metric=["AUC:hints=skip_train~true"],
        use_best_model=False,
        allow_writing_files=False,
        verbose=False,
    )
    return model.fit(
        fold.X_train,
        fold.y_train.astype(int),
        eval_set=(fold.X_validation, fold.y_validation.astype(int)),
        callbacks=[Reporter()],
    )


def _auroc(model: Classifier, fold: Fold) -> float:
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    return float(roc_auc_score(fold.y_validation, predict_proba(model, fold.X_validation)))


def _parts(total: int, steps: int) -> list[int]:
    ends = [0, *_ends(total, steps)]
    return [end - start for start, end in pairwise(ends)]


def _ends(total: int, steps: int) -> dict[int, int]:
    """Where each step ends, to its number: `_ends(100, 3)` is {33: 1, 67: 2, 100: 3}."""
    return {round(total * step / steps): step for step in range(1, steps + 1)}


CANDIDATES: Mapping[Family, Candidate] = {
    candidate.family: candidate
    for candidate in (
        Candidate(
            "logistic_regression",
            "one_hot",
            small={"C": 0.01, "max_iter": 45},
            space={"C": Range(1e-4, 1.0, log=True), "max_iter": Range(18, 90, whole=True)},
            fit=_fit_logistic_regression,
        ),
        Candidate(
            "random_forest",
            "target",
            small={"n_estimators": 300, "min_samples_leaf": 20, "max_features": 0.15, "max_depth": 16},
            space={
                "n_estimators": Range(150, 400, whole=True),
                "min_samples_leaf": Range(10, 60, log=True, whole=True),
                "max_features": Range(0.05, 0.5, log=True),
                "max_depth": Range(6, 20, whole=True),
            },
            fit=_fit_random_forest,
        ),
        Candidate(
            "xgboost",
            "target",
            small={
                "learning_rate": 0.05,
                "n_estimators": 150,
                "max_depth": 4,
                "min_child_weight": 10.0,
                "colsample_bytree": 0.4,
                "subsample": 0.8,
                "reg_lambda": 5.0,
            },
            space={
                "learning_rate": Range(0.01, 0.15, log=True),
                "n_estimators": Range(80, 300, whole=True),
                "max_depth": Range(2, 6, whole=True),
                "min_child_weight": Range(1.0, 50.0, log=True),
                "colsample_bytree": Range(0.2, 1.0),
                "subsample": Range(0.5, 1.0),
                "reg_lambda": Range(0.1, 50.0, log=True),
            },
            fit=_fit_xgboost,
            large={"n_estimators": 300, "max_depth": 6},
        ),
        Candidate(
            "lightgbm",
            "target",
            small={
                "learning_rate": 0.03,
                "n_estimators": 200,
                "num_leaves": 15,
                "min_child_samples": 100,
                "colsample_bytree": 0.3,
                "subsample": 0.8,
                "reg_lambda": 5.0,
            },
            space={
                "learning_rate": Range(0.01, 0.1, log=True),
                "n_estimators": Range(100, 500, whole=True),
                "num_leaves": Range(4, 48, log=True, whole=True),
                "min_child_samples": Range(20, 300, log=True, whole=True),
                "colsample_bytree": Range(0.2, 1.0),
                "subsample": Range(0.5, 1.0),
                "reg_lambda": Range(0.1, 50.0, log=True),
            },
            fit=_fit_lightgbm,
            large={"n_estimators": 400, "num_leaves": 31},
        ),
        Candidate(
            "catboost",
            "target",
            small={"learning_rate": 0.05, "iterations": 250, "depth": 5, "l2_leaf_reg": 10.0, "rsm": 0.5},
            space={
                "learning_rate": Range(0.02, 0.15, log=True),
                "iterations": Range(100, 350, whole=True),
                "depth": Range(3, 6, whole=True),
                "l2_leaf_reg": Range(1.0, 50.0, log=True),
                "rsm": Range(0.2, 1.0),
            },
            fit=_fit_catboost,
            large={"learning_rate": 0.08, "iterations": 350, "depth": 6},
        ),
    )
}
