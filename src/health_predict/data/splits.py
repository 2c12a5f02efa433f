"""Divides encounters into training, validation and test parts; no patient is in two of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import polars as pl

from health_predict.data.cohort import outcome
from health_predict.data.follow_up import REPRESENTS, judgeable, together
from health_predict.data.schema import OUTCOME
from health_predict.errors import DataError
from health_predict.params import AssemblyParams, GateParams, SplitParams


@dataclass(frozen=True)
class Splits:
    """Encounters in file order, each in exactly one of four parts."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    future: pl.DataFrame


@dataclass(frozen=True)
class Retraining:
    """Matured encounters for one retraining, in their order, each in at most one of three parts."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame


@dataclass(frozen=True)
class Supply:
    """Counts of encounters whose outcomes can be judged, and of readmissions within 30 days among them."""

    rows: int
    outcomes: int

    def covers(self, other: "Supply") -> bool:
        return self.rows >= other.rows and self.outcomes >= other.outcomes


def split(cohort: pl.DataFrame, params: SplitParams) -> Splits:
    """Divide the first part of the cohort by patient; the rest is the future, which is empty with 0 batches.

    No patient is in two of train, validation and test. Shares hold for patients, so only nearly for rows. Later
    encounters of patients in the initial data stay in the future, as in a running hospital; without them, no patient
    would return. Raises DataError when a part would be empty or a patient is missing.
    """
    if cohort["patient_nbr"].has_nulls():
        raise DataError("patient_nbr is missing in the cohort; encounters cannot be divided by patient")
    initial_rows = int(cohort.height * params.initial_share) if params.batches else cohort.height
    initial, future = cohort.head(initial_rows), cohort.slice(initial_rows)
    patients = initial["patient_nbr"].unique().sort().to_numpy()
    shuffled = np.random.default_rng(params.seed).permutation(patients)
    ends = np.round(np.cumsum([params.train_share, params.validation_share]) * len(shuffled)).astype(int)
    train, validation, test = (
        initial.filter(pl.col("patient_nbr").is_in(part.tolist())) for part in np.split(shuffled, ends)
    )
    _check_not_empty(train=train, validation=validation, test=test, **({"future": future} if params.batches else {}))
    return Splits(train, validation, test, future)


def needed(params: AssemblyParams, gate: GateParams) -> Supply:
    """Least fresh encounters and readmissions with which the gate can decide on its part of them."""
    share = params.max_share * params.test_rows / (params.test_rows + params.validation_rows)
    return Supply(ceil(gate.min_rows / share), ceil(gate.min_outcomes / share))


def supply(encounters: pl.DataFrame) -> Supply:
    """Number of encounters, and of readmissions within 30 days among them.

    Encounters with follow-up do not count: their outcomes without it are unknown.
    """
    counted = judgeable(encounters)
    return Supply(counted.height, int(outcome(counted).sum()))


def total(batches: Sequence[pl.DataFrame]) -> Supply:
    """As `supply`, of several tables together; zeros for no table."""
    return supply(together(batches)) if batches else Supply(0, 0)


def fresh(batches: Sequence[pl.DataFrame], known: pl.Series) -> list[pl.DataFrame]:
    """Each batch without the encounters whose ids are `known`, row order kept."""
    return [batch.filter(~pl.col("encounter_id").is_in(known.implode())) for batch in batches]


def pool(batches: Sequence[pl.DataFrame], known: pl.Series, params: AssemblyParams, gate: GateParams) -> pl.DataFrame:
    """The newest fresh encounters, in order of arrival, from which a hold-out may be drawn.

    `batches` have matured, oldest first; `known` are the ids of encounters that a compared model has seen, or that an
    earlier hold-out had. Batches are taken from the newest back until test and validation can have their full size;
    all of them where there are fewer.
    """
    least = needed(params, gate)
    wanted = Supply(
        max(ceil((params.test_rows + params.validation_rows) / params.max_share), least.rows), least.outcomes
    )
    taken: list[pl.DataFrame] = []
    for batch in reversed(fresh(batches, known)):
        if taken and supply(together(taken)).covers(wanted):
            break
        taken.insert(0, batch)
    if not taken:
        raise DataError("there is nothing to hold out: no batch has matured")
    return together(taken)


def retraining(
    matured: Sequence[pl.DataFrame], candidates: pl.DataFrame, params: AssemblyParams, gate: GateParams
) -> Retraining:
    """Divide all matured encounters for a retraining; `candidates` are those that may be held out (`pool`).

    The test part, on which the gate compares, is drawn from the candidates by patient until it has its rows, and as
    many readmissions as the gate needs; then validation (calibration, threshold), from the remaining candidates. The
    training part is all encounters of other patients. The same tables give the same division. Raises DataError where
    a part would be empty, or an encounter is in the tables twice.
    """
    everything = together(matured)
    _refuse_doubles(everything)
    rng = np.random.default_rng((params.seed, len(matured)))
    test = _test(candidates, params, gate, rng)
    validation = _drawn(_without(candidates, test), Supply(_scaled(params.validation_rows, candidates, params), 0), rng)
    train = _without(_without(everything, test), validation)
    _check_not_empty(train=train, validation=validation, test=test)
    return Retraining(train, validation, test)


def recalibration(
    candidates: pl.DataFrame, params: AssemblyParams, gate: GateParams
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Parts to calibrate on and to compare on, no patient in both; nothing is kept for training."""
    _refuse_doubles(candidates)
    test = _test(candidates, params, gate, np.random.default_rng((params.seed, 1)))
    validation = _without(candidates, test)
    _check_not_empty(validation=validation, test=test)
    return validation, test


def _refuse_doubles(encounters: pl.DataFrame) -> None:
    if encounters["encounter_id"].n_unique() < encounters.height:
        raise DataError("an encounter has matured twice; the batches overlap")


def _test(candidates: pl.DataFrame, params: AssemblyParams, gate: GateParams, rng: np.random.Generator) -> pl.DataFrame:
    rows = max(_scaled(params.test_rows, candidates, params), gate.min_rows)
    return _drawn(candidates, Supply(rows, gate.min_outcomes), rng)


def _scaled(rows: int, candidates: pl.DataFrame, params: AssemblyParams) -> int:
    """`rows`, scaled down where there are fewer candidates than test and validation should have together."""
    scale = params.max_share * supply(candidates).rows / (params.test_rows + params.validation_rows)
    return round(min(1.0, scale) * rows)


def _drawn(encounters: pl.DataFrame, least: Supply, rng: np.random.Generator) -> pl.DataFrame:
    """All encounters of randomly drawn patients, until they reach `least`; all encounters where they do not."""
    patients = rng.permutation(encounters["patient_nbr"].unique(maintain_order=True).to_numpy())
    counts = pl.col(REPRESENTS) > 0 if REPRESENTS in encounters.columns else pl.lit(value=True)
    counted = {"rows": counts, "outcomes": counts & (pl.col(OUTCOME) == "<30")}
    each = encounters.with_columns(**counted).group_by("patient_nbr").agg(pl.col(*counted).sum())
    drawn = pl.DataFrame({"patient_nbr": patients}).join(each, on="patient_nbr", how="left", maintain_order="left")
    before = {name: pl.col(name).cum_sum() - pl.col(name) for name in ("rows", "outcomes")}
    chosen = drawn.filter((before["rows"] < least.rows) | (before["outcomes"] < least.outcomes))["patient_nbr"]
    return encounters.filter(pl.col("patient_nbr").is_in(chosen.implode()))


def _without(encounters: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """The encounters of patients who have none in `others`."""
    return encounters.filter(~pl.col("patient_nbr").is_in(others["patient_nbr"].implode()))


def _check_not_empty(**parts: pl.DataFrame) -> None:
    empty = [name for name, part in parts.items() if part.is_empty()]
    if empty:
        raise DataError(f"too few encounters to divide: nothing is left for {', '.join(empty)}")
