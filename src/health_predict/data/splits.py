"""What a model is trained on, tuned on and judged on; no patient is in two of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from health_predict.errors import DataError
from health_predict.params import AssemblyParams, SplitParams


@dataclass(frozen=True)
class Splits:
    """Encounters in file order, each in exactly one of the four."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    future: pl.DataFrame


@dataclass(frozen=True)
class Retraining:
    """Matured encounters for one retraining, in their order, each in at most one of the three."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame


def split(cohort: pl.DataFrame, params: SplitParams) -> Splits:
    """Divide the first part of the cohort by patient; what follows is the future.

    No patient is in two of train, validation and test. Shares hold for patients, so only nearly for rows.
    Patients of the initial data stay in the future: their later encounters are what a running hospital sees, and
    dropping them would leave a future without returning patients. Raises DataError when a part would be empty or
    a patient is missing.
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


def retraining(matured: Sequence[pl.DataFrame], params: AssemblyParams) -> Retraining:
    """Divide all matured encounters for a retraining: `matured` are the batches in order of arrival, oldest first.

    The test part, on which the gate compares, comes from the newest batch alone: nobody has trained on it, and it is
    what the next batch will be most like. So does validation (calibration, threshold). Both are drawn by patient
    until they have their rows, and nothing else of their patients is trained on. Everything else is. The same batches
    give the same division. Raises DataError where there are no batches, where a part would be empty, or where an
    encounter comes twice.
    """
    if not matured:
        raise DataError("there is nothing to divide for a retraining: no batch has matured")
    everything = pl.concat(matured)
    if everything["encounter_id"].n_unique() < everything.height:
        raise DataError("an encounter has matured twice; the batches overlap")
    rng = np.random.default_rng((params.seed, len(matured)))
    newest = matured[-1]
    scale = min(1.0, params.max_share * newest.height / (params.test_rows + params.validation_rows))
    test = _drawn(newest, round(scale * params.test_rows), rng)
    validation = _drawn(_without(newest, test), round(scale * params.validation_rows), rng)
    train = _without(_without(everything, test), validation)
    _check_not_empty(train=train, validation=validation, test=test)
    return Retraining(train, validation, test)


def _drawn(encounters: pl.DataFrame, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    """All encounters of patients drawn at random, until there are at least `rows`; all where there are fewer."""
    patients = rng.permutation(encounters["patient_nbr"].unique(maintain_order=True).to_numpy())
    counts = pl.DataFrame({"patient_nbr": patients}).join(
        encounters.group_by("patient_nbr").len(), on="patient_nbr", how="left", maintain_order="left"
    )
    before = counts["len"].cum_sum() - counts["len"]
    chosen = counts.filter(before < rows)["patient_nbr"]
    return encounters.filter(pl.col("patient_nbr").is_in(chosen.implode()))


def _without(encounters: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """The encounters of patients who are not among the others."""
    return encounters.filter(~pl.col("patient_nbr").is_in(others["patient_nbr"].implode()))


def _check_not_empty(**parts: pl.DataFrame) -> None:
    empty = [name for name, part in parts.items() if part.is_empty()]
    if empty:
        raise DataError(f"too few encounters to divide: nothing is left for {', '.join(empty)}")
