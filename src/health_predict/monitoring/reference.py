"""The reference profile: counts and summaries of the encounters that a model was trained on, stored in the bundle.

The profile holds no row of any patient. The multivariate check and Evidently's page, which need rows, read the tables
that the bundle names (`trained_on`).
"""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.data.cohort import LabelledEncounters
from health_predict.data.field import Field
from health_predict.data.schema import CLINICAL, MISSING
from health_predict.errors import DataError
from health_predict.params import DriftParams

Floats = NDArray[np.float64]
ValueCounts = Mapping[str, Mapping[str, int]]  # field -> value as text -> encounters


class Null(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Null distribution of a field's test statistic, without drift: `scale` times a chi-square."""

    scale: float
    degrees: float

    @property
    def mean(self) -> float:
        return self.scale * self.degrees


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Counts by value for every clinical field, and percentiles of the model's scores. No row of any patient."""

    rows: int
    outcomes: int
    fields: dict[str, dict[str, int]]  # field -> value as text, `?` for missing -> encounters
    nulls: dict[str, Null]  # field -> null distribution of its test statistic, from resampled patients
    importance: dict[str, float]  # field -> share of the model's reliance, adding up to 1; equal where not measured
    scores: list[float]  # percentiles 0 to 100 of the calibrated probability
    scored: int  # encounters behind `scores`


def profile(
    labelled: LabelledEncounters,
    y_proba: Floats,
    importance: Mapping[str, float] | None = None,
    params: DriftParams | None = None,
) -> Reference:
    """Summarise encounters with their outcomes, and the model's probabilities.

    `y_proba`, shape (n,), should be of encounters that the model was not fitted on, not necessarily of `labelled`:
    probabilities of its own training data are spread wider. `importance` is the share of reliance by field
    (`reliance`); None: equal for all fields. Raises DataError where there are no rows or no scores.
    """
    encounters = labelled.encounters
    if encounters.is_empty() or not len(y_proba):
        raise DataError("a reference needs encounters and scores; one of them is empty")
    names = [field.name for field in CLINICAL]
    shares = dict.fromkeys(names, 1 / len(names)) if importance is None else dict(importance)
    fields = value_counts(encounters)
    return Reference(
        rows=len(encounters),
        outcomes=int(labelled.outcomes.sum()),
        fields={name: dict(counts) for name, counts in fields.items()},
        nulls=_nulls(encounters, fields, labelled.patients, params or DriftParams()),
        importance=shares,
        scores=percentiles(y_proba),
        scored=len(y_proba),
    )


def percentiles(y_proba: Floats) -> list[float]:
    """The 101 percentiles 0 to 100 of the probabilities."""
    return [float(value) for value in np.percentile(y_proba, np.arange(101))]


def value_counts(encounters: pl.DataFrame) -> ValueCounts:
    """Number of encounters by value for every clinical field, values as text in their order, `?` for missing.

    Raises DataError naming the clinical fields that the table lacks.
    """
    absent = [field.name for field in CLINICAL if field.name not in encounters.columns]
    if absent:
        raise DataError(f"the encounters lack {', '.join(absent)}; drift cannot be judged without every clinical field")
    return {field.name: _counts(encounters[field.name], field) for field in CLINICAL}


def reliance(
    predict_proba: Callable[[pl.DataFrame], Floats], encounters: pl.DataFrame, seed: int, rows: int = 2_000
) -> dict[str, float]:
    """Share of the model's reliance on each clinical field, adding up to 1.

    Mean absolute change of the probability when a field's values are permuted among the encounters: model reliance
    (Fisher, Rudin and Dominici, JMLR 2019;20:177) on predictions instead of losses, so that no outcome is needed. At
    most `rows` encounters are used. Raises DataError where no field changes any probability.
    """
    rng = np.random.default_rng(seed)
    sample = encounters[np.sort(rng.permutation(len(encounters))[:rows])]
    expected = predict_proba(sample)
    order = rng.permutation(len(sample))
    names = [field.name for field in CLINICAL]
    # One call of `predict_proba` for all fields costs the least.
    dealt = pl.concat([sample.with_columns(sample[name].gather(order)) for name in names])
    changes = np.abs(predict_proba(dealt).reshape(len(names), -1) - expected).mean(axis=1)
    if not changes.sum() > 0:
        raise DataError("the model answers the same whatever it is given; its fields have no importance to weigh")
    return dict(zip(names, (changes / changes.sum()).tolist(), strict=True))


def cells(reference: Mapping[str, int], min_share: float) -> list[str]:
    """Values of a category with a cell of their own in its test: those with a share of at least `min_share`.

    The other values share one cell."""
    rows = sum(reference.values())
    return [value for value, count in reference.items() if count >= min_share * rows]


def statistic(reference: Floats, current: Floats, ordered: bool) -> Floats:
    """Test statistic of two tables of counts, each of shape (..., cells); returns shape (...).

    Categories: chi-square of homogeneity (Pearson). Ordered values: the two-sample Anderson-Darling statistic with
    ties (Scholz and Stephens, JASA 1987;82:918), equally sensitive at both ends. Both are quadratic in the
    difference of the shares and independent of the sample sizes, so that one null distribution serves every batch
    size. Both are weighted with the mean of the two shares, not the pooled share: for a million rows against a
    thousand, pooling would overrate three encounters with a rare value.
    """
    m, n = reference.sum(axis=-1, keepdims=True), current.sum(axis=-1, keepdims=True)
    difference = reference / m - current / n
    middle = (reference / m + current / n) / 2
    if ordered:
        difference, below = np.cumsum(difference, axis=-1), np.cumsum(middle, axis=-1)
        spread = below * (1 - below)
        inside = (spread > 1e-12) & (middle > 0)
        terms = np.divide(difference**2 * middle, spread, out=np.zeros_like(middle), where=inside)
    else:
        terms = np.divide(difference**2, middle, out=np.zeros_like(middle), where=middle > 0)
    total: Floats = effective(m, n)[..., 0] * terms.sum(axis=-1)
    return total


def effective(m: Floats, n: Floats) -> Floats:
    """m n / (m + n), the factor that scales a difference of two shares."""
    return m * n / (m + n)


def _counts(values: pl.Series, field: Field) -> dict[str, int]:
    counted = _in_steps(values, field).value_counts(name="count").sort(values.name, nulls_last=True)
    texts = counted[values.name].cast(pl.String).fill_null(MISSING)
    return dict(zip(texts.to_list(), counted["count"].to_list(), strict=True))


def _in_steps(values: pl.Series, field: Field) -> pl.Series:
    """Values of a decimal as multiples of its step; values of other fields unchanged."""
    return ((values / field.step).round() * field.step).round(9) + 0.0 if field.step else values


def _nulls(
    encounters: pl.DataFrame, fields: ValueCounts, patients: NDArray[np.int64], params: DriftParams
) -> dict[str, Null]:
    """Null distribution of every field's statistic, from repeated random divisions of the patients in two.

    Each patient's encounters stay together, so that their correlation counts; the scaled chi-square with the same
    mean and variance is the second-order correction of Rao and Scott (JASA 1981;76:221).
    """
    rng = np.random.default_rng(params.seed)
    sampled = _some_patients(patients, params.null_rows, rng)
    encounters = encounters.filter(sampled)
    people, index = np.unique(patients[sampled], return_inverse=True)
    halves = np.array([rng.random(len(people))[index] < 0.5 for _ in range(params.replicates)], dtype=np.float32)
    return {
        field.name: _null(_codes(encounters[field.name], fields[field.name], field, params), halves, field.is_quantity)
        for field in CLINICAL
    }


def _some_patients(patients: NDArray[np.int64], rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of about `rows` rows, all of a patient or none; the null does not depend on their number."""
    people, index = np.unique(patients, return_inverse=True)
    kept: NDArray[np.bool_] = (rng.random(len(people)) < rows / len(patients))[index]
    return kept


def _codes(values: pl.Series, counts: Mapping[str, int], field: Field, params: DriftParams) -> NDArray[np.int64]:
    """Cell number of each row; ordered values have one cell each, in their order."""
    own = list(counts) if field.is_quantity else cells(counts, params.min_cell_share)
    texts = _in_steps(values, field).cast(pl.String).fill_null(MISSING)
    coded = texts.replace_strict(own, range(len(own)), default=len(own), return_dtype=pl.Int64)
    return coded.to_numpy()


def _null(codes: NDArray[np.int64], halves: NDArray[np.float32], ordered: bool) -> Null:
    total = np.bincount(codes)
    # A product of matrices counts all divisions at once; float32 holds counts up to 16 million.
    first = (halves @ (codes[:, None] == np.arange(len(total))).astype(np.float32)).astype(np.float64)
    usable = (first.sum(axis=1) > 0) & (first.sum(axis=1) < len(codes))
    found = statistic(first[usable], total - first[usable], ordered)
    mean, variance = (float(found.mean()), float(found.var())) if len(found) else (0.0, 0.0)
    if mean <= 0 or variance <= 0:
        return Null(1.0, 1.0)  # the field has one value only: any other value is judged as one more cell
    return Null(variance / (2 * mean), 2 * mean**2 / variance)
