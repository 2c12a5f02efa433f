"""Metrics by sex, race and age: a model that is good on average can be bad for a group."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from health_predict.data.schema import AGE_BANDS
from health_predict.errors import DataError
from health_predict.evaluation.metrics import Interval, Measurement, compare_auroc, evaluate
from health_predict.params import BootstrapParams

# Discrimination falls with age (AUROC .81 below 30, .72 to 60, .645 from 70), hence these cuts, in years.
AGE_GROUPS = {
    **dict.fromkeys(AGE_BANDS[:3], "under 30"),
    **dict.fromkeys(AGE_BANDS[3:6], "30 to 59"),
    **dict.fromkeys(AGE_BANDS[6:7], "60 to 69"),
    **dict.fromkeys(AGE_BANDS[7:], "70 and over"),
}


@dataclass(frozen=True)
class SubgroupMetrics:
    """Quality in one group of encounters. The intervals are None where the group is too small to say.

    `false_negative_rate` is the share of readmissions that were not flagged, `precision` the positive predictive
    value, `auroc_difference` challenger minus champion (None without a champion).
    """

    attribute: str
    group: str
    rows: int
    outcomes: int
    auroc: Measurement | None = None
    auroc_difference: Measurement | None = None
    false_negative_rate: Interval | None = None
    precision: Interval | None = None
    flag_rate: Interval | None = None
    observed_expected: Interval | None = None

    @property
    def too_small(self) -> bool:
        return self.auroc is None


def subgroups(
    encounters: pl.DataFrame,
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    threshold: float,
    params: BootstrapParams,
    min_outcomes: int,
    champion_proba: ArrayLike | None = None,
    represents: ArrayLike | None = None,
) -> list[SubgroupMetrics]:
    """Metrics by sex, race and age, in this order, the groups of each by name.

    With `represents` (data/follow_up.py), rows and outcomes count the encounters that represent any.

    One row of `encounters` is one hospital stay; the arrays follow its order. A missing race is the group "missing".
    A group with fewer than `min_outcomes` readmissions, or as few encounters without one, is too small.
    Raises DataError as `evaluate` does.
    """
    y, risks = np.asarray(y_true), np.asarray(y_proba)
    champion = None if champion_proba is None else np.asarray(champion_proba)
    patients = encounters["patient_nbr"].to_numpy()
    weights = None if represents is None else np.asarray(represents)
    if len(y) != len(encounters):
        raise DataError(f"{len(y)} outcomes for {len(encounters)} encounters; there has to be one for each")
    found = []
    for attribute, group, member in _members(encounters):
        counted = member if weights is None else member & (weights > 0)
        rows, outcomes = int(counted.sum()), int(y[counted].sum())
        stand_for = None if weights is None else weights[member]
        if min(outcomes, rows - outcomes) < max(min_outcomes, 1):
            found.append(SubgroupMetrics(attribute, group, rows, outcomes))
            continue
        metrics = evaluate(y[member], risks[member], patients[member], threshold, params, stand_for)
        opponent = risks if champion is None else champion
        compared = compare_auroc(y[member], risks[member], opponent[member], patients[member], params, stand_for)
        recall = metrics.recall
        found.append(
            SubgroupMetrics(
                attribute=attribute,
                group=group,
                rows=rows,
                outcomes=outcomes,
                auroc=compared.challenger,
                auroc_difference=None if champion is None else compared.difference,
                false_negative_rate=Interval(1 - recall.estimate, 1 - recall.upper, 1 - recall.lower),
                precision=metrics.precision,
                flag_rate=metrics.flag_rate,
                observed_expected=metrics.observed_expected,
            )
        )
    return found


def _members(encounters: pl.DataFrame) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    attributes = {
        "sex": encounters["gender"],
        "race": encounters["race"],
        "age": encounters["age"].replace_strict(AGE_GROUPS, default="unknown", return_dtype=pl.String),
    }
    for attribute, column in attributes.items():
        named = column.cast(pl.String).fill_null("missing")
        for group in named.unique().sort():
            yield attribute, group, (named == group).to_numpy()
