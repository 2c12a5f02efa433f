"""Which encounters count, and what is to be predicted of them."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.data.follow_up import REPRESENTS, representation
from health_predict.data.schema import EXCLUDED_DISPOSITIONS, OUTCOME
from health_predict.params import Target


def select_cohort(encounters: pl.DataFrame) -> pl.DataFrame:
    """Encounters that end with the patient alive and outside a hospice, or somewhere unknown, in their order.

    The others cannot be readmitted; kept, they would teach a model that dying is a good outcome, and look like drift.
    """
    ended = pl.col("discharge_disposition_id").is_in(EXCLUDED_DISPOSITIONS)
    return encounters.filter(~ended.fill_null(value=False))


def outcome(encounters: pl.DataFrame, target: Target = "lt30") -> NDArray[np.bool_]:
    """True where the patient was readmitted, in row order: `lt30` within 30 days, `any` at all."""
    readmitted = encounters[OUTCOME]
    happened = readmitted == "<30" if target == "lt30" else readmitted != "NO"
    return happened.to_numpy()


@dataclass(frozen=True)
class LabelledEncounters:
    """Encounters with their outcomes, row by row.

    `represents`: how many encounters each stands for, 0 where it was followed up and its outcome says nothing about
    risk without that (data/follow_up.py); None: each for itself.
    """

    encounters: pl.DataFrame
    outcomes: NDArray[np.bool_]
    represents: NDArray[np.float64] | None = None

    @property
    def patients(self) -> NDArray[np.int64]:
        """Whose encounter each row is: the unit of resampling."""
        return self.encounters["patient_nbr"].to_numpy()

    def of(self, rows: NDArray[np.bool_]) -> "LabelledEncounters":
        """Those rows only."""
        represents = None if self.represents is None else self.represents[rows]
        return LabelledEncounters(self.encounters.filter(rows), self.outcomes[rows], represents)

    @property
    def judgeable(self) -> "LabelledEncounters":
        """Those whose outcomes without follow-up are known."""
        return self if self.represents is None else self.of(self.represents > 0)


def label(encounters: pl.DataFrame, target: Target) -> LabelledEncounters:
    """Encounters whose outcomes are known, with the outcomes."""
    represents = representation(encounters)
    return LabelledEncounters(encounters.drop(REPRESENTS, strict=False), outcome(encounters, target), represents)
