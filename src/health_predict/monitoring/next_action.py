"""The loop's next action and its reason, as a pure function of the loop's state.

A replay, an orchestrator and a person at the command line call the same function, so they do the same in the same
order: matured outcomes are judged first, of batches and of the service's answers; then each batch, oldest first, is
compared with the reference, a decision is made and carried out as far as the gate allows, and the batch is scored by
the version in production.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from health_predict.monitoring.retraining import Action

Kind = Literal[
    "judge", "judge answers", "monitor", "decide", "assemble", "train", "recalibrate", "evaluate", "promote", "score"
]
FIRST = 0  # batch number of the first model, which is trained on the initial data before any batch has arrived


@dataclass(frozen=True)
class BatchRecord:
    """Progress of the loop with one batch, or how the batch ended.

    `refused`: the batch did not fit the schema, and nothing more happens to it. `waits`: the batch has too few
    encounters to be monitored; a later batch's report covers it. `action` was decided under `version`; None: not yet.
    A remedy gets a data set by name, then a run, is evaluated, and ends with the version that was `promoted` or with
    `objections`. `answered_meanwhile`: requests answered, all with success, while a service loaded the version.
    """

    batch: int
    refused: bool = False
    monitored: bool = False
    waits: bool = False
    action: Action | None = None
    version: str | None = None
    dataset: str | None = None
    run_id: str | None = None
    evaluated: bool = False
    promoted: str | None = None
    objections: tuple[str, ...] = ()
    answered_meanwhile: int | None = None
    scored: bool = False

    @property
    def has_ended(self) -> bool:
        return self.refused or self.scored

    @property
    def is_to_be_promoted(self) -> bool:
        return self.evaluated and not (self.promoted or self.objections)


@dataclass(frozen=True)
class LoopState:
    """State of the loop. `unjudged` are batches that were scored and have matured since, `early` those whose outcomes
    have matured and that were not scored yet; `open` are the records of batches that have arrived and have not ended,
    oldest first; `first` is the record of the first model, used while
    nothing is in production, or until its promotion is noted.

    `unjudged_answers`: number of the service's answers with known outcomes if not all were judged on these, else 0;
    `judged_answers`: number of answers in the last judgement. `hint` is a sentence on what else could be due, and what
    it lacks."""

    production: str | None
    unjudged: Sequence[int]
    open: Sequence[BatchRecord]
    first: BatchRecord
    unjudged_answers: int = 0
    judged_answers: int = 0
    hint: str = ""
    early: Sequence[int] = ()


@dataclass(frozen=True)
class Due:
    """The action that is due, its batch and its reason. `action` is None where nothing is due."""

    action: Kind | None
    batch: int | None
    reason: str


def first_model(dataset: str) -> BatchRecord:
    """The record of the first model at its beginning: a retraining on the data set `dataset`."""
    return BatchRecord(FIRST, monitored=True, action="retrain", dataset=dataset)


def next_action(state: LoopState) -> Due:
    """The action that is due next.

    >>> next_action(LoopState("1", (), [BatchRecord(3)], first_model("initial")))
    Due(action='monitor', batch=3, reason='Batch 3 has arrived and was not compared with what production learnt from.')
    >>> next_action(LoopState("1", (), [], first_model("initial"))).action is None
    True
    """
    if state.production is None:
        return _first(state.first)
    if state.first.is_to_be_promoted:  # its promotion may have been interrupted
        return _remedy(state.first)
    if state.unjudged:
        several = len(state.unjudged) > 1
        numbers = ", ".join(map(str, state.unjudged))
        reason = f"Outcomes of batch{'es' * several} {numbers} have matured and were not judged."
        return Due("judge", state.unjudged[0], reason)
    if state.unjudged_answers:
        before = f"; the last judgement was on {state.judged_answers:,}" if state.judged_answers else ""
        reason = f"Outcomes of {state.unjudged_answers:,} answers of the service are known and were not judged{before}."
        return Due("judge answers", None, reason)
    for record in state.open:
        if not record.has_ended:
            return _of_batch(record)
    nothing = "Nothing is due: every batch that has arrived was scored, all matured outcomes were judged."
    return Due(None, None, f"{nothing} {state.hint}".rstrip())


def _first(record: BatchRecord) -> Due:
    if record.objections:
        return Due(
            None,
            None,
            f"Nothing is in production, and the gate declined the first model, run {record.run_id}: "
            f"{' '.join(record.objections)} Train others (`health-predict train`), evaluate and promote one.",
        )
    due = _remedy(record)
    return Due(due.action, FIRST, f"Nothing is in production yet. {due.reason}")


def _of_batch(record: BatchRecord) -> Due:
    number = record.batch
    if not record.waits:
        if not record.monitored:
            reason = f"Batch {number} has arrived and was not compared with what production learnt from."
            return Due("monitor", number, reason)
        if record.action is None:
            return Due("decide", number, f"Batch {number} was monitored; whether to act on it is not decided.")
        if record.action != "none" and not (record.promoted or record.objections):
            return _remedy(record)
    return Due("score", number, f"Batch {number} is to be scored by what is in production now.")


def _remedy(record: BatchRecord) -> Due:
    number = record.batch
    if record.run_id is None:
        if record.action == "recalibrate":
            return Due("recalibrate", number, f"After batch {number}, production is to be recalibrated.")
        if record.dataset is None:
            return Due("assemble", number, f"After batch {number}, a retraining needs the outcomes that have matured.")
        return Due("train", number, f"A model is to be trained on {record.dataset}.")
    if not record.evaluated:
        return Due("evaluate", number, f"Run {record.run_id} was not compared with production on unseen encounters.")
    return Due("promote", number, f"Run {record.run_id} was evaluated; the gate is to decide on it.")
