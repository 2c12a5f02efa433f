"""Compares a model's quality with that at its approval: on matured outcomes, and until then on scores."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm

from health_predict.data.cohort import outcome
from health_predict.data.follow_up import representation
from health_predict.errors import DataError
from health_predict.evaluation.metrics import Interval, Metrics, evaluate
from health_predict.monitoring.drift import CHECKS, psi
from health_predict.monitoring.reference import Reference, effective
from health_predict.params import BootstrapParams, DriftParams, Params, PerformanceParams

Floats = NDArray[np.float64]
Realised = Literal["auroc", "observed_expected", "calibration_slope"]  # findings from outcomes
Promised = Literal["scores", "flag_rate", "estimated_auroc"]  # findings from scores alone


@dataclass(frozen=True)
class Performance:
    """Realised quality on one batch, against the reference window. Changes are batch minus reference.

    `discrimination` is about AUROC, `calibration` about observed over expected and the calibration slope. A finding is
    severe where its whole interval is beyond the limit: it counts without repetition. `reasons` are sentences on the
    findings that are certain enough for an alarm after one batch; others count when repeated. `alarms` names the
    measures of `reasons`.
    """

    current: Metrics
    reference: Metrics
    auroc_change: Interval
    average_precision_change: Interval
    brier_change: Interval
    discrimination: bool
    severe_discrimination: bool
    calibration: bool
    severe_calibration: bool
    reasons: tuple[str, ...]
    alarms: tuple[Realised, ...] = ()

    @property
    def detected(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True)
class PredictionDrift:
    """Scores of a batch against those of the reference, without outcomes. Rates are shares of encounters, 0 to 1.

    `flag_rate_planned`: the capacity, the share of discharges that the care team can follow up. `psi` compares tenths
    of the reference's scores. The estimated AUROCs are computed from scores alone (`estimate_auroc`). `alarms` names
    the measures of `reasons`.
    """

    rows: int
    psi: float
    p_value: float
    mean_reference: float
    mean: float
    flag_rate_planned: float
    flag_rate: float
    estimated_auroc_reference: float
    estimated_auroc: float
    reasons: tuple[str, ...]
    alarms: tuple[Promised, ...] = ()

    @property
    def detected(self) -> bool:
        return bool(self.reasons)


def performance_of(became: pl.DataFrame, reference: Metrics, params: Params) -> Performance:
    """As `performance`, for typed encounters with their outcomes and a column `probability`.

    With the column REPRESENTS, the performance is about outcomes without follow-up.
    """
    return performance(
        outcome(became),
        became["probability"].to_numpy(),
        became["patient_nbr"].to_numpy(),
        reference,
        params.performance,
        params.bootstrap,
        representation(became),
    )


def performance(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    patients: ArrayLike,
    reference: Metrics,
    params: PerformanceParams,
    bootstrap: BootstrapParams,
    represents: NDArray[np.float64] | None = None,
) -> Performance:
    """Compare one batch's matured outcomes, each array of shape (rows,), with the reference window.

    `reference` are the model's metrics on encounters it was not fitted on, in which it was approved; its threshold is
    used. All intervals resample patients. Raises DataError as `metrics.evaluate` does, also where all outcomes are the
    same; and where either side has too few outcomes for a calibration slope.
    """
    current = evaluate(y_true, y_proba, patients, reference.threshold, bootstrap, represents)
    fall = _Change(current.auroc, reference.auroc)
    ratio = _Change(current.observed_expected, reference.observed_expected)
    slope = _Change(_slope(current), _slope(reference))
    calibration = ((ratio, params.observed_expected), (slope, params.calibration_slope))
    named: tuple[Realised, ...] = ("observed_expected", "calibration_slope")

    def fell(level: float) -> bool:
        certain = at_level(fall.interval, level, bootstrap)
        return fall.interval.estimate < -params.max_auroc_fall and certain.upper < 0

    def off(level: float) -> bool:
        return any(_is_off(one, bounds, level, bootstrap) for one, bounds in calibration)

    reasons = []
    alarms: list[Realised] = []
    if fell(params.alarm_level):
        alarms.append("auroc")
        reasons.append(f"AUROC is {current.auroc}, was {reference.auroc.estimate:.3f} when the model was approved.")
    if off(params.alarm_level):
        alarms += [
            name
            for name, (one, bounds) in zip(named, calibration, strict=True)
            if _is_off(one, bounds, params.alarm_level, bootstrap)
        ]
        reasons.append(
            f"Readmissions observed over expected are {ratio} when the model was approved, the calibration slope is "
            f"{slope}."
        )
    return Performance(
        current=current,
        reference=reference,
        auroc_change=fall.interval,
        average_precision_change=change(current.average_precision, reference.average_precision),
        brier_change=change(current.brier, reference.brier),
        discrimination=fell(params.level),
        severe_discrimination=at_level(fall.interval, params.severe_level, bootstrap).upper < -params.max_auroc_fall,
        calibration=off(params.level),
        severe_calibration=any(_is_severely_off(one, bounds, params, bootstrap) for one, bounds in calibration),
        reasons=tuple(reasons),
        alarms=tuple(alarms),
    )


def prediction_drift(
    reference: Reference,
    y_proba: Floats,
    threshold: float,
    capacity: float,
    params: PerformanceParams,
    drift: DriftParams,
) -> PredictionDrift:
    """Compare a batch's probabilities, shape (rows,), with the model's probabilities of held-out encounters.

    The share of the batch that is flagged, from `threshold` on, is compared with the `capacity` that was planned for.
    Raises DataError for a batch too small to judge, or with values that are no probabilities.
    """
    if len(y_proba) < drift.min_rows:
        raise DataError(
            f"{len(y_proba)} scores are too few to judge drift; {drift.min_rows} (DriftParams.min_rows) needed"
        )
    scores = np.array(reference.scores)
    first, second = _in_tenths(scores, reference.scored, y_proba)
    apart = psi(first, second)
    p_value = _homogeneity(first, second, drift.design_effect)
    flagged = float((y_proba >= threshold).mean())
    centres = (scores[1:] + scores[:-1]) / 2
    promised_before, promised = estimate_auroc(centres), estimate_auroc(y_proba)
    level = drift.false_alarm_rate / CHECKS
    reasons = []
    alarms: list[Promised] = []
    if apart >= params.max_score_psi and p_value <= level:
        alarms.append("scores")
        reasons.append(
            f"Scores moved: stability index {apart:.2f} ({params.max_score_psi:.2f} is the limit), "
            f"mean {y_proba.mean():.3f}, was {centres.mean():.3f}."
        )
    ratio = flagged / capacity
    counts = (capacity * reference.scored, reference.scored), (flagged * len(y_proba), len(y_proba))
    beyond = not 1 / params.max_flag_rate_ratio <= ratio <= params.max_flag_rate_ratio
    if beyond and _rates_differ(*counts, drift.design_effect) <= level:
        alarms.append("flag_rate")
        reasons.append(f"{flagged:.1%} of encounters are flagged; {capacity:.1%} were planned for.")
    if promised_before - promised >= params.max_estimated_auroc_fall:
        alarms.append("estimated_auroc")
        reasons.append(f"AUROC estimated from the scores is {promised:.3f}, was {promised_before:.3f}.")
    return PredictionDrift(
        rows=len(y_proba),
        psi=apart,
        p_value=p_value,
        mean_reference=float(centres.mean()),
        mean=float(y_proba.mean()),
        flag_rate_planned=capacity,
        flag_rate=flagged,
        estimated_auroc_reference=promised_before,
        estimated_auroc=promised,
        reasons=tuple(reasons),
        alarms=tuple(alarms),
    )


def estimate_auroc(y_proba: Floats) -> float:
    """AUROC estimated from probabilities without outcomes: confidence-based performance estimation.

    Each encounter counts as a readmission with weight p and as none with weight 1 - p (the expected confusion
    matrices of NannyML's CBPE at every threshold). The estimate holds as far as the probabilities are calibrated on
    these encounters: it reflects a changed mix of patients, but not a changed relation of features to outcomes. Raises
    DataError where a probability is not between 0 and 1, or all are 0 or all 1.
    """
    p = np.asarray(y_proba, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"{np.count_nonzero(~((p >= 0) & (p <= 1)))} of {len(p)} scores are not between 0 and 1")
    outcomes, others = p.sum(), (1 - p).sum()
    if not outcomes > 0 or not others > 0:
        raise DataError("every score is 0 or every score is 1; no AUROC can be estimated from them")
    values, index = np.unique(p, return_inverse=True)
    positive = np.bincount(index, weights=p, minlength=len(values))
    negative = np.bincount(index, weights=1 - p, minlength=len(values))
    below = np.cumsum(negative) - negative
    return float((positive @ (below + negative / 2)) / (outcomes * others))


def change(current: Interval, reference: Interval) -> Interval:
    """Current minus reference, of independent samples, with an interval from the bounds of both intervals.

    Zou and Donner, Statistics in Medicine 2008;27:1693.
    """
    difference = current.estimate - reference.estimate
    down = np.hypot(current.estimate - current.lower, reference.upper - reference.estimate)
    up = np.hypot(current.upper - current.estimate, reference.estimate - reference.lower)
    return Interval(difference, difference - float(down), difference + float(up))


def at_level(interval: Interval, level: float, bootstrap: BootstrapParams) -> Interval:
    """The interval with each bound at one-sided confidence `level`, assuming a normal distribution."""
    ratio = float(norm.ppf(level) / norm.ppf(0.5 + bootstrap.level / 2))
    return Interval(
        interval.estimate,
        interval.estimate - ratio * (interval.estimate - interval.lower),
        interval.estimate + ratio * (interval.upper - interval.estimate),
    )


@dataclass(frozen=True)
class _Change:
    """A measure on a batch and on the reference window."""

    current: Interval
    reference: Interval

    @property
    def interval(self) -> Interval:
        return change(self.current, self.reference)

    def __str__(self) -> str:
        return f"{self.current}, was {self.reference.estimate:.3f}"


def _is_off(found: _Change, bounds: tuple[float, float], level: float, bootstrap: BootstrapParams) -> bool:
    """Whether a measure is beyond a bound, 1 is outside its interval, and it is further from 1 than in the reference.

    A model that was already that far off when it was approved has not changed.
    """
    low, high = bounds
    now, moved = at_level(found.current, level, bootstrap), at_level(found.interval, level, bootstrap)
    fell = found.current.estimate < low and now.upper < 1 and moved.upper < 0
    rose = found.current.estimate > high and now.lower > 1 and moved.lower > 0
    return fell or rose


def _is_severely_off(
    found: _Change, bounds: tuple[float, float], params: PerformanceParams, bootstrap: BootstrapParams
) -> bool:
    """Whether the whole interval is beyond a bound, and the change is certain too."""
    certain = at_level(found.current, params.severe_level, bootstrap)
    beyond = certain.upper < bounds[0] or certain.lower > bounds[1]
    return beyond and _is_off(found, bounds, params.severe_level, bootstrap)


def _slope(found: Metrics) -> Interval:
    if found.calibration_slope is None:
        raise DataError(
            f"{found.rows} encounters with {found.outcomes} readmissions do not determine a calibration slope, so "
            "calibration cannot be judged"
        )
    return found.calibration_slope


def _in_tenths(scores: Floats, scored: int, y_proba: Floats) -> tuple[Floats, Floats]:
    """Counts of reference and batch between the deciles of the reference; equal deciles count as one."""
    edges = np.unique(scores[10:100:10])
    below = (np.searchsorted(scores, edges, side="right") - 1) / (len(scores) - 1)
    first = scored * np.diff(np.concatenate([[0.0], below, [1.0]]))
    second = np.bincount(np.searchsorted(edges, y_proba, side="left"), minlength=len(first)).astype(float)
    used = first + second > 0
    return first[used], second[used]


def _homogeneity(first: Floats, second: Floats, design_effect: float) -> float:
    """p-value of a chi-square test for equal shares in two tables of counts, shape (cells,)."""
    m, n = first.sum(), second.sum()
    terms = (first / m - second / n) ** 2 / ((first + second) / (m + n))
    degrees = max(len(first) - 1, 1)
    return float(chi2.sf(float(effective(m, n)) * terms.sum() / design_effect, degrees))


def _rates_differ(first: tuple[float, int], second: tuple[float, int], design_effect: float) -> float:
    (a, m), (b, n) = first, second
    return _homogeneity(np.array([a, m - a]), np.array([b, n - b]), design_effect) if a + b > 0 else 1.0
