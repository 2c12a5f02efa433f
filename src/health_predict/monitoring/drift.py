"""Tests whether the fields of a batch have drifted from the reference, and how much the model relies on those fields.

Everything about single fields is computed from counts by value, never from rows: a batch is counted once, the
reference's counts travel in its bundle, and the cost depends on the number of distinct values, not of rows.

There are two sets of numbers. `Statistics` are the usual ones, equal to Evidently's, for people and dashboards. The
decision uses calibrated ones: a test whose null distribution comes from resampled reference patients
(`reference.Null`), a false discovery rate controlled over the fields, a minimum effect, and the share of the model's
reliance on the fields that drifted. A check that cannot run raises; it never returns "no drift".
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom, chi2, ks_2samp, kstwo, wasserstein_distance

from health_predict.data.field import Field
from health_predict.data.schema import CLINICAL, MISSING
from health_predict.errors import DataError
from health_predict.monitoring.reference import (
    Reference,
    ValueCounts,
    cells,
    effective,
    statistic,
)
from health_predict.params import DriftParams

Floats = NDArray[np.float64]

EXACT_ROWS = 10_000  # scipy's limit for the exact p-value of the Kolmogorov-Smirnov test
BINNED_ABOVE = 20  # Evidently bins numbers with more distinct values
CHECKS = 3  # fields, scores and the multivariate check share the false-alarm rate of a batch


@dataclass(frozen=True)
class Statistics:
    """The usual numbers for one field, equal to Evidently's where a missing value counts as a category of its own.

    `wasserstein` (in standard deviations of the reference) and `ks` (a p-value) are for ordered fields, `chi_square`
    (a p-value) for categories. None: the field is of the other type, or has no value to compare.
    """

    psi: float
    jensen_shannon: float
    wasserstein: float | None
    ks: float | None
    chi_square: float | None


@dataclass(frozen=True)
class FieldDrift:
    """One field of a batch against the reference.

    `distance` is the normed Wasserstein distance for ordered fields, the Jensen-Shannon distance for categories.
    `effect`, which the decision uses, is the Wasserstein distance again, or Cohen's w corrected for chance (0.1 is
    small, 0.3 medium). `threshold` is the value that `statistic` had to exceed in this batch. `missing` is the share
    of encounters without a value, 0 to 1, `unknown` that of encounters with a value that the reference never had;
    `unknown_p_value` is the chance of so many unknown values without a change.
    """

    field: str
    importance: float
    administrative: bool
    distance: float
    effect: float
    statistic: float
    threshold: float
    p_value: float
    drifted: bool
    missing_reference: float
    missing: float
    unknown: float
    unknown_p_value: float
    statistics: Statistics


@dataclass(frozen=True)
class Drift:
    """A batch against the reference. `reasons` for calling it drift (none: no drift), `notes` on other changes."""

    reference_rows: int
    rows: int
    fields: tuple[FieldDrift, ...]
    importance_drifted: float  # share of the model's reliance on clinical fields that drifted
    administrative_drifted: float  # the same for administrative fields
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def detected(self) -> bool:
        return bool(self.reasons)


def field_drift(reference: Reference, current: ValueCounts, params: DriftParams) -> Drift:
    """Compare a batch's counts (`reference.value_counts`) with the reference. Fields are in schema order.

    Raises DataError for a batch too small to judge, and where batch or reference lack a field.
    """
    rows = _checked_rows(reference, current, params)
    tested = [_test(field, reference, current[field.name], params) for field in CLINICAL]
    p_values = np.array([test.p_value for test in tested])
    cut = discovery_threshold(p_values, params.false_alarm_rate / CHECKS)
    fields = tuple(_judged(test, reference, current, cut, params) for test in tested)
    clinical = sum(field.importance for field in fields if field.drifted and not field.administrative)
    administrative = sum(field.importance for field in fields if field.drifted and field.administrative)
    reasons, notes = _sentences(fields, clinical, params)
    return Drift(reference.rows, rows, fields, clinical, administrative, reasons, notes)


def discovery_threshold(p_values: Floats, rate: float) -> float:
    """Largest p-value that is a discovery at the false discovery rate `rate`; without discoveries, `rate` / tests.

    Benjamini and Hochberg, JRSS B 1995;57:289. With no drift anywhere, `rate` is also the chance of any discovery.
    """
    ordered = np.sort(p_values)
    allowed = rate * np.arange(1, len(ordered) + 1) / len(ordered)
    passed = np.flatnonzero(ordered <= allowed)
    return float(allowed[passed[-1]] if len(passed) else allowed[0])


def matters(field: FieldDrift, params: DriftParams) -> bool:
    """Whether a broken feed of the field is a reason for drift by itself, rather than a note."""
    return not field.administrative or field.importance >= params.min_importance


def lost(field: FieldDrift, params: DriftParams) -> bool:
    """Whether the field is missing in so many more encounters than in the reference that its feed may be broken."""
    rose = field.missing - field.missing_reference >= params.max_missing_rise
    return rose and field.p_value <= params.false_alarm_rate


def recoded(field: FieldDrift, params: DriftParams) -> bool:
    """Whether so many values of the field are new to the reference that its coding system may have changed."""
    level = params.false_alarm_rate / CHECKS / len(CLINICAL)
    return field.unknown >= params.max_unknown and field.unknown_p_value <= level


def statistics(field: Field, reference: Mapping[str, int], current: Mapping[str, int]) -> Statistics:
    """The usual numbers for one field from its two tables of counts. Raises DataError where one is empty."""
    if field.is_quantity:
        values, first, second = _aligned_numbers(reference, current)
        if not first.sum() or not second.sum():
            return Statistics(*_shares_apart(*_aligned(reference, current)), None, None, None)
        distances = _shares_apart(*binned(values, first, second, narrowest=field.step or 1.0))
        return Statistics(*distances, wasserstein(values, first, second), ks(values, first, second), None)
    first, second = _aligned(reference, current)
    return Statistics(*_shares_apart(first, second), None, None, chi_square(first, second))


def psi(reference: Floats, current: Floats) -> float:
    """Population stability index (0 or more) of two tables of counts over the same cells, shape (cells,).

    Empty cells are filled as by Evidently."""
    p, q = _filled(reference / reference.sum()), _filled(current / current.sum())
    return float(((p - q) * np.log(p / q)).sum())


def jensen_shannon(reference: Floats, current: Floats) -> float:
    """Jensen-Shannon distance (natural logarithm, 0 to .83) of two tables of counts over the same cells.

    The root of Lin's divergence (IEEE Transactions on Information Theory 1991;37:145) is a metric (Endres and
    Schindelin, ibid. 2003;49:1858).
    """
    return float(np.nan_to_num(jensenshannon(reference, current)))  # rounding can make the root that of -1e-17


def wasserstein(values: Floats, reference: Floats, current: Floats) -> float:
    """Wasserstein distance of two tables of counts, in standard deviations (at least .001) of the reference.

    On the line it is the area between the distribution functions (Vallender, Theory of Probability and Its
    Applications 1974;18:784).
    """
    mean = np.average(values, weights=reference)
    deviation = float(np.sqrt(np.average((values - mean) ** 2, weights=reference)))
    return float(wasserstein_distance(values, values, reference, current)) / max(deviation, 0.001)


def ks(values: Floats, reference: Floats, current: Floats) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test; exact up to 10,000 rows a side, asymptotic above, as scipy's.

    Conservative where values are tied. Counts by ascending value.
    """
    m, n = reference.sum(), current.sum()
    if max(m, n) <= EXACT_ROWS:
        samples = (np.repeat(values, counts.astype(np.int64)) for counts in (reference, current))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns where it falls back to the asymptotic value
            return float(ks_2samp(*samples).pvalue)
    distance = float(np.abs(np.cumsum(reference) / m - np.cumsum(current) / n).max())
    size = np.round(max(m, n) * min(m, n) / (m + n))
    if size * distance**2 >= 9:
        # Smirnov's leading term, here within 1e-10 of the sum of `size` terms, which takes 0.5 s for a million.
        return float(2 * np.exp(-((6 * size * distance + 1) ** 2) / (18 * size)))
    return float(np.clip(kstwo.sf(distance, size), 0, 1))


def chi_square(reference: Floats, current: Floats) -> float:
    """p-value of Pearson's chi-square test of the current counts against the reference's shares; 0 with a new value."""
    expected = reference * (current.sum() / reference.sum())
    if (expected == 0).any():
        return 0.0
    if len(expected) == 1:
        return 1.0
    return float(chi2.sf(((current - expected) ** 2 / expected).sum(), len(expected) - 1))


def unseen_p_value(reference: Mapping[str, int], current: Mapping[str, int]) -> float:
    """Probability of at least as many encounters with values new to the reference, where nothing has changed.

    The next encounter has a new value as often as the reference had values that occur once (Good, Biometrika
    1953;40:237, after Turing). Given the sum of both counts, the batch's count is binomial by the two sizes.
    """
    once = sum(1 for value, count in reference.items() if value != MISSING and count == 1)
    unseen, sizes = _unseen(reference, current), (_given(reference), _given(current))
    return float(binom.sf(unseen - 1, unseen + once, sizes[1] / max(sum(sizes), 1)))


def binned(values: Floats, reference: Floats, current: Floats, narrowest: float = 1.0) -> tuple[Floats, Floats]:
    """Both counts in Evidently's bins for numbers: one per value, above 20 values Sturges' bins of equal width.

    No bin is narrower than `narrowest`, the distance of neighbouring values: 1 for whole numbers.
    """
    if np.count_nonzero(reference) <= BINNED_ABOVE:
        return reference, current
    present = values[(reference + current) > 0]
    low, high = present[0], present[-1]
    rows = reference.sum() + current.sum()
    width = max((high - low) / (np.log2(rows) + 1), narrowest)
    edges = np.linspace(low, high, int(np.ceil((high - low) / width)) + 1)
    first, second = (np.histogram(values, edges, weights=counts)[0] for counts in (reference, current))
    return first, second


@dataclass(frozen=True)
class _Tested:
    field: Field
    statistic: float
    effect: float
    p_value: float


def _test(field: Field, reference: Reference, current: Mapping[str, int], params: DriftParams) -> _Tested:
    name = field.name
    null, before = reference.nulls[name], reference.fields[name]
    if field.is_quantity:
        first, second = _with_missing_first(before, current)
    else:
        own = cells(before, params.min_cell_share)
        first, second = _merged(before, own), _merged(current, own)
    found = float(statistic(first, second, field.is_quantity))
    size = float(effective(first.sum(), second.sum()))
    if field.is_quantity:
        effect = _normed_distance(before, current)
    else:
        effect = float(np.sqrt(max(found - null.mean, 0.0) / size))
    return _Tested(field, found, effect, float(chi2.sf(found / null.scale, null.degrees)))


def _judged(test: _Tested, reference: Reference, current: ValueCounts, cut: float, params: DriftParams) -> FieldDrift:
    name = test.field.name
    before, now, null = reference.fields[name], current[name], reference.nulls[name]
    found = statistics(test.field, before, now)
    present, unseen = _given(now), _unseen(before, now)
    return FieldDrift(
        field=name,
        importance=reference.importance.get(name, 0.0),
        administrative=test.field.administrative,
        distance=found.jensen_shannon if found.wasserstein is None else found.wasserstein,
        effect=test.effect,
        statistic=test.statistic,
        threshold=float(null.scale * chi2.isf(cut, null.degrees)),
        p_value=test.p_value,
        drifted=test.p_value <= cut and test.effect >= params.min_effect,
        missing_reference=before.get(MISSING, 0) / sum(before.values()),
        missing=now.get(MISSING, 0) / sum(now.values()),
        unknown=unseen / present if present else 0.0,
        unknown_p_value=unseen_p_value(before, now),
        statistics=found,
    )


def _given(counts: Mapping[str, int]) -> int:
    return sum(count for value, count in counts.items() if value != MISSING)


def _unseen(reference: Mapping[str, int], current: Mapping[str, int]) -> int:
    return sum(count for value, count in current.items() if value != MISSING and value not in reference)


def _sentences(
    fields: tuple[FieldDrift, ...], importance: float, params: DriftParams
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reasons for calling the batch drift, and notes on other changes."""
    reasons: list[str] = []
    notes: list[str] = []
    drifted = sorted((field for field in fields if field.drifted), key=lambda field: -field.importance)
    clinical = [field for field in drifted if not field.administrative]
    if clinical:
        sentence = (
            f"{len(clinical)} clinical fields drifted that carry {importance:.0%} of the model's reliance "
            f"({params.min_importance:.0%} is the limit): {_names(clinical, params)}."
        )
        (reasons if importance >= params.min_importance else notes).append(sentence)
    administrative = [field for field in drifted if field.administrative]
    if administrative:
        notes.append(f"Administrative fields drifted: {_names(administrative, params)}.")
    for field in fields:
        for sentence in _feed(field, params):
            (reasons if matters(field, params) else notes).append(sentence)
    return tuple(reasons), tuple(notes)


def _feed(field: FieldDrift, params: DriftParams) -> list[str]:
    """Sentences on a likely broken feed or changed coding system, as opposed to other patients."""
    found = []
    if lost(field, params):
        found.append(
            f"{field.field} is missing in {field.missing:.0%} of encounters, was {field.missing_reference:.0%}."
        )
    if recoded(field, params):
        found.append(f"{field.unknown:.0%} of the values of {field.field} were never seen in training.")
    return found


def _names(fields: list[FieldDrift], params: DriftParams) -> str:
    shown = ", ".join(f"{field.field} (effect {field.effect:.2f})" for field in fields[: params.shown])
    return shown + (f" and {len(fields) - params.shown} more" if len(fields) > params.shown else "")


def _checked_rows(reference: Reference, current: ValueCounts, params: DriftParams) -> int:
    names = [field.name for field in CLINICAL]
    for where, known in (
        ("the batch's counts", current),
        ("the reference", reference.fields),
        ("its nulls", reference.nulls),
    ):
        absent = [name for name in names if name not in known]
        if absent:
            raise DataError(f"{where} lack {', '.join(absent)}; drift cannot be judged without every clinical field")
    rows = {name: sum(current[name].values()) for name in names}
    if len(set(rows.values())) > 1:
        raise DataError(f"the batch's counts do not add up: between {min(rows.values())} and {max(rows.values())} rows")
    (found,) = set(rows.values())
    if min(found, reference.rows) < params.min_rows:
        raise DataError(
            f"{found} encounters against a reference of {reference.rows} are too few to judge drift; "
            f"at least {params.min_rows} (DriftParams.min_rows) are needed"
        )
    return found


def _aligned(reference: Mapping[str, int], current: Mapping[str, int]) -> tuple[Floats, Floats]:
    values = [*reference, *(value for value in current if value not in reference)]
    first, second = (np.array([counts.get(value, 0) for value in values], float) for counts in (reference, current))
    if not first.sum() or not second.sum():
        raise DataError("a field has no encounters at all in the batch or in the reference")
    return first, second


def _aligned_numbers(reference: Mapping[str, int], current: Mapping[str, int]) -> tuple[Floats, Floats, Floats]:
    given = [{float(text): n for text, n in counts.items() if text != MISSING} for counts in (reference, current)]
    numbers = sorted({*given[0], *given[1]})
    first, second = (np.array([counts.get(number, 0) for number in numbers], float) for counts in given)
    return np.array(numbers, float), first, second


def _with_missing_first(reference: Mapping[str, int], current: Mapping[str, int]) -> tuple[Floats, Floats]:
    _, first, second = _aligned_numbers(reference, current)
    return np.append(reference.get(MISSING, 0), first), np.append(current.get(MISSING, 0), second)


def _normed_distance(reference: Mapping[str, int], current: Mapping[str, int]) -> float:
    values, first, second = _aligned_numbers(reference, current)
    if not first.sum() or not second.sum():
        return 1.0  # nothing to compare: no evidence of drift
    return wasserstein(values, first, second)


def _merged(counts: Mapping[str, int], own: list[str]) -> Floats:
    known = [counts.get(value, 0) for value in own]
    return np.array([*known, sum(counts.values()) - sum(known)], float)


def _shares_apart(reference: Floats, current: Floats) -> tuple[float, float]:
    return psi(reference, current), jensen_shannon(reference, current)


def _filled(shares: Floats) -> Floats:
    smallest = shares[shares > 0].min()
    return np.where(shares == 0, smallest / 10**6 if smallest <= 0.0001 else 0.0001, shares)
