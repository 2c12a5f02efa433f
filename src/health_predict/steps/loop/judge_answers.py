"""`health-predict loop answers`: what the service answered, judged on the outcomes that are known since."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from health_predict.data.cohort import outcome
from health_predict.data.schema import EXCLUDED_DISPOSITIONS
from health_predict.monitoring.answers import ANSWERS, Answered, judge_answers
from health_predict.params import BootstrapParams
from health_predict.store.bundles import has_kept, kept_manifest
from health_predict.store.holdouts import seen
from health_predict.store.intake import newest_statements, read_intake
from health_predict.store.prediction_log import ScoredEncounter, pseudonym, read_predictions
from health_predict.store.storage import Storage

_OF_LOG = ("version", "bundle", "day", "probability", "patient")


@dataclass(frozen=True)
class AnswersJudged:
    """`logged` answers, of which `left_out` are about encounters that ended in death or a hospice, `anonymous` came
    without an encounter_id, `superseded` were given before another to the same encounter, and `waiting` have no known
    outcome yet. `seen` are of encounters that the version was trained
    on, `untraceable` of a bundle that the store does not keep; neither says anything. The others are in `versions`."""

    logged: int
    left_out: int
    anonymous: int
    superseded: int
    waiting: int
    seen: int
    untraceable: int
    versions: tuple[Answered, ...]


def judge_logged_answers(storage: Storage, log: Storage, key: bytes, params: BootstrapParams) -> AnswersJudged:
    """Judge the answers in a prediction log whose outcomes were taken in, by version and by day. Writes nothing.

    The last answer to an encounter counts. `key` is the secret that the log was written with. Raises DataError where
    the log cannot be read, StorageError where it or the store cannot be reached, or what a version has seen is lost.
    """
    logged, left_out, anonymous, superseded, answers = _answers(read_predictions(log))
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
        left_out=left_out,
        anonymous=anonymous,
        superseded=superseded,
        waiting=answers.height - joined.height,
        seen=seen_rows,
        untraceable=joined.height - traced.height - seen_rows,
        versions=tuple(judge_answers(traced.select(*ANSWERS), thresholds, params)),
    )


def _answers(logged: Iterable[ScoredEncounter]) -> tuple[int, int, int, int, pl.DataFrame]:
    """Counts of lines: all, and those left out, anonymous and superseded; and the last answers of the cohort."""
    count = anonymous = 0
    last: dict[str, ScoredEncounter] = {}
    for one in logged:
        count += 1
        if one.encounter_pseudonym is None:
            anonymous += 1
        elif one.encounter_pseudonym not in last or last[one.encounter_pseudonym].time <= one.time:
            last[one.encounter_pseudonym] = one
    rows = [
        (name, one.model_version, one.bundle_sha256, one.time[:10], one.probability, one.patient or name)
        for name, one in last.items()
        if one.encounter.get("discharge_disposition_id") not in EXCLUDED_DISPOSITIONS
    ]
    types = {name: pl.Float64 if name == "probability" else pl.String for name in ("encounter", *_OF_LOG)}
    table = pl.DataFrame(rows, schema=types, orient="row").with_columns(pl.col("patient").rank("dense").cast(pl.Int64))
    return count, len(last) - len(rows), anonymous, count - anonymous - len(last), table


def _unseen(storage: Storage, joined: pl.DataFrame) -> tuple[pl.DataFrame, int, dict[str, float]]:
    """Answers to encounters that the version that gave them had not seen; how many it had; thresholds by version."""
    kept, seen_rows, thresholds = [joined.clear()], 0, dict[str, float]()
    for group in joined.partition_by("bundle", maintain_order=True):
        if not has_kept(storage, group["bundle"][0]):
            continue  # counted as untraceable
        manifest = kept_manifest(storage, group["bundle"][0])
        unseen = group.filter(~pl.col("encounter_id").is_in(seen(storage, [manifest]).implode()))
        seen_rows += group.height - unseen.height
        kept.append(unseen)
        thresholds |= dict.fromkeys(group["version"].unique(), manifest.threshold)
    return pl.concat(kept), seen_rows, thresholds
