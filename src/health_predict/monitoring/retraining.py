"""When to retrain: evidence over recent batches in, a decision with its reasons out.

What happened to patients outranks what the data looks like. A fall in realised AUROC retrains; enough new data or age
retrains, as more data is what improves this model most; drift of the inputs retrains only where the model leans on
them and its scores moved too. Risks that are only too high, too low or too wide apart are recalibrated, which is cheap,
and retrained where a recalibration was tried already. Administrative drift is reported and never retrains.

One bad batch is a coincidence more often than not, so a finding has to be there in `needed` of the last `window`
batches, the newest among them, unless it is severe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from health_predict.monitoring.performance import Performance
from health_predict.params import RetrainingParams

Action = Literal["none", "recalibrate", "retrain"]


@dataclass(frozen=True)
class Moved:
    """How far one batch is from what its champion was trained on.

    Importances are shares of the model's reliance on the fields that drifted (`Drift`).
    """

    importance_drifted: float
    administrative_drifted: float
    scores_drifted: bool


@dataclass(frozen=True)
class Finding:
    """One batch judged under a version when it arrived, or what became of one that the version scored."""

    version: str
    found: Moved | Performance


@dataclass(frozen=True)
class Evidence:
    """What was found since the present champion took over, oldest first.

    `moved` are batches judged under it, `realised` those that it scored and whose outcomes have matured. `ranked` goes
    back further, over versions with the same model and another calibration, which AUROC does not depend on.
    """

    moved: tuple[Moved, ...] = ()
    realised: tuple[Performance, ...] = ()
    ranked: tuple[Performance, ...] = ()


@dataclass(frozen=True)
class Stock:
    """What there is to learn from: rows trained on, and what matured since the last training, promoted or not.

    `batches` have matured since then. `recalibrated`: was a recalibration tried since then, promoted or not.
    """

    trained_rows: int
    new_rows: int
    new_outcomes: int
    batches: int
    recalibrated: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do and why; for "none", why not."""

    action: Action
    reasons: tuple[str, ...]


def gather(findings: Sequence[Finding], version: str, models: Mapping[str, str]) -> Evidence:
    """What counts as evidence about a version, of all findings in the order in which they were made.

    `models` names the model of each version; recalibrated ones share it. Once another version took over, what was found
    before is past, even where a rollback brought the version back.
    """
    own = [one.found for one in _latest(findings, lambda one: one.version == version)]
    same_model = [one.found for one in _latest(findings, lambda one: models[one.version] == models[version])]
    return Evidence(
        moved=tuple(found for found in own if isinstance(found, Moved)),
        realised=tuple(found for found in own if isinstance(found, Performance)),
        ranked=tuple(found for found in same_model if isinstance(found, Performance)),
    )


def decide(evidence: Evidence, stock: Stock, params: RetrainingParams) -> Decision:
    """Decide from what was found about the present champion; a retraining outranks a recalibration."""
    retrain = [*_discrimination(evidence.ranked, params), *_supply(stock, params), *_inputs(evidence.moved, params)]
    calibration = _calibration(evidence.realised, params)
    if calibration and stock.recalibrated:
        retrain += [f"{sentence} A recalibration was tried already." for sentence in calibration]
    found = tuple(retrain or calibration)
    if not found:
        return Decision("none", tuple(_quiet(evidence.moved)))
    if waiting := _waiting(stock, params):
        return Decision("none", (*found, waiting))
    return Decision("retrain" if retrain else "recalibrate", found)


def repeated(findings: Sequence[bool], params: RetrainingParams) -> bool:
    """Is a finding there in the newest batch and in `needed` of the last `window`."""
    recent = findings[-params.window :]
    return bool(recent) and recent[-1] and sum(recent) >= params.needed


def _latest(findings: Sequence[Finding], same: Callable[[Finding], bool]) -> list[Finding]:
    return list(takewhile(same, reversed(findings)))[::-1]


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
            f"{stock.new_rows} encounters matured since the last training on {stock.trained_rows}; "
            f"{params.growth:.1%} more are worth one."
        )
    if stock.batches >= params.max_age:
        found.append(f"{stock.batches} batches matured since the last training; {params.max_age} is the limit.")
    return found


def _inputs(moved: Sequence[Moved], params: RetrainingParams) -> list[str]:
    findings = [one.importance_drifted >= params.min_importance and one.scores_drifted for one in moved]
    if not repeated(findings, params):
        return []
    share = moved[-1].importance_drifted
    return [f"Clinical fields with {share:.0%} of the model's reliance drifted and scores with them, repeatedly."]


def _waiting(stock: Stock, params: RetrainingParams) -> str:
    """Why a remedy would have too little to learn from, or the gate to judge it on; empty where there is enough."""
    if stock.new_rows >= params.min_new_rows and stock.new_outcomes >= params.min_new_outcomes:
        return ""
    return (
        f"Only {stock.new_rows} encounters with {stock.new_outcomes} readmissions matured since the last training; "
        f"{params.min_new_rows} and {params.min_new_outcomes} are needed."
    )


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
