"""The gate: may the challenger replace the champion?

`compare_models` measures, `checks` applies the rules one by one, `objections` keeps the sentences of those that
failed; an empty list means promote. Nothing here reads or writes anything.

Without a champion the rules that need one are left out; sample size, unseen data, calibration, the clinical scores
and the floor of the subgroups still hold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from health_predict.errors import DataError
from health_predict.evaluation import clinical_scores
from health_predict.evaluation.metrics import (
    AurocComparison,
    Differences,
    Interval,
    Metrics,
    compare,
    compare_auroc,
    evaluate,
)
from health_predict.evaluation.subgroups import SubgroupMetrics, subgroups
from health_predict.params import BootstrapParams, GateParams


@dataclass(frozen=True)
class Scores:
    """The risks that one model version gives to the encounters of the comparison, in their order."""

    version: str
    y_proba: NDArray[np.float64]
    threshold: float


@dataclass(frozen=True)
class Opponent:
    """A model that the challenger is measured against: its own metrics, and challenger minus opponent."""

    version: str
    metrics: Metrics
    differences: Differences


@dataclass(frozen=True)
class Comparison:
    """All that the rules need to know, and nothing about any one patient.

    `seen` is the number of encounters that one of the models was trained on. `clinical` holds each clinical score's
    AUROC and challenger minus score. `fingerprints` name the data: of the comparison, and of what the models were
    trained on.
    """

    challenger_version: str
    challenger: Metrics
    champion: Opponent | None
    first: Opponent | None
    clinical: Mapping[str, AurocComparison]
    subgroups: tuple[SubgroupMetrics, ...]
    seen: int
    fingerprints: Mapping[str, str]

    @property
    def rows(self) -> int:
        return self.challenger.rows

    @property
    def outcomes(self) -> int:
        return self.challenger.outcomes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives back an equal comparison."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Comparison":
        """Raises DataError naming the field that is missing or of the wrong type."""
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"this is not a stored comparison: {error}") from error


@dataclass(frozen=True)
class Check:
    """One rule applied: the sentence gives the number and the limit, whether it passed or not."""

    name: str
    passed: bool
    sentence: str


def compare_models(
    encounters: pl.DataFrame,
    y_true: ArrayLike,
    challenger: Scores,
    *,
    champion: Scores | None,
    first: Scores | None,
    trained_on: pl.Series,
    fingerprints: Mapping[str, str],
    gate: GateParams,
    bootstrap: BootstrapParams,
) -> Comparison:
    """Measure the challenger against the champion, the first approved model and the clinical scores.

    One row of `encounters` is one hospital stay with its raw columns; `y_true` and all risks follow its order.
    `trained_on` are the encounter_ids that any of the models was fitted, tuned or calibrated on. Everything is
    paired, on the same resamples of patients. Raises DataError as `metrics.evaluate` does.
    """
    y, patients = np.asarray(y_true), encounters["patient_nbr"].to_numpy()

    def measure(scores: Scores) -> Metrics:
        return evaluate(y, scores.y_proba, patients, scores.threshold, bootstrap)

    def oppose(opponent: Scores | None) -> Opponent | None:
        if opponent is None:
            return None
        differences = compare(y, challenger.y_proba, opponent.y_proba, patients, bootstrap)
        return Opponent(opponent.version, measure(opponent), differences)

    return Comparison(
        challenger_version=challenger.version,
        challenger=measure(challenger),
        champion=oppose(champion),
        first=oppose(first),
        clinical={
            name: compare_auroc(y, challenger.y_proba, score(encounters), patients, bootstrap)
            for name, score in clinical_scores.SCORES.items()
        },
        subgroups=tuple(
            subgroups(
                encounters,
                y,
                challenger.y_proba,
                threshold=challenger.threshold,
                params=bootstrap,
                min_outcomes=gate.min_subgroup_outcomes,
                champion_proba=None if champion is None else champion.y_proba,
            )
        ),
        seen=int(encounters["encounter_id"].is_in(trained_on.implode()).sum()),
        fingerprints=dict(fingerprints),
    )


def objections(comparison: Comparison, params: GateParams) -> list[str]:
    """Why the challenger may not be promoted, one sentence for each reason; empty: promote."""
    return [check.sentence for check in checks(comparison, params) if not check.passed]


def checks(comparison: Comparison, params: GateParams) -> list[Check]:
    """Every rule that applies to this comparison, in the order in which a reader asks."""
    return [
        *_data(comparison, params),
        *_against_clinical_scores(comparison),
        *_calibration(comparison, params),
        *_against_champion(comparison, params),
        *_against_first(comparison, params),
        *_within_subgroups(comparison, params),
    ]


def _data(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    rows, outcomes, seen = comparison.rows, comparison.outcomes, comparison.seen
    yield Check(
        "unseen data",
        seen == 0,
        f"{seen} of the {rows} encounters compared were used in training one of the models; none may be.",
    )
    yield Check(
        "enough encounters", rows >= params.min_rows, f"{rows} encounters compared; at least {params.min_rows} needed."
    )
    yield Check(
        "enough outcomes",
        outcomes >= params.min_outcomes,
        f"{outcomes} readmissions among them; at least {params.min_outcomes} needed.",
    )


def _against_clinical_scores(comparison: Comparison) -> Iterator[Check]:
    for name, score in comparison.clinical.items():
        yield Check(
            f"better than {name}",
            score.difference.lower > 0,
            f"AUROC minus that of {name} ({score.reference.estimate:.3f}) is {_signed(score.difference)}; "
            "the lower bound has to be above 0.",
        )


def _calibration(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    low, high = params.observed_expected
    found = comparison.challenger.observed_expected
    yield Check(
        "calibration in the large",
        low <= found.estimate <= high,
        f"Readmissions observed over expected are {found}; the estimate has to lie within {low:.2f} and {high:.2f}.",
    )


def _against_champion(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    if comparison.champion is None:
        return
    against = f"champion {comparison.champion.version}"
    differences = comparison.champion.differences
    yield _not_inferior("AUROC", against, differences.auroc, params.max_auroc_loss)
    yield _not_inferior("average precision", against, differences.average_precision, params.max_average_precision_loss)
    yield Check(
        f"Brier score against {against}",
        differences.brier.lower <= 0,
        f"Brier score minus that of {against} is {_signed(differences.brier, 5)} (lower is better); "
        "the lower bound may not be above 0, which would show that the risks got worse.",
    )


def _against_first(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    if comparison.first is not None:
        against = f"first model {comparison.first.version}"
        yield _not_inferior("AUROC", against, comparison.first.differences.auroc, params.max_auroc_loss_from_first)


def _within_subgroups(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    for subgroup in comparison.subgroups:
        where = f"{subgroup.attribute} {subgroup.group}"
        if subgroup.auroc is not None:
            yield Check(
                f"AUROC floor, {where}",
                subgroup.auroc.upper >= params.min_subgroup_auroc,
                f"AUROC for {where} is {subgroup.auroc}; "
                f"the upper bound may not be below {params.min_subgroup_auroc:.2f}.",
            )
        if subgroup.auroc_difference is not None:
            lost = subgroup.auroc_difference
            yield Check(
                f"AUROC loss, {where}",
                lost.estimate >= -params.max_subgroup_auroc_loss or lost.upper >= 0,
                f"AUROC for {where} minus the champion's is {_signed(lost)}; "
                f"it may not be below -{params.max_subgroup_auroc_loss:.3f} with the whole interval below 0.",
            )


def _not_inferior(metric: str, against: str, difference: Interval, margin: float) -> Check:
    return Check(
        f"{metric} against {against}",
        difference.lower > -margin,
        f"{metric[0].upper()}{metric[1:]} minus that of {against} is {_signed(difference)}; "
        f"the lower bound has to be above -{margin:.3f}.",
    )


def _signed(difference: Interval, decimals: int = 3) -> str:
    values = (difference.estimate, difference.lower, difference.upper)
    estimate, lower, upper = (f"{value + 0.0:+.{decimals}f}" for value in values)
    return f"{estimate} ({lower} to {upper})"
