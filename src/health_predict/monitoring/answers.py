"""Judges the service's answers on known outcomes, by the version that gave them, and by day."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from health_predict.data.follow_up import FollowUp, is_known, represent
from health_predict.errors import DataError
from health_predict.evaluation.metrics import Metrics, evaluate
from health_predict.monitoring.follow_up import Effect, effect_of
from health_predict.params import BootstrapParams, FollowUpParams

ANSWERS: Mapping[str, pl.DataType] = {
    "version": pl.String(),
    "day": pl.String(),  # day of the answer, UTC, as 2026-01-31
    "probability": pl.Float64(),
    "readmitted": pl.Boolean(),  # within 30 days
    "patient": pl.Int64(),  # number of the patient: any, the same in all answers
    "followed_up": pl.Boolean(),  # because of the answer; null: not stated
}


@dataclass(frozen=True)
class Day:
    """One day's answers with known outcomes; `expected` readmissions are the sum of the probabilities."""

    day: str
    rows: int
    outcomes: int
    expected: float


@dataclass(frozen=True)
class Answered:
    """The answers of one version with known outcomes.

    `unjudged` is the reason for missing metrics: too few answers, all outcomes alike, or follow-up of unknown effect.
    Where `follow_up` has an estimated effect, the metrics are about outcomes without follow-up, and `days` count the
    observed outcomes.
    """

    version: str
    rows: int
    metrics: Metrics | None
    unjudged: str | None
    days: tuple[Day, ...]
    follow_up: Effect | None = None


def judge_answers(
    answers: pl.DataFrame, thresholds: Mapping[str, float], follow_up: FollowUpParams, bootstrap: BootstrapParams
) -> list[Answered]:
    """Judge answers (ANSWERS, one for each encounter), by the version that gave them, in the order of their names.

    `thresholds` are the probabilities from which each version flags. Intervals resample patients, as in the replay's
    judgements (`metrics.evaluate`).
    """
    groups = answers.sort("version", "day", maintain_order=True).partition_by("version", maintain_order=True)
    return [_judged(group, thresholds[group["version"][0]], follow_up, bootstrap) for group in groups]


def _judged(answers: pl.DataFrame, threshold: float, follow_up: FollowUpParams, bootstrap: BootstrapParams) -> Answered:
    days = answers.group_by("day", maintain_order=True).agg(
        rows=pl.len(), outcomes=pl.col("readmitted").sum(), expected=pl.col("probability").sum()
    )
    y_true, y_proba, patients = (answers[name].to_numpy() for name in ("readmitted", "probability", "patient"))
    found, unjudged, represents, effect = None, None, None, None
    if is_known(answers["followed_up"], follow_up):
        care = FollowUp.of(y_proba, threshold, answers["followed_up"])
        representation = represent(y_true, care, follow_up)
        represents, unjudged = representation.weights, representation.unknown
        effect = effect_of(y_true, care, patients, follow_up, bootstrap)
    if unjudged is None:
        try:
            found = evaluate(y_true, y_proba, patients, threshold, bootstrap, represents)
        except DataError as error:
            unjudged = str(error)
    by_day = tuple(Day(**row) for row in days.iter_rows(named=True))
    return Answered(answers["version"][0], answers.height, found, unjudged, by_day, effect)
