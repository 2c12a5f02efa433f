"""Initial data, divided by patient, and the rest, which is replayed as it would have arrived."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from health_predict.errors import DataError
from health_predict.params import SplitParams


@dataclass(frozen=True)
class Splits:
    """Encounters in file order, each in exactly one of the four."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    future: pl.DataFrame


def split(cohort: pl.DataFrame, params: SplitParams) -> Splits:
    """Divide the first part of the cohort by patient; what follows is the future.

    No patient is in two of train, validation and test. Shares hold for patients, so only nearly for rows.
    Patients of the initial data stay in the future: their later encounters are what a running hospital sees, and
    dropping them would leave a future without returning patients. Whoever compares models on the future excludes
    the patients that a model was trained on. Raises DataError when a part would be empty or a patient is missing.
    """
    if cohort["patient_nbr"].has_nulls():
        raise DataError("patient_nbr is missing in the cohort; encounters cannot be divided by patient")
    initial_rows = int(cohort.height * params.initial_share)
    initial, future = cohort.head(initial_rows), cohort.slice(initial_rows)
    patients = initial["patient_nbr"].unique().sort().to_numpy()
    shuffled = np.random.default_rng(params.seed).permutation(patients)
    ends = np.round(np.cumsum([params.train_share, params.validation_share]) * len(shuffled)).astype(int)
    train, validation, test = (
        initial.filter(pl.col("patient_nbr").is_in(part.tolist())) for part in np.split(shuffled, ends)
    )
    _check_not_empty(train=train, validation=validation, test=test, future=future)
    return Splits(train, validation, test, future)


def _check_not_empty(**parts: pl.DataFrame) -> None:
    empty = [name for name, part in parts.items() if part.is_empty()]
    if empty:
        raise DataError(f"too few encounters to divide: nothing is left for {', '.join(empty)}")
