"""Weights encounters by follow-up, so that outcomes are those that all encounters would have without follow-up.

A flag changes care. The outcome without follow-up, which a risk has to predict, is unknown for a flagged encounter that
was followed up, and a model that learns from its own success finds the sickest safe (Lenert et al., JAMIA
2019;26:1645). The models predict risk under the intervention "no follow-up", the hypothetical estimand of van Geloven
et al. (European Journal of Epidemiology 2020;35:619) and Sperrin et al. (Statistics in Medicine 2018;37:4142).

To judge and to calibrate (`represent`), encounters without follow-up stand for similar encounters with it: within
strata of the risk that care acted on, each has the weight all / not followed up, the inverse of its probability of no
follow-up (Cole and Hernan, American Journal of Epidemiology 2008;168:656). Encounters with follow-up have weight 0.
This rests on three assumptions: among encounters of about the same risk, chance decided who was followed up; every
encounter could have been left without; and encounters without a flag or a statement had no follow-up.

To fit (`for_training`), encounters with follow-up count too, as many of the readmitted are among them: the readmissions
that follow-up prevented are given back, by the risk ratio with and without. This assumes that follow-up prevents the
same share of readmissions in all patients; calibration and judgement do without that assumption.

The column REPRESENTS of a table of encounters holds the weights. A table without it has no known follow-up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.params import FollowUpParams

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

REPRESENTS = "represents"
CAVEAT = (
    "The risk ratio is the effect of follow-up only if chance decided, among encounters of about the same risk, "
    "who got it. Where care chose those it worried about, follow-up looks less useful than it is; where those "
    "readmitted early could not be reached, more."
)


@dataclass(frozen=True)
class FollowUp:
    """Care of each row: `flagged` by the risks that care saw; `followed_up` or `not_followed_up` as stated.

    Where both are false, nothing was stated.
    """

    risks: Floats
    flagged: Flags
    followed_up: Flags
    not_followed_up: Flags

    @classmethod
    def of(cls, risks: Floats, threshold: float, followed_up: pl.Series) -> "FollowUp":
        """Care that flagged risks from `threshold` on; `followed_up` is null where nothing was stated."""
        said = followed_up.fill_null(value=False).to_numpy(), (~followed_up).fill_null(value=False).to_numpy()
        return cls(risks, risks >= threshold, *said)

    @property
    def without(self) -> Flags:
        """Whether each encounter had no follow-up: as stated, or without a flag and a statement."""
        return self.not_followed_up | ~(self.flagged | self.followed_up)


@dataclass(frozen=True)
class Representation:
    """Number of encounters that each row stands for, 0 with follow-up; the weights add up to the number of rows.

    `unknown`: reason why the weights cannot be known; then all are 0.
    """

    weights: Floats
    unknown: str | None = None


def is_known(followed_up: pl.Series | None, params: FollowUpParams) -> bool:
    """Whether any encounter is stated to have been followed up, and `params.reading` takes that into account."""
    return params.reading == "aware" and followed_up is not None and bool(followed_up.any())


def represent(outcomes: Flags, care: FollowUp, params: FollowUpParams) -> Representation:
    """Weights with which outcomes are those of all encounters without follow-up, shape (rows,).

    If a stratum has too few encounters without follow-up, no row of the table has a weight, unless
    `params.assumed_ratio` gives the effect of follow-up: then encounters with follow-up count too, with the
    readmissions that it is assumed to have prevented.
    """
    weights = care.without.astype(np.float64)
    for stratum in strata(care, params):
        without = stratum[care.without[stratum]]
        if len(without) == len(stratum):
            continue
        if len(without) >= max(params.min_rows, params.min_share * len(stratum)):
            weights[without] = len(stratum) / len(without)
        elif params.assumed_ratio is not None and care.followed_up[stratum].any():
            weights[stratum] = _assumed(outcomes[stratum], care, stratum, params.assumed_ratio)
        else:
            return Representation(np.zeros(len(weights)), _unknown(len(without), len(stratum), params))
    return Representation(weights)


def strata(care: FollowUp, params: FollowUpParams) -> Iterator[NDArray[np.intp]]:
    """Positions of encounters of about the same risk: quantiles among the flagged, and among the others.

    There are at most `params.strata` strata, few enough that each has on average twice as many encounters without
    follow-up as it needs, so that chance leaves each enough.
    """
    for flagged in (True, False):
        rows = np.flatnonzero(care.flagged == flagged)
        if not len(rows):
            continue
        groups = int(np.clip(care.without[rows].sum() // (2 * params.min_rows), 1, params.strata))
        edges = np.quantile(care.risks[rows], np.linspace(0, 1, groups + 1)[1:-1])
        group = np.searchsorted(edges, care.risks[rows], side="right")
        yield from (rows[group == one] for one in np.unique(group))


def for_training(
    train: pl.DataFrame, batches: Sequence[tuple[pl.DataFrame, Flags, FollowUp]], params: FollowUpParams
) -> pl.DataFrame:
    """The encounters to fit on, with weights for those with follow-up too; row order kept.

    `batches` are the batches with follow-up and known weights: encounters, outcomes and care. The table is unchanged
    where there are none, or too few readmissions to measure the effect of follow-up.
    """
    ratio = _common_ratio([(outcomes, care) for _, outcomes, care in batches], params)
    if ratio is None:
        return train
    learnt = [
        pl.DataFrame({"encounter_id": encounters["encounter_id"], "learnt": _given_back(outcomes, care, ratio, params)})
        for encounters, outcomes, care in batches
    ]
    joined = train.join(pl.concat(learnt), on="encounter_id", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("learnt", REPRESENTS).alias(REPRESENTS)).drop("learnt")


def _common_ratio(batches: Sequence[tuple[Flags, FollowUp]], params: FollowUpParams) -> float | None:
    """Risk with follow-up over risk without among the flagged, of all strata of all batches (Mantel and Haenszel)."""
    above = below = 0.0
    events = [0, 0]
    for outcomes, care in batches:
        sides = care.flagged & care.followed_up, care.flagged & care.not_followed_up
        for stratum in strata(care, params):
            (helped, missed), (with_it, without) = (
                [int(one[stratum].sum()) for one in counted] for counted in ([side & outcomes for side in sides], sides)
            )
            above += helped * without / max(with_it + without, 1)
            below += missed * with_it / max(with_it + without, 1)
            events = [events[0] + helped, events[1] + missed]
    return above / below if min(events) >= params.min_events and above > 0 and below > 0 else None


def _given_back(outcomes: Flags, care: FollowUp, ratio: float, params: FollowUpParams) -> Floats:
    weights = care.without.astype(np.float64)
    for stratum in strata(care, params):
        if care.followed_up[stratum].any():
            weights[stratum] = _assumed(outcomes[stratum], care, stratum, ratio)
    return weights


def _assumed(outcomes: Flags, care: FollowUp, stratum: NDArray[np.intp], ratio: float) -> Floats:
    """Weights of a stratum with readmissions given back to the followed-up; both sides stand for the rest."""
    followed, without = care.followed_up[stratum], care.without[stratum]
    readmitted = int(outcomes[followed].sum())
    would = min(readmitted / ratio, float(followed.sum()))
    kept = followed.sum() - readmitted
    weights: Floats = without.astype(np.float64)
    weights[followed & outcomes] = would / max(readmitted, 1)
    weights[followed & ~outcomes] = (followed.sum() - would) / max(kept, 1)
    weights *= len(stratum) / weights.sum()
    return weights


def _unknown(without: int, rows: int, params: FollowUpParams) -> str:
    return (
        f"Of {rows} flagged encounters of about the same risk only {without} are said to have had no follow-up, where "
        f"{params.min_rows} and {params.min_share:.0%} are needed: what would have become of the others without it "
        "cannot be known. Leave some of the flagged without follow-up, chosen by chance, and say so (`none`); or "
        "assume how much it helps (FollowUpParams.assumed_ratio)."
    )


def with_representation(encounters: pl.DataFrame, weights: Floats) -> pl.DataFrame:
    """The table with the column REPRESENTS as its last."""
    return encounters.with_columns(pl.Series(REPRESENTS, weights, dtype=pl.Float64))


def representation(encounters: pl.DataFrame) -> Floats | None:
    """Number of encounters that each row stands for; None where no follow-up is known: each stands for itself."""
    return encounters[REPRESENTS].to_numpy() if REPRESENTS in encounters.columns else None


def judgeable(encounters: pl.DataFrame) -> pl.DataFrame:
    """The encounters whose outcomes without follow-up are known; all where no follow-up is known."""
    return encounters.filter(pl.col(REPRESENTS) > 0) if REPRESENTS in encounters.columns else encounters


def together(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All rows in order. Where one table has the column REPRESENTS, encounters of the others stand for themselves."""
    if not any(REPRESENTS in table.columns for table in tables):
        return pl.concat(tables)
    alone = pl.lit(1.0).alias(REPRESENTS)
    return pl.concat([table if REPRESENTS in table.columns else table.with_columns(alone) for table in tables])
