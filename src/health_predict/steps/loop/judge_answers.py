"""`health-predict loop answers`: what the service answered, judged on the outcomes that are known since."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from health_predict.data.cohort import outcome
from health_predict.errors import BundleError, StorageError
from health_predict.monitoring.answers import ANSWERS, Answered, judge_answers
from health_predict.params import BootstrapParams
from health_predict.store.bundles import kept_manifest
from health_predict.store.holdouts import seen
from health_predict.store.intake import newest_statements, read_intake
from health_predict.store.prediction_log import ScoredEncounter, pseudonym, read_predictions
from health_predict.store.storage import Storage

_OF_LOG = ("version", "bundle", "day", "probability", "patient")


@dataclass(frozen=True)
class AnswersJudged:
    """`logged` answers, of which `anonymous` came without an encounter_id, `superseded` were given before another to
    the same encounter, and `waiting` have no known outcome yet. `seen` are of encounters that the version was trained
    on, `untraceable` of a bundle that the store does not keep; neither says anything. The others are in `versions`."""

    logged: int
    anonymous: int
    superseded: int
    waiting: int
    seen: int
    untraceable: int
    versions: tuple[Answered, ...]


def judge_logged_answers(storage: Storage, log: Storage, key: bytes, params: BootstrapParams) -> AnswersJudged:
    """Judge the answers in a prediction log whose outcomes were taken in, by version and by day. Writes nothing.

    The last answer to an encounter counts. `key` is the secret that the log was written with. Raises DataError where
    the log cannot be read, StorageError where it or the store cannot be reached.
    """
    logged, anonymous, answers = _answers(read_predictions(log), key)
    known = newest_statements(storage, read_intake(storage))
    outcomes = pl.DataFrame(
        {
            "encounter": [pseudonym(number, key) for number in known["encounter_id"]],
            "encounter_id": known["encounter_id"],
            "readmitted": outcome(known),
        },
        schema_overrides={"encounter": pl.String, "readmitted": pl.Boolean},
    )
    joined = answers.join(outcomes, on="encounter", how="inner", maintain_order="left")
    traced, seen_rows, thresholds = _unseen(storage, joined)
    return AnswersJudged(
        logged=logged,
        anonymous=anonymous,
        superseded=logged - anonymous - answers.height,
        waiting=answers.height - joined.height,
        seen=seen_rows,
        untraceable=joined.height - traced.height - seen_rows,
        versions=tuple(judge_answers(traced.select(*ANSWERS), thresholds, params)),
    )


def _answers(logged: Iterable[ScoredEncounter], key: bytes) -> tuple[int, int, pl.DataFrame]:
    """How many lines there are, how many of them without an encounter, and the last answer to each encounter."""
    count = anonymous = 0
    last: dict[str, tuple[str, ScoredEncounter]] = {}
    for one in logged:
        count += 1
        if one.encounter_pseudonym is None:
            anonymous += 1
        elif one.encounter_pseudonym not in last or last[one.encounter_pseudonym][0] <= one.time:
            last[one.encounter_pseudonym] = (one.time, one)
    rows = [
        (name, one.model_version, one.bundle_sha256, one.time[:10], one.probability, one.patient or name)
        for name, (_, one) in last.items()
    ]
    types = {name: pl.Float64 if name == "probability" else pl.String for name in ("encounter", *_OF_LOG)}
    table = pl.DataFrame(rows, schema=types, orient="row")
    return count, anonymous, table.with_columns(pl.col("patient").rank("dense").cast(pl.Int64))


def _unseen(storage: Storage, joined: pl.DataFrame) -> tuple[pl.DataFrame, int, dict[str, float]]:
    """Answers to encounters that the version that gave them had not seen; how many it had; thresholds by version."""
    kept, seen_rows, thresholds = [joined.clear()], 0, dict[str, float]()
    for group in joined.partition_by("bundle", maintain_order=True):
        try:
            manifest = kept_manifest(storage, group["bundle"][0])
            learnt = seen(storage, [manifest])
        except (StorageError, BundleError):
            continue  # counted as untraceable
        unseen = group.filter(~pl.col("encounter_id").is_in(learnt.implode()))
        seen_rows += group.height - unseen.height
        kept.append(unseen)
        thresholds |= dict.fromkeys(group["version"].unique(), manifest.threshold)
    return pl.concat(kept), seen_rows, thresholds
