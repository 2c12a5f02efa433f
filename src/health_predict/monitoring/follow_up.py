"""Estimates the effect of follow-up: readmissions of flagged encounters with follow-up, against those without."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from health_predict.data.follow_up import FollowUp, strata
from health_predict.evaluation.metrics import Interval, interval, resampled_sums
from health_predict.params import BootstrapParams, FollowUpParams


@dataclass(frozen=True)
class Effect:
    """Risk ratio among the flagged, with over without follow-up, within strata of the risk that care saw (Mantel and
    Haenszel; Greenland and Robins, Biometrics 1985;41:55), with its interval from resampled patients. Below 1 follow-up
    helps.

    Counts are of flagged encounters with a statement on follow-up. `ratio` is None with fewer than `min_events`
    readmissions on a side, or none that can be compared.
    """

    followed_up: int
    readmitted: int
    not_followed_up: int
    not_followed_up_readmitted: int
    ratio: Interval | None

    def __str__(self) -> str:
        counts = (
            f"Of flagged encounters {self.readmitted} of {self.followed_up} followed up and "
            f"{self.not_followed_up_readmitted} of {self.not_followed_up} not followed up were readmitted"
        )
        if self.ratio is None:
            return f"{counts}, too few to compare."
        return f"{counts}: risk ratio {self.ratio}, compared at about the same risk."


def effect_of(
    outcomes: NDArray[np.bool_],
    care: FollowUp,
    patients: ArrayLike,
    params: FollowUpParams,
    bootstrap: BootstrapParams,
) -> Effect | None:
    """The effect that outcomes show; None where no flagged encounter is stated to have been followed up."""
    sides = care.flagged & care.followed_up, care.flagged & care.not_followed_up
    rows = [int(side.sum()) for side in sides]
    readmitted = [int((outcomes & side).sum()) for side in sides]
    if not rows[0]:
        return None
    ratio = None
    if min(readmitted) >= params.min_events:
        ratio = _ratio(outcomes, sides, list(strata(care, params)), patients, bootstrap)
    return Effect(rows[0], readmitted[0], rows[1], readmitted[1], ratio)


def _ratio(
    outcomes: NDArray[np.bool_],
    sides: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    groups: list[NDArray[np.intp]],
    patients: ArrayLike,
    bootstrap: BootstrapParams,
) -> Interval | None:
    terms = np.zeros((len(outcomes), len(groups), 4))
    for number, group in enumerate(groups):
        for side, member in enumerate(sides):
            terms[group, number, 2 * side] = (outcomes & member)[group]
            terms[group, number, 2 * side + 1] = member[group]
    sums = resampled_sums(terms.reshape(len(outcomes), -1), patients, bootstrap).reshape(-1, len(groups), 4)
    helped, with_it, missed, without = np.moveaxis(sums, -1, 0)
    rows = np.maximum(with_it + without, 1)
    above, below = (helped * without / rows).sum(axis=1), (missed * with_it / rows).sum(axis=1)
    return interval(above / below, bootstrap) if (below > 0).all() else None
