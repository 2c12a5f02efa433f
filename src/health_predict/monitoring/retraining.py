"""Decides, from evidence over recent batches, whether to retrain or recalibrate, with reasons.

Outcomes outrank inputs. A fall in realised AUROC leads to a retraining; so do enough new data or age, as more data
improve this model most; drift of the inputs does so only where the model relies on them and its scores drifted too.
Risks that are only too high, too low or too wide apart lead to a recalibration, which is cheap, and to a retraining
where a recalibration was tried already. Administrative drift is reported and never leads to a retraining.

One bad batch is usually a coincidence, so a finding has to be in `needed` of the last `window` batches, the newest
among them, unless it is severe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from health_predict.monitoring.performance import Performance
from health_predict.params import RetrainingParams

Action = Literal["none", "recalibrate", "retrain"]


@dataclass(frozen=True)
class Moved:
    """Drift of one batch from its champion's reference.

    Importances are shares of the model's reliance on the fields that drifted (`Drift`).
    """

    importance_drifted: float
    administrative_drifted: float
    scores_drifted: bool


@dataclass(frozen=True)
class BatchEvidence:
    """A batch's drift under a version when the batch arrived, or the performance on a batch that the version scored.

    `decisions`: number of lines in the ledger when the version was chosen to monitor or to score the batch.
    """

    batch: int
    version: str
    decisions: int
    found: Moved | Performance


@dataclass(frozen=True)
class Evidence:
    """Findings since the present champion came into production, by number of the batch.

    `moved` are batches monitored under the champion, `realised` those that it scored and that have matured. `ranked`
    goes back further, over versions with the same model and another calibration, as AUROC does not depend on that.
    """

    moved: tuple[Moved, ...] = ()
    realised: tuple[Performance, ...] = ()
    ranked: tuple[Performance, ...] = ()


@dataclass(frozen=True)
class Stock:
    """Counts of encounters to train and to compare on.

    `trained_rows`: encounters that production's model was fitted and tuned on. `new_rows`, in `batches`: matured
    encounters not among them; data of a declined training are still new. `fresh` encounters were seen by no compared
    model and are in no earlier hold-out; those with follow-up are left out, as their outcomes without it are unknown.
    `needed`: the least with which the gate can decide. `recalibrated`: whether a recalibration of production's model
    was tried, promoted or not. `unknown_rows` count nowhere else: too few of the flagged of their batches had no
    follow-up.
    """

    trained_rows: int
    new_rows: int
    batches: int
    fresh_rows: int
    fresh_outcomes: int
    needed_rows: int
    needed_outcomes: int
    recalibrated: bool = False
    unknown_rows: int = 0


@dataclass(frozen=True)
class Decision:
    """The action and its reasons; for "none", reasons against one."""

    action: Action
    reasons: tuple[str, ...]


def gather(
    findings: Sequence[BatchEvidence], productions: Sequence[str | None], models: Mapping[str | None, str]
) -> Evidence:
    """The evidence about the version in production, from all findings in any order.

    `productions` are the versions in production after each line of the ledger. `models` names the model of each
    version, which recalibrated versions share. Findings from before another version was in production do not count,
    even where a rollback brought the version back.
    """
    in_order = sorted(findings, key=lambda one: one.batch)
    own = [one.found for one in in_order if one.decisions > _took_over(productions)]
    by_model = [models.get(version, version) for version in productions]
    same_model = [one.found for one in in_order if one.decisions > _took_over(by_model)]
    return Evidence(
        moved=tuple(found for found in own if isinstance(found, Moved)),
        realised=tuple(found for found in own if isinstance(found, Performance)),
        ranked=tuple(found for found in same_model if isinstance(found, Performance)),
    )


def decide(evidence: Evidence, stock: Stock, params: RetrainingParams) -> Decision:
    """Decide from the evidence about the present champion; a retraining outranks a recalibration."""
    retrain = [*_discrimination(evidence.ranked, params), *_supply(stock, params), *_inputs(evidence.moved, params)]
    calibration = _calibration(evidence.realised, params)
    if calibration and stock.recalibrated:
        retrain += [f"{sentence} A recalibration was tried already." for sentence in calibration]
    found = tuple(retrain or calibration)
    if not found:
        return Decision("none", (*_quiet(evidence.moved), *_unknown(stock)))
    if waiting := _waiting(stock):
        return Decision("none", (*found, waiting))
    return Decision("retrain" if retrain else "recalibrate", found)


def too_few(rows: int, outcomes: int, needed_rows: int, needed_outcomes: int) -> str:
    """A sentence that fresh encounters are too few to compare models on."""
    return (
        f"Only {rows} matured encounters with {outcomes} readmissions are new to the models to be compared and were in "
        f"no earlier hold-out; {needed_rows} with {needed_outcomes} are needed for the gate to decide."
    )


def repeated(findings: Sequence[bool], params: RetrainingParams) -> bool:
    """Whether a finding is in the newest batch and in `needed` of the last `window`."""
    recent = findings[-params.window :]
    return bool(recent) and recent[-1] and sum(recent) >= params.needed


def _took_over(productions: Sequence[str | None]) -> int:
    """Position of the ledger's line that brought the last version into production."""
    same = list(takewhile(lambda one: one == productions[-1], reversed(productions)))
    return len(productions) - len(same)


def _discrimination(known: Sequence[Performance], params: RetrainingParams) -> list[str]:
    if not known:
        return []
    latest = known[-1]
    fell = f"AUROC changed by {latest.auroc_change} from when the model was approved"
    if latest.severe_discrimination:
        return [f"{fell}, beyond doubt in a single batch."]
    if repeated([found.discrimination for found in known], params):
        return [f"{fell}, in {_times([found.discrimination for found in known], params)}."]
    return []


def _calibration(known: Sequence[Performance], params: RetrainingParams) -> list[str]:
    if not known:
        return []
    latest, findings = known[-1], [found.calibration for found in known]
    off = f"Readmissions observed over expected are {latest.current.observed_expected}"
    if latest.current.calibration_slope is not None:
        off += f", calibration slope {latest.current.calibration_slope}"
    if latest.severe_calibration:
        return [f"{off}, beyond doubt in a single batch."]
    return [f"{off}, off in {_times(findings, params)}."] if repeated(findings, params) else []


def _supply(stock: Stock, params: RetrainingParams) -> list[str]:
    found = []
    if stock.new_rows >= params.growth * stock.trained_rows:
        found.append(
            f"{stock.new_rows} encounters matured since production was trained on {stock.trained_rows}; "
            f"{params.growth:.1%} more are worth one."
        )
    if stock.batches >= params.max_age:
        found.append(f"{stock.batches} batches matured since production was trained; {params.max_age} is the limit.")
    return found


def _inputs(moved: Sequence[Moved], params: RetrainingParams) -> list[str]:
    findings = [one.importance_drifted >= params.min_importance and one.scores_drifted for one in moved]
    if not repeated(findings, params):
        return []
    share = moved[-1].importance_drifted
    return [f"Clinical fields with {share:.0%} of the model's reliance drifted and scores with them, repeatedly."]


def _waiting(stock: Stock) -> str:
    """Why the gate could not decide about a remedy; "" where it could."""
    if stock.fresh_rows >= stock.needed_rows and stock.fresh_outcomes >= stock.needed_outcomes:
        return ""
    reason = too_few(stock.fresh_rows, stock.fresh_outcomes, stock.needed_rows, stock.needed_outcomes)
    return " ".join([reason, *_unknown(stock)])


def _unknown(stock: Stock) -> list[str]:
    """Sentences on encounters that are unusable, as follow-up changed outcomes and left none to compare with."""
    if not stock.unknown_rows:
        return []
    return [
        f"{stock.unknown_rows} matured encounters say nothing: too few of the flagged among them had no follow-up to "
        "know what would have become of the others (docs/monitoring.md#follow-up)."
    ]


def _quiet(moved: Sequence[Moved]) -> list[str]:
    if not moved:
        return ["No batch has been monitored under this model yet."]
    latest = moved[-1]
    found = ["No finding on outcomes that calls for action."]
    if latest.importance_drifted > 0:
        found.append(
            f"Clinical fields with {latest.importance_drifted:.0%} of the model's reliance drifted, "
            "not enough for a retraining."
        )
    if latest.administrative_drifted > 0:
        found.append("Administrative fields drifted, which is no reason to retrain.")
    return found


def _times(findings: Sequence[bool], params: RetrainingParams) -> str:
    recent = findings[-params.window :]
    return f"{sum(recent)} of the last {len(recent)} batches"
