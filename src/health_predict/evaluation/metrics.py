"""Discrimination and calibration of predicted risks, with bootstrap intervals.

All intervals resample patients, not rows: 46% of encounters belong to patients who come back, and their outcomes
go together. A resample is one weight per patient, the number of times it was drawn, applied to all its rows; every
score that is compared sees the same resamples.

Two kinds of quantity, so that 500 resamples of 100,000 rows take seconds: those that depend on ranks (AUROC,
average precision) come from one sort, reweighted; all others are sums over rows, added up per patient once and
multiplied by the weights.

Where encounters were followed up, each of the others stands for more than itself (`represents`, data/follow_up.py):
that is one more weight of its row, and those with weight 0 are left out. Whom an encounter represents is taken as
known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from health_predict.errors import DataError
from health_predict.evaluation.operating_point import in_words, threshold_at
from health_predict.params import BootstrapParams

Floats = NDArray[np.float64]

BINS = 10  # of the expected calibration error, as in most publications
_CHUNK = 32  # resamples held in memory at a time
_MAX_ITERATIONS = 100


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its bootstrap percentile interval."""

    estimate: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.lower:.3f} to {self.upper:.3f})"


@dataclass(frozen=True)
class Measurement(Interval):
    """An interval that can be asked for bounds further out. `error` is the standard deviation over the resamples."""

    error: float

    def at(self, tail: float) -> Interval:
        """The interval with probability `tail` outside each bound; never narrower than the percentile interval.

        Normal, with the bootstrap's standard error: 500 resamples know that to 3%, a quantile of 2.5% to 6%, and
        hardly anything of one of .1% (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6, 13).
        """
        reach = -NormalDist().inv_cdf(tail) * self.error
        lower, upper = self.estimate - reach, self.estimate + reach
        return Interval(self.estimate, min(self.lower, lower), max(self.upper, upper))


@dataclass(frozen=True)
class Metrics:
    """Quality of one set of risks on one set of encounters.

    `ece` is the expected calibration error over ten bins of equal frequency (equal widths leave most bins empty
    at 11% outcomes; Nixon et al., CVPR Workshops 2019). Calibration intercept (slope fixed at 1; 0 is ideal) and
    slope (1 is ideal) follow Van Calster et al., BMC Medicine 2019;17:230. `observed_expected` is outcomes over
    the sum of risks. A row is flagged where its risk is at least the threshold; `precision` is the positive
    predictive value, 0 where nothing is flagged; `recall` is the sensitivity. `number_to_follow_up` is how many are
    flagged for each readmission among them, 1 / `precision`: None where nothing can be said, as too few are flagged or
    found, and in documents that were stored without it. The slope is None where the data do not determine it: all risks
    equal, or outcomes separated perfectly.
    """

    rows: int
    outcomes: int
    patients: int
    threshold: float
    auroc: Interval
    average_precision: Interval
    brier: Interval
    ece: Interval
    calibration_intercept: Interval
    calibration_slope: Interval | None
    observed_expected: Interval
    f1: Interval
    precision: Interval
    recall: Interval
    specificity: Interval
    flag_rate: Interval
    number_to_follow_up: Interval | None = None

    @property
    def operating_point(self) -> str:
        """What the threshold means for the discharges of a hospital, in one sentence about readmission in 30 days."""
        return in_words(self.flag_rate.estimate, self.precision.estimate, self.recall.estimate)


@dataclass(frozen=True)
class Differences:
    """Challenger minus champion on the same resamples. Higher is better for all but `brier`.

    `ppv` is of the positive predictive values at equal workload: each model flags its own highest risks, up to the same
    share of the encounters. None where no share was given.
    """

    auroc: Measurement
    average_precision: Measurement
    brier: Measurement
    ppv: Measurement | None = None


@dataclass(frozen=True)
class AurocComparison:
    """AUROC of two scores, which need not be probabilities, and their difference on the same resamples."""

    challenger: Measurement
    reference: Measurement
    difference: Measurement


def evaluate(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    patients: ArrayLike,
    threshold: float,
    params: BootstrapParams,
    represents: ArrayLike | None = None,
) -> Metrics:
    """Metrics of risks, each with its interval. One element is one encounter; `patients` says whose it is.

    With `represents`, rows, outcomes and patients count the encounters that represent any. Raises DataError where
    something is missing or not finite, a risk is outside 0..1, all outcomes are the same, or no risk is above 0.
    """
    y, (p,), sample = _checked(y_true, [y_proba], patients, represents)
    _refuse_improbable(p)
    calibration = _Calibration.fit(y, p, sample.rows)
    bins = _equal_frequency_bins(p)
    terms = np.column_stack([_row_terms(y, p, p >= threshold), calibration.row_terms(y), _bin_terms(y, p, bins)])
    sums, ranks = _replicates(y, [p], [terms], sample, params)
    values = _from_sums(sums[0], calibration)
    values |= {"auroc": ranks[0, :, 0], "average_precision": ranks[0, :, 1]}
    slope = values.pop("calibration_slope")
    # Resampling adds noise to every bin and the error counts it all; without the shift its interval would lie
    # above the estimate for a well calibrated model.
    values["ece"][1:] = np.maximum(values["ece"][1:] - (values["ece"][1:].mean() - values["ece"][0]), 0.0)
    return Metrics(
        rows=len(y),
        outcomes=int(y.sum()),
        patients=sample.patients,
        threshold=float(threshold),
        calibration_slope=interval(slope, params) if np.isfinite(slope).all() else None,
        number_to_follow_up=_inverse(interval(values["precision"], params)),
        **{name: interval(replicates, params) for name, replicates in values.items()},
    )


def compare(
    y_true: ArrayLike,
    challenger: ArrayLike,
    champion: ArrayLike,
    patients: ArrayLike,
    params: BootstrapParams,
    represents: ArrayLike | None = None,
    capacity: float | None = None,
) -> Differences:
    """Challenger minus champion, paired: the same encounters, the same resamples. The same risks give exactly 0.

    `capacity` is the share that both models flag for the difference of their positive predictive values. Raises
    DataError as `evaluate` does.
    """
    y, scores, sample = _checked(y_true, [challenger, champion], patients, represents)
    for p in scores:
        _refuse_improbable(p)
    thresholds = [threshold_at(capacity or 0.0, p, sample.rows) for p in scores]
    flags = [p >= threshold for p, threshold in zip(scores, thresholds, strict=True)]
    terms = [
        np.column_stack([(p - y) ** 2, np.ones(len(y)), flagged, flagged * y])
        for p, flagged in zip(scores, flags, strict=True)
    ]
    sums, ranks = _replicates(y, scores, terms, sample, params)
    briers = [total[:, 0] / total[:, 1] for total in sums]
    ppvs = [_share(total[:, 3], total[:, 2]) for total in sums]
    difference = ranks[0] - ranks[1]
    return Differences(
        auroc=_measurement(difference[:, 0], params),
        average_precision=_measurement(difference[:, 1], params),
        brier=_measurement(briers[0] - briers[1], params),
        ppv=None if capacity is None else _measurement(ppvs[0] - ppvs[1], params),
    )


def compare_auroc(
    y_true: ArrayLike,
    challenger: ArrayLike,
    reference: ArrayLike,
    patients: ArrayLike,
    params: BootstrapParams,
    represents: ArrayLike | None = None,
) -> AurocComparison:
    """AUROC of both scores and challenger minus reference, paired. Scores may have any scale.

    Raises DataError where something is missing or not finite, or all outcomes are the same.
    """
    y, scores, sample = _checked(y_true, [challenger, reference], patients, represents)
    _, ranks = _replicates(y, scores, [], sample, params)
    a, b = ranks[0, :, 0], ranks[1, :, 0]
    return AurocComparison(_measurement(a, params), _measurement(b, params), _measurement(a - b, params))


def auroc(y_true: ArrayLike, y_score: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve, ties counting half; as scikit-learn's `roc_auc_score`. Raises DataError."""
    return _rank_metrics(y_true, y_score, weights)[0]


def average_precision(y_true: ArrayLike, y_score: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the precision-recall curve by steps, as scikit-learn's `average_precision_score`. Raises DataError."""
    return _rank_metrics(y_true, y_score, weights)[1]


def _rank_metrics(y_true: ArrayLike, y_score: ArrayLike, weights: ArrayLike | None) -> tuple[float, float]:
    y, (score,), _ = _checked(y_true, [y_score], np.arange(np.size(y_true)))
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    ranking = _Ranking.of(y, score, _Sample(np.arange(len(y)), len(y)))
    return ranking.metrics(w)


def resampled_sums(terms: Floats, patients: ArrayLike, params: BootstrapParams) -> Floats:
    """Sums of the columns of `terms` over all rows and then over each resample of patients.

    Shape (1 + replicates, columns).
    """
    unique, index = np.unique(np.asarray(patients), return_inverse=True)
    sample = _Sample(index, len(unique))
    total = sample.per_patient(terms)
    return np.concatenate([weights @ total for weights in sample.weights(params)])


def interval(replicates: Floats, params: BootstrapParams) -> Interval:
    """The first value is the estimate, the others are the resamples."""
    tail = (1.0 - params.level) / 2
    lower, upper = np.quantile(replicates[1:], [tail, 1.0 - tail])
    return Interval(float(replicates[0]), float(lower), float(upper))


def _inverse(found: Interval) -> Interval | None:
    """The interval of 1 / x; None where x may be 0."""
    return Interval(1 / found.estimate, 1 / found.upper, 1 / found.lower) if found.lower > 0 else None


@dataclass(frozen=True)
class _Sample:
    """Whose row each row is: `index` numbers the patients from 0. `rows`: weights of rows; None: all are 1."""

    index: NDArray[np.intp]
    patients: int
    rows: Floats | None = None

    def per_patient(self, terms: Floats) -> Floats:
        """Sum of each column of `terms` over the rows of each patient, shape (patients, columns)."""
        weighted = terms if self.rows is None else terms * self.rows[:, None]
        sums = [np.bincount(self.index, weights=column, minlength=self.patients) for column in weighted.T]
        return np.column_stack(sums)

    def weights(self, params: BootstrapParams, y: Floats | None = None) -> Iterator[Floats]:
        """Chunks of patient weights, shape (at most _CHUNK, patients); the very first row is all ones.

        A resample in which all outcomes `y` are the same has no AUROC and is drawn again.
        """
        rng = np.random.default_rng(params.seed)
        ones = np.ones((len(self.index), 1))
        classes = self.per_patient(ones if y is None else np.column_stack([y, 1.0 - y]))
        rows = [np.ones(self.patients)]
        for _ in range(params.replicates):
            weights = self._draw(rng)
            while not (weights @ classes).all():
                weights = self._draw(rng)
            rows.append(weights)
            if len(rows) == _CHUNK:
                yield np.stack(rows)
                rows = []
        if rows:
            yield np.stack(rows)

    def _draw(self, rng: np.random.Generator) -> Floats:
        drawn = rng.integers(self.patients, size=self.patients)
        return np.bincount(drawn, minlength=self.patients).astype(np.float64)


@dataclass(frozen=True)
class _Ranking:
    """Rows by falling score, in runs of equal scores; runs without an outcome need no look at each resample."""

    index: NDArray[np.intp]  # whose row, all rows
    starts: NDArray[np.intp]  # of runs with an outcome: position of the first row, and one past the last
    ends: NDArray[np.intp]
    outcome_index: NDArray[np.intp]  # whose row, rows with the outcome
    outcome_starts: NDArray[np.intp]  # where each run begins among them
    rows: Floats | None  # weights of all rows, and of those with the outcome; None: all are 1
    outcome_rows: Floats | None

    @classmethod
    def of(cls, y: Floats, score: Floats, sample: _Sample) -> "_Ranking":
        order = np.argsort(-score, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1) + 1
        starts = np.append(0, ends[:-1])
        outcomes = np.add.reduceat(y[order], starts)
        hit = outcomes > 0
        outcome_starts = np.append(0, np.cumsum(outcomes[hit])[:-1]).astype(np.intp)
        index, rows = sample.index[order], None if sample.rows is None else sample.rows[order]
        is_outcome = y[order] > 0
        outcome_rows = None if rows is None else rows[is_outcome]
        return cls(index, starts[hit], ends[hit], index[is_outcome], outcome_starts, rows, outcome_rows)

    def metrics(self, weights: Floats) -> tuple[float, float]:
        """AUROC and average precision under weights per patient."""
        every, outcome = weights[self.index], weights[self.outcome_index]
        if self.rows is not None and self.outcome_rows is not None:
            every, outcome = every * self.rows, outcome * self.outcome_rows
        flagged = np.append(0.0, np.cumsum(every))
        true = np.add.reduceat(outcome, self.outcome_starts)
        true_until = np.cumsum(true)
        flagged_until = flagged[self.ends]
        false_until = flagged_until - true_until
        false = flagged_until - flagged[self.starts] - true
        outcomes, others = true_until[-1], flagged[-1] - true_until[-1]
        area = true @ (others - false_until + false / 2) / (outcomes * others)
        precision = np.divide(true_until, flagged_until, out=np.zeros_like(true), where=flagged_until > 0)
        return float(area), float(true @ precision / outcomes)


@dataclass(frozen=True)
class _Calibration:
    """Logistic regressions of the outcome on the logit of the risk: intercept alone, and intercept with slope.

    In resamples each coefficient moves by one Newton step from the estimate on all rows (the one-step bootstrap of
    Moulton and Zeger, Computational Statistics & Data Analysis 1991;11:53), whose terms are sums over rows.
    """

    logit: Floats
    intercept: float
    joint: tuple[float, float] | None

    @classmethod
    def fit(cls, y: Floats, p: Floats, rows: Floats | None) -> "_Calibration":
        clipped = np.clip(p, 1e-6, 1 - 1e-6)
        logit = np.log(clipped / (1 - clipped))
        weights = 1.0 if rows is None else rows
        return cls(logit, _fit_intercept(y, logit, weights), _fit_intercept_and_slope(y, logit, weights))

    def row_terms(self, y: Floats) -> Floats:
        """Seven columns: gradient and curvature of the intercept alone; of both coefficients together."""
        alone = _logistic(self.intercept + self.logit)
        a, b = self.joint or (0.0, 0.0)
        both = _logistic(a + b * self.logit)
        curvature = both * (1 - both)
        z = self.logit
        columns = [y - alone, alone * (1 - alone), y - both, (y - both) * z, curvature, curvature * z, curvature * z**2]
        return np.column_stack(columns)

    def intercepts(self, sums: Floats) -> Floats:
        return self.intercept + sums[:, 0] / sums[:, 1]

    def slopes(self, sums: Floats) -> Floats:
        if self.joint is None:
            return np.full(len(sums), np.nan)
        g0, g1, h00, h01, h11 = sums[:, 2:7].T
        determinant = h00 * h11 - h01**2
        step = np.divide(h00 * g1 - h01 * g0, determinant, out=np.full(len(sums), np.nan), where=determinant > 0)
        slopes: Floats = self.joint[1] + step
        return slopes


def _logistic(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _fit_intercept(y: Floats, logit: Floats, weights: Floats | float) -> float:
    intercept = 0.0
    for _ in range(_MAX_ITERATIONS):
        fitted = _logistic(intercept + logit)
        curvature = (weights * (fitted * (1 - fitted))).sum()
        step = float(np.clip((weights * (y - fitted)).sum() / max(curvature, 1e-300), -1.0, 1.0))
        intercept += step
        if abs(step) < 1e-12:
            return intercept
    return intercept


def _fit_intercept_and_slope(y: Floats, logit: Floats, weights: Floats | float) -> tuple[float, float] | None:
    """None where the data do not determine them: Newton's method runs off, or the curvature vanishes."""
    coefficients = np.array([0.0, 1.0])
    X = np.column_stack([np.ones_like(logit), logit])
    for _ in range(_MAX_ITERATIONS):
        fitted = _logistic(X @ coefficients)
        hessian = X.T @ (X * (weights * (fitted * (1 - fitted)))[:, None])
        if np.linalg.det(hessian) <= 1e-9 * hessian[0, 0] * hessian[1, 1] or hessian[0, 0] < 1e-9:
            return None
        step = np.linalg.solve(hessian, X.T @ (weights * (y - fitted)))
        coefficients = coefficients + step / max(1.0, np.abs(step).max())  # shorter, in the same direction
        if np.abs(step).max() < 1e-10:
            return float(coefficients[0]), float(coefficients[1])
    return None


def _row_terms(y: Floats, p: Floats, flagged: NDArray[np.bool_]) -> Floats:
    return np.column_stack([np.ones_like(y), y, p, (p - y) ** 2, flagged, flagged * y])


def _equal_frequency_bins(p: Floats) -> NDArray[np.intp]:
    edges = np.unique(np.quantile(p, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, p, side="left")


def _bin_terms(y: Floats, p: Floats, bins: NDArray[np.intp]) -> Floats:
    return np.where(bins[:, None] == np.arange(BINS), (p - y)[:, None], 0.0)


def _from_sums(sums: Floats, calibration: _Calibration) -> dict[str, Floats]:
    weight, outcomes, expected, squares, flagged, true = sums[:, :6].T
    if not (expected > 0).all():
        raise DataError("the risks add up to 0, so observed over expected outcomes means nothing; check the model")
    return {
        "brier": squares / weight,
        "ece": np.abs(sums[:, 13:]).sum(axis=1) / weight,
        "calibration_intercept": calibration.intercepts(sums[:, 6:13]),
        "calibration_slope": calibration.slopes(sums[:, 6:13]),
        "observed_expected": outcomes / expected,
        "f1": 2 * true / (flagged + outcomes),
        "precision": _share(true, flagged),
        "recall": true / outcomes,
        "specificity": 1 - (flagged - true) / (weight - outcomes),
        "flag_rate": flagged / weight,
    }


def _share(part: Floats, whole: Floats) -> Floats:
    """Part over whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _replicates(
    y: Floats, scores: Sequence[Floats], terms: Sequence[Floats], sample: _Sample, params: BootstrapParams
) -> tuple[list[Floats], Floats]:
    """On all rows and then on each resample: sums of each matrix of terms, and rank metrics of each score.

    Shapes: for each matrix (1 + replicates, columns); (scores, 1 + replicates, 2), AUROC and average precision.
    """
    totals = [sample.per_patient(matrix) for matrix in terms]
    rankings = [_Ranking.of(y, score, sample) for score in scores]
    sums: list[list[Floats]] = [[] for _ in totals]
    ranks: list[list[tuple[float, float]]] = [[] for _ in rankings]
    for chunk in sample.weights(params, y):
        for collected, total in zip(sums, totals, strict=True):
            collected.append(chunk @ total)
        for found, ranking in zip(ranks, rankings, strict=True):
            found.extend(ranking.metrics(weights) for weights in chunk)
    return [np.concatenate(collected) for collected in sums], np.array(ranks)


def _measurement(replicates: Floats, params: BootstrapParams) -> Measurement:
    found = interval(replicates, params)
    return Measurement(found.estimate, found.lower, found.upper, float(replicates[1:].std(ddof=1)))


def _checked(
    y_true: ArrayLike, scores: Sequence[ArrayLike], patients: ArrayLike, represents: ArrayLike | None = None
) -> tuple[Floats, list[Floats], _Sample]:
    y, owners = np.asarray(y_true), np.asarray(patients)
    arrays: list[NDArray[Any]] = [np.asarray(score) for score in scores]
    rows = None if represents is None else np.asarray(represents, dtype=np.float64)
    lengths = {array.shape for array in (y, owners, *arrays, *([] if rows is None else [rows]))}
    if len(lengths) > 1 or y.ndim != 1:
        raise DataError(f"outcomes, risks and patients differ in shape: {sorted(map(str, lengths))}; one row each")
    if rows is not None:
        y, owners, arrays = y[rows > 0], owners[rows > 0], [array[rows > 0] for array in arrays]
        rows = rows[rows > 0]
    if owners.dtype.kind == "O" or (owners.dtype.kind == "f" and np.isnan(owners).any()):
        raise DataError("some encounters have no patient; intervals need to know whose encounter each one is")
    if not np.isin(y, (0, 1)).all():
        raise DataError("outcomes have to be 0 or 1, none missing")
    outcomes = int(y.sum())
    if outcomes in (0, len(y)):
        raise DataError(f"{outcomes} of {len(y)} encounters have the outcome; metrics need some with and some without")
    floats = [array.astype(np.float64) for array in arrays]
    for score in floats:
        if not np.isfinite(score).all():
            raise DataError(f"{np.count_nonzero(~np.isfinite(score))} of {len(score)} scores are not finite numbers")
    unique, index = np.unique(owners, return_inverse=True)
    return y.astype(np.float64), floats, _Sample(index, len(unique), rows)


def _refuse_improbable(p: Floats) -> None:
    outside = np.count_nonzero((p < 0) | (p > 1))
    if outside:
        raise DataError(f"{outside} of {len(p)} risks are outside 0 to 1; hand in probabilities, not raw scores")
