"""Figures of a model's quality on the validation encounters; returned as matplotlib figures, not saved."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

BINS = 10
SHOWN_FEATURES = 25
BLUE, GREY = "#1f6f8b", "#9aa5b1"


def quality_figures(
    y_true: NDArray[np.bool_],
    y_proba: NDArray[np.float64],
    y_cross_calibrated: NDArray[np.float64],
    importance: Mapping[str, float],
    title: str,
) -> dict[str, Figure]:
    """The four figures of a run by file stem: roc, precision_recall, calibration, feature_importance.

    `calibration` is drawn from `y_cross_calibrated`, the probabilities calibrated on other patients' encounters.
    """
    return {
        "roc": roc(y_true, y_proba, title),
        "precision_recall": precision_recall(y_true, y_proba, title),
        "calibration": calibration(y_true, y_cross_calibrated, title),
        "feature_importance": feature_importance(importance, title),
    }


def roc(y_true: NDArray[np.bool_], y_proba: NDArray[np.float64], title: str) -> Figure:
    false_positive, true_positive, _ = roc_curve(y_true, y_proba)
    figure, axes = _square(f"{title}: ROC", "1 - specificity\nvalidation encounters", "sensitivity")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="chance")
    axes.plot(false_positive, true_positive, color=BLUE, label="model")
    axes.legend(loc="lower right")
    return figure


def precision_recall(y_true: NDArray[np.bool_], y_proba: NDArray[np.float64], title: str) -> Figure:
    precision, recall, _ = precision_recall_curve(y_true, y_proba)
    figure, axes = _square(f"{title}: precision and recall", "recall\nvalidation encounters", "precision")
    axes.axhline(y_true.mean(), color=GREY, linestyle="--", label="outcome rate")
    axes.plot(recall, precision, color=BLUE, label="model")
    axes.set_ylim(0, 1)
    axes.legend(loc="upper right")
    return figure


def calibration(y_true: NDArray[np.bool_], y_proba: NDArray[np.float64], title: str) -> Figure:
    observed, predicted = calibration_curve(y_true, y_proba, n_bins=BINS, strategy="quantile")
    caption = "predicted risk (tenths of encounters)\nvalidation encounters, each calibrated on other patients"
    figure, axes = _square(f"{title}: calibration", caption, "observed rate")
    edge = 1.1 * max(observed.max(), predicted.max())
    axes.plot([0, edge], [0, edge], color=GREY, linestyle="--", label="ideal")
    axes.plot(predicted, observed, color=BLUE, marker="o", label="model")
    axes.legend(loc="upper left")
    return figure


def feature_importance(importance: Mapping[str, float], title: str) -> Figure:
    largest: Sequence[tuple[str, float]] = sorted(importance.items(), key=lambda item: item[1])[-SHOWN_FEATURES:]
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in largest], [value for _, value in largest], color=BLUE)
    axes.set_title(f"{title}: importance, share of the total")
    return figure


def _square(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes
