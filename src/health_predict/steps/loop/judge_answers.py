"""Judges the service's answers on outcomes known since, for `loop answers` and `loop run`."""

from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from health_predict.monitoring.answers import ANSWERS, Answered, judge_answers
from health_predict.params import Params
from health_predict.store import layout
from health_predict.store.answered import LoggedAnswers, read_answers, sources
from health_predict.store.bundles import has_kept, kept_manifest
from health_predict.store.holdouts import seen
from health_predict.store.intake import read_intake
from health_predict.store.manifests import finished, publish
from health_predict.store.storage import Storage
from health_predict.store.tables import json_bytes


@dataclass(frozen=True)
class AnswersJudged:
    """Counts of `logged` answers: `left_out` are about encounters that ended in death or a hospice, `anonymous` have no
    encounter_id, `superseded` have a later answer to the same encounter, and `waiting` have no outcome that counts yet.
    `seen` are about encounters that the version was trained on, `untraceable` from a bundle that the store does not
    keep; neither is judged. The others are in `versions`."""

    logged: int
    left_out: int
    anonymous: int
    superseded: int
    waiting: int
    seen: int
    untraceable: int
    versions: tuple[Answered, ...]


def judge_logged_answers(storage: Storage, log: Storage, key: bytes, params: Params) -> AnswersJudged:
    """Judge the answers in a prediction log whose outcomes count, by version and by day. Writes nothing.

    The last answer to an encounter counts. `key` is the secret that the log was written with. Raises DataError where
    the log is unreadable, StorageError where the log or the store cannot be reached, or a training table is lost.
    """
    return _judged(storage, read_answers(storage, log, key, params.intake), params)


def record_answers(storage: Storage, log: Storage, key: bytes, params: Params) -> AnswersJudged | None:
    """As `judge_logged_answers`; writes the judgement to `reports/answers/`, once for the same answers and outcomes.

    None where the same answers were judged on the same outcomes before. Earlier judgements stay.
    """
    # Read first, so that answers logged meanwhile are judged the next time.
    read_from = sources(read_intake(storage), log, params.intake)
    answers = read_answers(storage, log, key, params.intake)
    inputs = {"answers": answers.digest}
    judged = None if finished(storage, layout.ANSWERS_MANIFEST, inputs) else _judged(storage, answers, params)
    report = layout.answers_report(answers.digest)
    content = storage.read(report) if judged is None else json_bytes(msgspec.to_builtins(judged))
    result: dict[str, Any] = {"known": answers.known.height, "sources": read_from}
    publish(storage, layout.ANSWERS_MANIFEST, inputs=inputs, files={report: content}, result=result)
    return judged


def _judged(storage: Storage, answers: LoggedAnswers, params: Params) -> AnswersJudged:
    traced, seen_rows, thresholds = _unseen(storage, answers.known)
    return AnswersJudged(
        logged=answers.logged,
        left_out=answers.left_out,
        anonymous=answers.anonymous,
        superseded=answers.superseded,
        waiting=answers.waiting,
        seen=seen_rows,
        untraceable=answers.known.height - traced.height - seen_rows,
        versions=tuple(judge_answers(traced.select(*ANSWERS), thresholds, params.follow_up, params.bootstrap)),
    )


def _unseen(storage: Storage, known: pl.DataFrame) -> tuple[pl.DataFrame, int, dict[str, float]]:
    """Answers to encounters unseen by the answering version; number of the other answers; thresholds by version."""
    kept, seen_rows, thresholds = [known.clear()], 0, dict[str, float]()
    for group in known.partition_by("bundle", maintain_order=True):
        if not has_kept(storage, group["bundle"][0]):
            continue  # counted as untraceable
        manifest = kept_manifest(storage, group["bundle"][0])
        unseen = group.filter(~pl.col("encounter_id").is_in(seen(storage, [manifest]).implode()))
        seen_rows += group.height - unseen.height
        kept.append(unseen)
        thresholds |= dict.fromkeys(group["version"].unique(), manifest.threshold)
    return pl.concat(kept), seen_rows, thresholds
