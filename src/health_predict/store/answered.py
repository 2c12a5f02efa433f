"""Answers of the service in its prediction log, and what became of the encounters that it answered about."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import polars as pl

from health_predict.data.cohort import outcome
from health_predict.data.maturity import AS_OF, counts
from health_predict.data.schema import DISCHARGED_ON, EXCLUDED_DISPOSITIONS
from health_predict.params import IntakeParams
from health_predict.store import layout
from health_predict.store.intake import IntakeLog, newest_statements, read_discharges, read_intake
from health_predict.store.prediction_log import ScoredEncounter, pseudonym, read_predictions
from health_predict.store.received_follow_up import followed_up
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json

_OF_LOG = ("version", "bundle", "day", "probability", "patient")


@dataclass(frozen=True)
class AnswerLog:
    """The store that a prediction log is in, and the secret that it was written with; None: not known here."""

    storage: Storage
    key: bytes | None


@dataclass(frozen=True)
class LoggedAnswers:
    """Counts of the lines of a log, and the answers whose outcomes count.

    Of `logged` lines, `left_out` are about encounters that ended in death or a hospice, `anonymous` came without an
    encounter_id, `superseded` were given before another to the same encounter, and `waiting` have no outcome that
    counts. Each row of `known` is another: `encounter` (pseudonym), `version`, `bundle` (SHA-256), `day`,
    `probability`, `patient` (a number that stands for one), `encounter_id`, `readmitted` within 30 days, `followed_up`
    (null: it is not said).
    """

    logged: int
    left_out: int
    anonymous: int
    superseded: int
    waiting: int
    known: pl.DataFrame

    @property
    def digest(self) -> str:
        """SHA-256 of all that a judgement on the known answers depends on."""
        names = ("encounter", "version", "bundle", "day", "probability", "readmitted", "followed_up")
        return sha256(self.known.select(names).sort("encounter").write_csv().encode()).hexdigest()


@dataclass(frozen=True)
class UnjudgedAnswers:
    """How many answers have an outcome that counts and were not judged so (0: none, or all were), how many the last
    judgement was on, and what to do where that cannot be known."""

    known: int = 0
    judged: int = 0
    hint: str = ""


def read_answers(storage: Storage, log: Storage, key: bytes, params: IntakeParams) -> LoggedAnswers:
    """The answers in a prediction log, with the outcomes that were taken in since and count.

    The last answer to an encounter counts. An outcome counts by `data.maturity`; where an encounter did not arrive with
    a day of discharge, and the statement has a day, that of the answer stands for it. Raises DataError where the log
    cannot be read, StorageError where it or the store cannot be reached.
    """
    logged, left_out, anonymous, superseded, answers = _of_log(read_predictions(log))
    taken_in = read_intake(storage)
    said = newest_statements(storage, taken_in)
    outcomes = said.with_columns(
        pl.Series("encounter", [pseudonym(number, key) for number in said["encounter_id"]], pl.String)
    ).join(read_discharges(storage, taken_in), on="encounter_id", how="left")
    joined = answers.join(outcomes, on="encounter", how="inner", maintain_order="left")
    answered = pl.when(pl.col(AS_OF).is_not_null()).then(pl.col("day").str.to_date())
    dated = joined.with_columns(pl.coalesce(DISCHARGED_ON, answered).alias(DISCHARGED_ON))
    known = joined.filter(counts(dated, said[AS_OF].max(), params.reporting_lag))  # type: ignore[arg-type]
    became = pl.Series("readmitted", outcome(known), pl.Boolean)
    known = known.with_columns(became, followed_up(known)).drop(AS_OF, DISCHARGED_ON)
    return LoggedAnswers(logged, left_out, anonymous, superseded, answers.height - known.height, known)


def sources(taken_in: IntakeLog, log: Storage, params: IntakeParams) -> str:
    """SHA-256 of what the known answers are read from, without reading it: while it is the same, so are they."""
    tables = [table for one in taken_in.received for table in (one.discharges, one.table) if table]
    names = [*log.list(layout.ONLINE_PREDICTIONS), *tables, str(params.reporting_lag)]
    return sha256("\n".join(names).encode()).hexdigest()


def unjudged_answers(storage: Storage, log: AnswerLog, params: IntakeParams) -> UnjudgedAnswers:
    """What is to be judged of the answers in a log. Raises as `read_answers`."""
    taken_in = read_intake(storage)
    has_outcomes = any(one.kind == "outcomes" for one in taken_in.received)
    if not has_outcomes or not log.storage.list(layout.ONLINE_PREDICTIONS):
        return UnjudgedAnswers()
    if log.key is None:
        return UnjudgedAnswers(
            hint="Answers of the service are not judged: HEALTH_PREDICT_PREDICTION_LOG_KEY, the key that the service "
            "writes its log with, is not set here."
        )
    before = read_json(storage, layout.ANSWERS_MANIFEST) if storage.exists(layout.ANSWERS_MANIFEST) else None
    if before and before["result"]["sources"] == sources(taken_in, log.storage, params):
        return UnjudgedAnswers()
    found = read_answers(storage, log.storage, log.key, params)
    if before and before["inputs"]["answers"] == found.digest:
        return UnjudgedAnswers()
    return UnjudgedAnswers(found.known.height, before["result"]["known"] if before else 0)


def _of_log(logged: Iterable[ScoredEncounter]) -> tuple[int, int, int, int, pl.DataFrame]:
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
