"""The model families: the training, the default configuration and the search space of each.

One thread per model: a search trains models in parallel, and two OpenMP pools on the same cores cost many times the
CPU of one. Libraries are imported where they are used, so that a trial loads only its own.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from health_predict.params import Family
from health_predict.training.candidate import (
    Candidate,
    Classifier,
    Fold,
    Range,
    Report,
    by_family,
    ends_of,
    parts_of,
    validation_auroc,
)
from health_predict.training.converters import convert_catboost, convert_lightgbm, convert_sklearn, convert_xgboost


def _train_logistic_regression(
    fold: Fold, steps: int, seed: int, report: Report, *, C: float, max_iter: int
) -> Classifier:
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    model = LogisticRegression(C=C, solver="lbfgs", warm_start=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # steps end before convergence on purpose
        for step, size in enumerate(parts_of(max_iter, steps), start=1):
            model.set_params(max_iter=size).fit(fold.X_train, fold.y_train, fold.w_train)
            report(step, validation_auroc(model, fold))
    return model


def _train_random_forest(
    fold: Fold,
    steps: int,
    seed: int,
    report: Report,
    *,
    n_estimators: int,
    min_samples_leaf: int,
    max_features: float,
    max_depth: int,
) -> Classifier:
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    model = RandomForestClassifier(
        n_estimators=0,
        min_samples_leaf=min_samples_leaf,
        max_features=max_features,
        max_depth=max_depth,
        warm_start=True,
        n_jobs=1,
        random_state=seed,
    )
    for step, size in enumerate(parts_of(n_estimators, steps), start=1):
        model.set_params(n_estimators=model.n_estimators + size).fit(fold.X_train, fold.y_train, fold.w_train)
        report(step, validation_auroc(model, fold))
    return model


def _train_xgboost(
    fold: Fold,
    steps: int,
    seed: int,
    report: Report,
    *,
    learning_rate: float,
    n_estimators: int,
    max_depth: int,
    min_child_weight: float,
    colsample_bytree: float,
    subsample: float,
    reg_lambda: float,
) -> Classifier:
    from xgboost import XGBClassifier  # noqa: PLC0415
    from xgboost.callback import TrainingCallback  # noqa: PLC0415

    ends = ends_of(n_estimators, steps)

    class Reporter(TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if epoch + 1 in ends:
                report(ends[epoch + 1], evals_log["validation_0"]["auc"][-1])
            return False

    model = XGBClassifier(
        learning_rate=learning_rate,
        n_estimators=n_estimators,
        max_depth=max_depth,
        min_child_weight=min_child_weight,
        colsample_bytree=colsample_bytree,
        subsample=subsample,
        reg_lambda=reg_lambda,
        tree_method="hist",
        n_jobs=1,
        random_state=seed,
        eval_metric="auc",
        callbacks=[Reporter()],
    )
    model.fit(
        fold.X_train,
        fold.y_train,
        sample_weight=fold.w_train,
        eval_set=[(fold.X_validation, fold.y_validation)],
        sample_weight_eval_set=None if fold.w_validation is None else [fold.w_validation],
        verbose=False,
    )
    return model.set_params(callbacks=None)


def _train_lightgbm(
    fold: Fold,
    steps: int,
    seed: int,
    report: Report,
    *,
    learning_rate: float,
    n_estimators: int,
    num_leaves: int,
    min_child_samples: int,
    colsample_bytree: float,
    subsample: float,
    reg_lambda: float,
) -> Classifier:
    from lightgbm import LGBMClassifier  # noqa: PLC0415

    ends = ends_of(n_estimators, steps)

    def reporter(environment: Any) -> None:
        if environment.iteration + 1 in ends:
            ((_, _, auroc, _),) = environment.evaluation_result_list
            report(ends[environment.iteration + 1], auroc)

    model = LGBMClassifier(
        learning_rate=learning_rate,
        n_estimators=n_estimators,
        num_leaves=num_leaves,
        min_child_samples=min_child_samples,
        colsample_bytree=colsample_bytree,
        subsample=subsample,
        reg_lambda=reg_lambda,
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
            sample_weight=fold.w_train,
            eval_X=fold.X_validation,
            eval_y=fold.y_validation.astype(int),
            eval_sample_weight=None if fold.w_validation is None else [fold.w_validation],
            callbacks=[reporter],
        )


def _train_catboost(
    fold: Fold,
    steps: int,
    seed: int,
    report: Report,
    *,
    learning_rate: float,
    iterations: int,
    depth: int,
    l2_leaf_reg: float,
    rsm: float,
) -> Classifier:
    from catboost import CatBoostClassifier, Pool  # noqa: PLC0415

    ends = ends_of(iterations, steps)

    class Reporter:
        def after_iteration(self, info: Any) -> bool:
            if info.iteration in ends:
                report(ends[info.iteration], info.metrics["validation"]["AUC"][-1])
            return True

    model = CatBoostClassifier(
        learning_rate=learning_rate,
        iterations=iterations,
        depth=depth,
        l2_leaf_reg=l2_leaf_reg,
        rsm=rsm,
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
        sample_weight=fold.w_train,
        eval_set=Pool(fold.X_validation, fold.y_validation.astype(int), weight=fold.w_validation),
        callbacks=[Reporter()],
    )


CANDIDATES: Mapping[Family, Candidate] = by_family(
    Candidate(
        family="logistic_regression",
        title="LogisticRegression",
        encoding="one_hot",
        library="scikit-learn",
        flavour="sklearn",
        seconds=0.8,
        space={"C": Range(1e-4, 1.0, 0.01, log=True), "max_iter": Range(18, 90, 45, whole=True)},
        train=_train_logistic_regression,
        convert=convert_sklearn,
    ),
    Candidate(
        family="random_forest",
        title="RandomForest",
        encoding="target",
        library="scikit-learn",
        flavour="sklearn",
        seconds=10.0,
        space={
            "n_estimators": Range(150, 400, 300, whole=True),
            "min_samples_leaf": Range(10, 60, 20, log=True, whole=True),
            "max_features": Range(0.05, 0.5, 0.15, log=True),
            "max_depth": Range(6, 20, 16, whole=True),
        },
        train=_train_random_forest,
        convert=convert_sklearn,
    ),
    Candidate(
        family="xgboost",
        title="XGBoost",
        encoding="target",
        library="xgboost-cpu",
        flavour="xgboost",
        seconds=0.6,
        space={
            "learning_rate": Range(0.01, 0.15, 0.05, log=True),
            "n_estimators": Range(80, 300, 150, large=200, whole=True),
            "max_depth": Range(2, 6, 4, large=5, whole=True),
            "min_child_weight": Range(1.0, 50.0, 10.0, log=True),
            "colsample_bytree": Range(0.2, 1.0, 0.4),
            "subsample": Range(0.5, 1.0, 0.8),
            "reg_lambda": Range(0.1, 50.0, 5.0, log=True),
        },
        train=_train_xgboost,
        convert=convert_xgboost,
    ),
    Candidate(
        family="lightgbm",
        title="LightGBM",
        encoding="target",
        library="lightgbm",
        flavour="lightgbm",
        seconds=0.8,
        space={
            "learning_rate": Range(0.01, 0.1, 0.03, log=True),
            "n_estimators": Range(100, 500, 200, large=300, whole=True),
            "num_leaves": Range(4, 48, 15, large=31, log=True, whole=True),
            "min_child_samples": Range(20, 300, 100, log=True, whole=True),
            "colsample_bytree": Range(0.2, 1.0, 0.3),
            "subsample": Range(0.5, 1.0, 0.8),
            "reg_lambda": Range(0.1, 50.0, 5.0, log=True),
        },
        train=_train_lightgbm,
        convert=convert_lightgbm,
    ),
    Candidate(
        family="catboost",
        title="CatBoost",
        encoding="target",
        library="catboost",
        flavour="catboost",
        seconds=1.3,
        space={
            "learning_rate": Range(0.02, 0.15, 0.05, large=0.08, log=True),
            "iterations": Range(100, 350, 250, large=200, whole=True),
            "depth": Range(3, 6, 5, large=6, whole=True),
            "l2_leaf_reg": Range(1.0, 50.0, 10.0, log=True),
            "rsm": Range(0.2, 1.0, 0.5),
        },
        train=_train_catboost,
        convert=convert_catboost,
    ),
)
TITLES: Mapping[Family, str] = {candidate.family: candidate.title for candidate in CANDIDATES.values()}
