"""When to retrain: evidence over recent batches in, a decision with its reasons out.

What happened to patients outranks what the data looks like. A fall in realised AUROC retrains; risks that are only
too high or too low are recalibrated, which is cheap, and retrained if that did not help; enough new data or age
retrains, as more data is what improves this model most; drift of the inputs retrains only where the model leans on
them and its scores moved too. Administrative drift is reported and never retrains.

One bad batch is a coincidence more often than not, so a finding has to be there in `needed` of the last `window`
batches, the newest among them, unless it is severe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from health_predict.monitoring.performance import Performance
from health_predict.params import RetrainingParams

Action = Literal["none", "recalibrate", "retrain"]


@dataclass(frozen=True)
class Evidence:
    """What was found on one batch that the present champion scored.

    `performance` is None until the batch's outcomes have matured. Importances are shares of the model's reliance on
    the fields that drifted (`Drift`).
    """

    batch: int
    importance_drifted: float
    administrative_drifted: float
    scores_drifted: bool
    performance: Performance | None = None


@dataclass(frozen=True)
class Stock:
    """What there is to learn from: rows trained on, and what matured since the last training, promoted or not.

    `batches` have matured since then. `recalibrated`: was the champion's calibration renewed since it was trained.
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


def decide(evidence: Sequence[Evidence], stock: Stock, params: RetrainingParams) -> Decision:
    """Decide from the batches since the present champion took over, oldest first; earlier ones do not count."""
    retrain = [*_discrimination(evidence, params), *_supply(stock, params), *_inputs(evidence, params)]
    calibration = _calibration(evidence, params)
    if calibration and stock.recalibrated:
        retrain += [f"{sentence} The model was recalibrated already." for sentence in calibration]
    if retrain and not (waiting := _waiting(stock, params)):
        return Decision("retrain", tuple(retrain))
    if calibration and not stock.recalibrated:
        return Decision("recalibrate", tuple(calibration))
    if retrain:
        return Decision("none", (*retrain, waiting))
    return Decision("none", tuple(_quiet(evidence)))


def repeated(findings: Sequence[bool], params: RetrainingParams) -> bool:
    """Is a finding there in the newest batch and in `needed` of the last `window`."""
    recent = findings[-params.window :]
    return bool(recent) and recent[-1] and sum(recent) >= params.needed


def _discrimination(evidence: Sequence[Evidence], params: RetrainingParams) -> list[str]:
    known = _matured(evidence)
    if not known:
        return []
    latest = known[-1]
    fell = f"AUROC changed by {latest.auroc_change} from when the model was approved"
    if latest.severe_discrimination:
        return [f"{fell}, beyond doubt in a single batch."]
    if repeated([found.discrimination for found in known], params):
        return [f"{fell}, in {_times([found.discrimination for found in known], params)}."]
    return []


def _calibration(evidence: Sequence[Evidence], params: RetrainingParams) -> list[str]:
    known = _matured(evidence)
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
            f"{params.growth:.0%} more are worth one."
        )
    if stock.batches >= params.max_age:
        found.append(f"{stock.batches} batches matured since the last training; {params.max_age} is the limit.")
    return found


def _inputs(evidence: Sequence[Evidence], params: RetrainingParams) -> list[str]:
    findings = [one.importance_drifted >= params.min_importance and one.scores_drifted for one in evidence]
    if not repeated(findings, params):
        return []
    share = evidence[-1].importance_drifted
    return [f"Clinical fields with {share:.0%} of the model's reliance drifted and scores with them, repeatedly."]


def _waiting(stock: Stock, params: RetrainingParams) -> str:
    """Why a training would have too little to learn from; empty where it has enough."""
    if stock.new_rows >= params.min_new_rows and stock.new_outcomes >= params.min_new_outcomes:
        return ""
    return (
        f"Only {stock.new_rows} encounters with {stock.new_outcomes} readmissions matured since the last training; "
        f"{params.min_new_rows} and {params.min_new_outcomes} are needed."
    )


def _quiet(evidence: Sequence[Evidence]) -> list[str]:
    if not evidence:
        return ["No batch has been monitored under this model yet."]
    latest = evidence[-1]
    found = ["No finding on outcomes that calls for action."]
    if latest.importance_drifted > 0:
        found.append(
            f"Clinical fields with {latest.importance_drifted:.0%} of the model's reliance drifted, "
            "not enough for a retraining."
        )
    if latest.administrative_drifted > 0:
        found.append("Administrative fields drifted, which is no reason to retrain.")
    return found


def _matured(evidence: Sequence[Evidence]) -> list[Performance]:
    return [one.performance for one in evidence if one.performance is not None]


def _times(findings: Sequence[bool], params: RetrainingParams) -> str:
    recent = findings[-params.window :]
    return f"{sum(recent)} of the last {len(recent)} batches"
