"""Selects the cohort, and labels its encounters with their outcomes."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.data.follow_up import REPRESENTS, representation
from health_predict.data.schema import AGAINST_ADVICE, EXCLUDED_DISPOSITIONS, OUTCOME, TRANSFERRED
from health_predict.params import Target


def select_cohort(encounters: pl.DataFrame) -> pl.DataFrame:
    """Encounters that did not end in death or a hospice, unknown dispositions included, row order kept.

    The others cannot be readmitted: they would teach a model that dying is a good outcome, and look like drift.
    """
    ended = pl.col("discharge_disposition_id").is_in(EXCLUDED_DISPOSITIONS)
    return encounters.filter(~ended.fill_null(value=False))


def is_eligible(encounters: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether each encounter of the cohort is an eligible index stay, shape (rows,); unknown dispositions are.

    Stays that ended with a transfer to acute care, or against medical advice, are not: the hospital that discharges
    could not plan what followed. So does the hospital-wide readmission measure of CMS, which counts no readmission
    after them (CMS, Hospital-Wide All-Cause Unplanned Readmission Measure, NQF 1789, index admission exclusions).
    """
    left = pl.col("discharge_disposition_id").is_in([*TRANSFERRED, *AGAINST_ADVICE])
    return encounters.select(~left.fill_null(value=False)).to_series().to_numpy()


def outcome(encounters: pl.DataFrame, target: Target = "lt30") -> NDArray[np.bool_]:
    """Whether each patient was readmitted, shape (rows,): `lt30` within 30 days, `any` at any time."""
    readmitted = encounters[OUTCOME]
    happened = readmitted == "<30" if target == "lt30" else readmitted != "NO"
    return happened.to_numpy()


@dataclass(frozen=True)
class LabelledEncounters:
    """Encounters with their outcomes, row by row.

    `represents`: number of encounters that each row stands for, 0 where it was followed up and its outcome without
    follow-up is unknown (data/follow_up.py); None: each stands for itself.
    """

    encounters: pl.DataFrame
    outcomes: NDArray[np.bool_]
    represents: NDArray[np.float64] | None = None

    @property
    def patients(self) -> NDArray[np.int64]:
        """Patient of each row, shape (rows,): the unit of resampling."""
        return self.encounters["patient_nbr"].to_numpy()

    def of(self, rows: NDArray[np.bool_]) -> "LabelledEncounters":
        """The rows where `rows` is true."""
        represents = None if self.represents is None else self.represents[rows]
        return LabelledEncounters(self.encounters.filter(rows), self.outcomes[rows], represents)

    @property
    def judgeable(self) -> "LabelledEncounters":
        """The rows whose outcomes without follow-up are known."""
        return self if self.represents is None else self.of(self.represents > 0)


def label(encounters: pl.DataFrame, target: Target) -> LabelledEncounters:
    """Encounters with their outcomes for the target, row order kept; every outcome must be known."""
    represents = representation(encounters)
    return LabelledEncounters(encounters.drop(REPRESENTS, strict=False), outcome(encounters, target), represents)
