"""The gate: may the challenger replace the champion?

`compare_models` measures, `checks` applies the rules one by one, `objections` keeps the sentences of those that
failed; an empty list means promote. Nothing here reads or writes anything.

Without a champion the rules that need one are left out; sample size, unseen data, calibration, the clinical scores
and the floor of the subgroups still hold.

Rules are of two kinds, and a mistake of each is another one. Some ask the challenger to show something (not worse than
the champion by a margin, better than a clinical score): the mistake is to believe it, and grows with every challenger
that is tried on one hold-out. So each look, a question to that hold-out, has half the error of the one before (alpha
spending; Tian and Ramdas, Stat Methods Med Res 2021;30:976), whose sum bounds the error over all looks however
the challengers depend on each other. As all of these rules have to hold, none needs a correction for the others
(Berger, Technometrics 1982;24:295). The others refuse what was shown to be bad (a worse Brier score, a loss of
predictive value, a subgroup): there the mistake is to refuse, and grows with the number of subgroups, over whose tests
the error is divided (Bonferroni). These are not made harder to trip by further looks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from health_predict.data.cohort import is_eligible
from health_predict.errors import DataError
from health_predict.evaluation import clinical_scores
from health_predict.evaluation.metrics import (
    AurocComparison,
    Differences,
    Interval,
    Measurement,
    Metrics,
    compare,
    compare_auroc,
    evaluate,
)
from health_predict.evaluation.subgroups import SubgroupMetrics, subgroups
from health_predict.params import BootstrapParams, GateParams, Target


@dataclass(frozen=True)
class Scores:
    """The risks that one model version gives to the encounters of the comparison, in their order."""

    version: str
    y_proba: NDArray[np.float64]
    threshold: float
    target: Target = "lt30"
    capacity: float | None = None  # share of discharges that the threshold was chosen to flag


@dataclass(frozen=True)
class Opponent:
    """A model that the challenger is measured against: its own metrics, and challenger minus opponent.

    `capacity` is None in documents that were stored without it.
    """

    version: str
    metrics: Metrics
    differences: Differences
    target: Target = "lt30"
    capacity: float | None = None


@dataclass(frozen=True)
class EligibleStays:
    """The comparison on eligible index stays (`cohort.is_eligible`): how many, with how many readmissions.

    `challenger` and `champion` are None where they have too few readmissions, `champion` also where there is none.
    """

    rows: int
    outcomes: int
    challenger: Metrics | None = None
    champion: Opponent | None = None


@dataclass(frozen=True)
class Comparison:
    """The measurements that the rules of the gate judge; nothing in it is about a single patient.

    `seen` is the number of encounters that one of the models was trained on. `clinical` holds each clinical score's
    AUROC and challenger minus score. `fingerprints` name the data: of the comparison, and of what the models were
    trained on. `target` is what the challenger predicts. `look` counts the questions to this hold-out, this one
    included: `replace(comparison, look=3)` is the same comparison asked third. `capacity` is the share of discharges
    that the challenger is to flag; it and `eligible` are None only in documents that were stored without them.
    """

    challenger_version: str
    challenger: Metrics
    champion: Opponent | None
    first: Opponent | None
    clinical: Mapping[str, AurocComparison]
    subgroups: tuple[SubgroupMetrics, ...]
    seen: int
    fingerprints: Mapping[str, str]
    target: Target = "lt30"
    look: int = 1
    capacity: float | None = None
    eligible: EligibleStays | None = None

    def __post_init__(self) -> None:
        if self.look < 1:
            raise ValueError(f"the first look at a hold-out is 1, not {self.look}")

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
    capacity: float,
    gate: GateParams,
    bootstrap: BootstrapParams,
    represents: NDArray[np.float64] | None = None,
) -> Comparison:
    """Measure the challenger against the champion, the first approved model and the clinical scores.

    One row of `encounters` is one hospital stay with its raw columns; `y_true` and all risks follow its order.
    `trained_on` are the encounter_ids that any of the models was fitted, tuned or calibrated on; `capacity` is the
    share of discharges that the challenger is to flag. Everything is paired,
    on the same resamples of patients. With `represents`, how many encounters each row stands for, all is about outcomes
    without follow-up (data/follow_up.py), and counts are of the rows that represent any. Raises DataError as
    `metrics.evaluate` does.
    """
    y, patients = np.asarray(y_true), encounters["patient_nbr"].to_numpy()

    everyone = np.ones(len(y), dtype=np.bool_)

    def measure(scores: Scores, rows: NDArray[np.bool_] = everyone) -> Metrics:
        stand_for = None if represents is None else represents[rows]
        return evaluate(y[rows], scores.y_proba[rows], patients[rows], scores.threshold, bootstrap, stand_for)

    def oppose(opponent: Scores | None, rows: NDArray[np.bool_] = everyone) -> Opponent | None:
        if opponent is None:
            return None
        stand_for = None if represents is None else represents[rows]
        risks = challenger.y_proba[rows], opponent.y_proba[rows]
        differences = compare(y[rows], *risks, patients[rows], bootstrap, stand_for, capacity)
        return Opponent(opponent.version, measure(opponent, rows), differences, opponent.target, opponent.capacity)

    def among_eligible() -> EligibleStays:
        eligible = is_eligible(encounters)
        counted = eligible if represents is None else eligible & (represents > 0)
        rows, outcomes = int(counted.sum()), int(y[counted].sum())
        if min(outcomes, rows - outcomes) < _enough_eligible(gate):
            return EligibleStays(rows, outcomes)
        return EligibleStays(rows, outcomes, measure(challenger, eligible), oppose(champion, eligible))

    return Comparison(
        challenger_version=challenger.version,
        challenger=measure(challenger),
        champion=oppose(champion),
        first=oppose(first),
        clinical={
            name: compare_auroc(y, challenger.y_proba, score(encounters), patients, bootstrap, represents)
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
                represents=represents,
            )
        ),
        seen=int(encounters["encounter_id"].is_in(trained_on.implode()).sum()),
        fingerprints=dict(fingerprints),
        target=challenger.target,
        capacity=capacity,
        eligible=among_eligible(),
    )


def objections(comparison: Comparison, params: GateParams) -> list[str]:
    """Why the challenger may not be promoted, one sentence for each reason; empty: promote."""
    return [check.sentence for check in checks(comparison, params) if not check.passed]


def checks(comparison: Comparison, params: GateParams) -> list[Check]:
    """Every rule that applies to this comparison, in the order in which a reader asks."""
    return [check for rule in RULES for check in rule(comparison, params)]


def stance(comparison: Comparison, params: GateParams) -> str:
    """Whether the challenger is better than the champion, worse or neither, and what the gate makes of it."""
    if comparison.champion is None:
        return "Nothing is in production, so nothing else is replaced."
    found = comparison.champion.differences.auroc
    better, worse = found.lower > 0, found.upper < 0
    kind = "better than" if better else "worse than" if worse else "not told apart from"
    tie = "" if better or worse else ", a tie: the interval contains 0"
    return (
        f"By AUROC the challenger is {kind} champion {comparison.champion.version}: the difference is "
        f"{_signed(found, params.tail)}{tie}. The gate asks of a newer model that it is not worse by more than the "
        "margin; it need not be better."
    )


def _target(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    targets = {"challenger": comparison.target}
    for role, opponent in (("champion", comparison.champion), ("first model", comparison.first)):
        if opponent is not None:
            targets[role] = opponent.target
    named = ", ".join(f"{target} for the {role}" for role, target in targets.items())
    yield Check(
        "target",
        set(targets.values()) == {params.target},
        f"Predicted is {named}; production answers for {params.target} alone.",
    )


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


def _looks(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    yield Check(
        "looks",
        comparison.look <= params.max_looks,
        f"Question {comparison.look} to this hold-out; after {params.max_looks} a fresh one is needed, of outcomes "
        "that have matured since (docs/gate.md).",
    )


def _against_clinical_scores(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    tail = _tail(comparison, params)
    for name, score in comparison.clinical.items():
        found = _at(tail, score.difference, params)
        yield Check(
            f"better than {name}",
            found.lower > 0,
            f"AUROC minus that of {name} ({score.reference.estimate:.3f}) is {_signed(found, tail)}; "
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
    found, tail = comparison.champion.differences, _tail(comparison, params)
    yield _not_inferior("AUROC", against, found.auroc, params.max_auroc_loss, tail, params)
    yield _not_inferior(
        "average precision", against, found.average_precision, params.max_average_precision_loss, tail, params
    )
    yield Check(
        f"Brier score against {against}",
        found.brier.lower <= 0,
        f"Brier score minus that of {against} is {_signed(found.brier, params.tail, 5)} (lower is better); "
        "the lower bound may not be above 0, which would show that the risks got worse.",
    )


def _enough_eligible(params: GateParams) -> int:
    """Readmissions that are needed among the eligible index stays."""
    return max(ceil(params.min_eligible_share * params.min_outcomes), 1)


def _on_eligible_stays(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    found = comparison.eligible
    if found is None:
        return
    yield Check(
        "eligible index stays",
        found.challenger is not None,
        f"{found.rows} of the {comparison.rows} encounters compared are eligible index stays, neither transferred to "
        f"acute care nor discharged against advice, with {found.outcomes} readmissions; at least "
        f"{_enough_eligible(params)} needed.",
    )
    if found.champion is None:
        return
    against, differences = f"champion {found.champion.version}", found.champion.differences
    limits = {
        "AUROC": (differences.auroc, params.max_auroc_loss),
        "average precision": (differences.average_precision, params.max_average_precision_loss),
    }
    for metric, (difference, margin) in limits.items():
        where, tail = f"{metric} on eligible index stays", _tail(comparison, params)
        yield _not_inferior(where, against, difference, margin, tail, params)


def _operating_point(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    capacity, champion = comparison.capacity, comparison.champion
    if capacity is None:
        return
    rate, ratio = comparison.challenger.flag_rate.estimate, params.max_flag_rate_ratio
    as_near, than = False, ""
    if champion is not None and champion.capacity == capacity:  # else the champion was never to be near
        before = champion.metrics.flag_rate.estimate
        as_near = rate > 0 and _times(rate, capacity) <= _times(before, capacity)
        than = f", or as near to it as that of champion {champion.version}, {before:.1%}"
    yield Check(
        "flag rate",
        _times(rate, capacity) <= ratio or as_near,
        f"{rate:.1%} of the encounters are flagged at a capacity of {capacity:.1%}; the flag rate has to lie within "
        f"{capacity / ratio:.1%} and {min(capacity * ratio, 1.0):.1%}{than}.",
    )
    if champion is not None and champion.differences.ppv is not None:
        found = champion.differences.ppv
        yield Check(
            f"positive predictive value against champion {champion.version}",
            found.estimate >= -params.max_ppv_loss or found.upper >= 0,
            f"Positive predictive value where each model flags its highest {capacity:.1%}, minus that of champion "
            f"{champion.version}, is {_signed(found, params.tail)}; it may not be below -{params.max_ppv_loss:.3f} "
            "with the whole interval below 0.",
        )


def _times(one: float, other: float) -> float:
    """By what factor the larger is above the smaller."""
    return max(one, other) / min(one, other) if min(one, other) > 0 else inf


def _against_first(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    if comparison.first is not None:
        against, found = f"first model {comparison.first.version}", comparison.first.differences.auroc
        margin, tail = params.max_auroc_loss_from_first, _tail(comparison, params)
        yield _not_inferior("AUROC", against, found, margin, tail, params)


def _within_subgroups(comparison: Comparison, params: GateParams) -> Iterator[Check]:
    judged = [found for one in comparison.subgroups for found in (one.auroc, one.auroc_difference) if found is not None]
    tail = params.tail / max(len(judged), 1)
    for subgroup in comparison.subgroups:
        where = f"{subgroup.attribute} {subgroup.group}"
        if subgroup.auroc is not None:
            auroc = _at(tail, subgroup.auroc, params)
            yield Check(
                f"AUROC floor, {where}",
                auroc.upper >= params.min_subgroup_auroc,
                f"AUROC for {where} is {_interval(auroc, tail)}; "
                f"the upper bound may not be below {params.min_subgroup_auroc:.2f}.",
            )
        if subgroup.auroc_difference is not None:
            lost = _at(tail, subgroup.auroc_difference, params)
            yield Check(
                f"AUROC loss, {where}",
                lost.estimate >= -params.max_subgroup_auroc_loss or lost.upper >= 0,
                f"AUROC for {where} minus the champion's is {_signed(lost, tail)}; "
                f"it may not be below -{params.max_subgroup_auroc_loss:.3f} with the whole interval below 0.",
            )


RULES: tuple[Callable[[Comparison, GateParams], Iterator[Check]], ...] = (
    _target,
    _data,
    _looks,
    _against_clinical_scores,
    _calibration,
    _against_champion,
    _on_eligible_stays,
    _operating_point,
    _against_first,
    _within_subgroups,
)
_UNASKED = [
    name
    for name, one in list(globals().items())
    if name.startswith("_")  # mutation testing puts its mutants beside them, under names of its own
    if getattr(one, "__annotations__", {}).get("return") == Iterator[Check] and one not in RULES
]
if _UNASKED:
    raise ValueError(
        f"the gate would never ask {', '.join(_UNASKED)}: a rule has its place in RULES (evaluation/gate.py)"
    )


def _not_inferior(
    metric: str, against: str, difference: Measurement, margin: float, tail: float, params: GateParams
) -> Check:
    found = _at(tail, difference, params)
    return Check(
        f"{metric} against {against}",
        found.lower > -margin,
        f"{metric[0].upper()}{metric[1:]} minus that of {against} is {_signed(found, tail)}; "
        f"the lower bound has to be above -{margin:.3f}.",
    )


def _tail(comparison: Comparison, params: GateParams) -> float:
    """Probability of a mistake that this look may still make in believing what the challenger has to show."""
    return params.tail * 0.5 ** (comparison.look - 1)


def _at(tail: float, found: Measurement, params: GateParams) -> Interval:
    """The bootstrap's own interval where it is asked for, one from its standard error further out."""
    return found if tail >= params.tail else found.at(tail)


def _interval(found: Interval, tail: float, form: str = ".3f") -> str:
    return f"{found.estimate:{form}} ({100 * (1 - 2 * tail):.4g}%: {found.lower:{form}} to {found.upper:{form}})"


def _signed(found: Interval, tail: float, decimals: int = 3) -> str:
    without_minus_zero = Interval(found.estimate + 0.0, found.lower + 0.0, found.upper + 0.0)
    return _interval(without_minus_zero, tail, f"+.{decimals}f")
