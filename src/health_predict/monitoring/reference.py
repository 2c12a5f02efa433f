"""The reference profile: what the encounters that a model was trained on looked like. It travels in the bundle."""

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.data.cohort import LabelledEncounters
from health_predict.data.schema import CLINICAL

MISSING = "?"  # as in the raw data; no code of any field is spelled so


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Counts by value for every clinical field, and the scores that the model gave. No row of any patient."""

    rows: int
    outcomes: int
    fields: dict[str, dict[str, int]]  # field -> value as text, `?` for missing -> encounters
    scores: list[float]  # percentiles 0 to 100 of the calibrated probability


def profile(labelled: LabelledEncounters, y_proba: NDArray[np.float64]) -> Reference:
    """Summarise encounters with their outcomes and the probabilities that the model gives them."""
    encounters = labelled.encounters
    return Reference(
        rows=len(encounters),
        outcomes=int(labelled.outcomes.sum()),
        fields={field.name: _counts(encounters[field.name]) for field in CLINICAL},
        scores=percentiles(y_proba),
    )


def percentiles(y_proba: NDArray[np.float64]) -> list[float]:
    """The 101 percentiles 0 to 100 of the probabilities."""
    return [float(value) for value in np.percentile(y_proba, np.arange(101))]


def _counts(values: pl.Series) -> dict[str, int]:
    counted = values.cast(pl.String).fill_null(MISSING).value_counts(name="count").sort(values.name)
    return dict(zip(counted[values.name].to_list(), counted["count"].to_list(), strict=True))
