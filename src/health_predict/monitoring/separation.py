"""Tests whether combinations of fields tell a batch from the reference."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import norm

from health_predict.data.schema import CLINICAL, MISSING
from health_predict.errors import DataError
from health_predict.evaluation.metrics import auroc
from health_predict.monitoring.drift import CHECKS
from health_predict.params import DriftParams

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Separation:
    """How well a classifier tells the batch's encounters from the reference's; AUROC .5: not at all."""

    rows: int
    auroc: float
    threshold: float
    reasons: tuple[str, ...]

    @property
    def detected(self) -> bool:
        return bool(self.reasons)


def separation(reference: pl.DataFrame, current: pl.DataFrame, params: DriftParams) -> Separation:
    """Train a small classifier to tell batch from reference on the clinical fields without the administrative ones.

    Detects changed combinations, which tests of single fields miss (Lopez-Paz and Oquab, ICLR 2017; Rabanser et al.,
    NeurIPS 2019). One row is one encounter; `reference` has rows of the bundle's `trained_on` tables. Scores are
    cross-fitted with each patient on one side. Raises DataError when either side is too small.
    """
    rng = np.random.default_rng(params.seed)
    sides = [table[np.sort(rng.permutation(len(table))[: params.separation_rows])] for table in (reference, current)]
    if min(len(side) for side in sides) < params.min_rows:
        raise DataError(
            f"{len(reference)} reference and {len(current)} current encounters; to tell them apart takes at least "
            f"{params.min_rows} (DriftParams.min_rows) of each"
        )
    pooled = pl.concat(sides)
    y = np.repeat([0, 1], [len(side) for side in sides])
    found = auroc(y, _cross_fitted(pooled, y, rng, params))
    m, n = (len(side) for side in sides)
    chance = float(norm.isf(params.false_alarm_rate / CHECKS)) * np.sqrt(
        params.design_effect * (m + n + 1) / (12 * m * n)
    )
    threshold = max(0.5 + float(chance), params.min_separation_auroc)
    reasons = (
        (f"A classifier tells the batch from the reference with AUROC {found:.3f}; {threshold:.3f} is the limit.",)
        if found >= threshold
        else ()
    )
    return Separation(m + n, found, threshold, reasons)


def _cross_fitted(pooled: pl.DataFrame, y: NDArray[np.int64], rng: np.random.Generator, params: DriftParams) -> Floats:
    """Score of each row, shape (rows,), by a classifier fitted on the half of the patients without its patient."""
    from lightgbm import LGBMClassifier  # noqa: PLC0415  (a second to import, and only this check needs it)

    X = _matrix(pooled)
    people, index = np.unique(pooled["patient_nbr"].to_numpy(), return_inverse=True)
    half = rng.random(len(people))[index] < 0.5
    scores = np.empty(len(y))
    for fitted, scored in ((half, ~half), (~half, half)):
        model = LGBMClassifier(
            n_estimators=params.separation_trees,
            num_leaves=8,
            min_child_samples=50,
            learning_rate=0.1,
            n_jobs=1,
            random_state=params.seed,
            deterministic=True,
            force_row_wise=True,
            verbosity=-1,
        )
        scores[scored] = model.fit(X[fitted], y[fitted]).booster_.predict(X[scored], num_threads=1)
    return scores


def _matrix(encounters: pl.DataFrame) -> NDArray[np.float32]:
    """Numbers unchanged; categories as their rank by frequency, which does not depend on a row's side."""
    used = [field for field in CLINICAL if not field.administrative]
    columns = []
    for field in used:
        values = encounters[field.name]
        if not field.is_quantity:
            texts = values.cast(pl.String).fill_null(MISSING).alias("value")
            counted = texts.value_counts().sort("count", "value", descending=True)["value"]
            values = texts.replace_strict(counted, pl.Series(range(len(counted)), dtype=pl.Int64))
        columns.append(values.cast(pl.Float32).to_numpy())
    return np.column_stack(columns)
