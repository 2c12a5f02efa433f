"""How good were the answers that the service gave: by the version that gave them, and by day."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from health_predict.errors import DataError
from health_predict.evaluation.metrics import Metrics, evaluate
from health_predict.params import BootstrapParams

ANSWERS: Mapping[str, pl.DataType] = {
    "version": pl.String(),
    "day": pl.String(),  # of the answer, UTC, as 2026-01-31
    "probability": pl.Float64(),
    "readmitted": pl.Boolean(),  # within 30 days
    "patient": pl.Int64(),  # any number that stands for one patient
}


@dataclass(frozen=True)
class Day:
    """Answers of a day whose outcomes are known; `expected` readmissions are the sum of the probabilities."""

    day: str
    rows: int
    outcomes: int
    expected: float


@dataclass(frozen=True)
class Answered:
    """The answers of one version whose outcomes are known. `unjudged` says why there are no metrics: too few, or all
    outcomes alike."""

    version: str
    rows: int
    metrics: Metrics | None
    unjudged: str | None
    days: tuple[Day, ...]


def judge_answers(answers: pl.DataFrame, thresholds: Mapping[str, float], params: BootstrapParams) -> list[Answered]:
    """Judge answers (ANSWERS, one for each encounter), by the version that gave them, in the order of their names.

    `thresholds` are the probabilities from which each version flags. Intervals resample patients, as in the replay's
    judgements (`metrics.evaluate`).
    """
    groups = answers.sort("version", "day", maintain_order=True).partition_by("version", maintain_order=True)
    return [_judged(group, thresholds[group["version"][0]], params) for group in groups]


def _judged(answers: pl.DataFrame, threshold: float, params: BootstrapParams) -> Answered:
    days = answers.group_by("day", maintain_order=True).agg(
        rows=pl.len(), outcomes=pl.col("readmitted").sum(), expected=pl.col("probability").sum()
    )
    y_true, y_proba, patients = (answers[name].to_numpy() for name in ("readmitted", "probability", "patient"))
    found: Metrics | None = None
    unjudged: str | None = None
    try:
        found = evaluate(y_true, y_proba, patients, threshold, params)
    except DataError as error:
        unjudged = str(error)
    by_day = tuple(Day(**row) for row in days.iter_rows(named=True))
    return Answered(answers["version"][0], answers.height, found, unjudged, by_day)
