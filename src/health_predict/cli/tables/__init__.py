"""Renders the reports of steps as text and tables for the terminal, one module for each group of commands."""

from health_predict.cli.tables.data import encounters_taken_in, fetched, outcomes_taken_in, split, validated
from health_predict.cli.tables.loop import (
    answers_judged,
    assembled,
    batch_scored,
    decided,
    done,
    due,
    judged,
    monitored,
    recalibrated,
    replayed,
)
from health_predict.cli.tables.model import (
    adopted,
    decisions,
    evaluated,
    gate,
    models,
    promoted,
    rolled_back,
    scores,
    status,
    studied,
    trained,
)
from health_predict.cli.tables.parts import INVENTED
from health_predict.cli.tables.scoring import scored, verified

__all__ = [
    "INVENTED",
    "adopted",
    "answers_judged",
    "assembled",
    "batch_scored",
    "decided",
    "decisions",
    "done",
    "due",
    "encounters_taken_in",
    "evaluated",
    "fetched",
    "gate",
    "judged",
    "models",
    "monitored",
    "outcomes_taken_in",
    "promoted",
    "recalibrated",
    "replayed",
    "rolled_back",
    "scored",
    "scores",
    "split",
    "status",
    "studied",
    "trained",
    "validated",
    "verified",
]
