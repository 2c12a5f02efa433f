"""`health-predict intake encounters`: a file of encounters becomes the next batch."""

from dataclasses import dataclass
from datetime import date
from hashlib import sha256

import polars as pl

from health_predict.data.cohort import select_cohort
from health_predict.data.hints import hint_of_missing
from health_predict.data.maturity import final_from
from health_predict.data.schema import DISCHARGED_ON
from health_predict.data.validation import InvalidValues
from health_predict.errors import DataError
from health_predict.params import IntakeParams
from health_predict.store import layout
from health_predict.store.batches import ARRIVAL, parquet
from health_predict.store.encounter_files import open_encounters
from health_predict.store.intake import (
    DISCHARGES,
    Clock,
    IntakeLog,
    Received,
    append_received,
    last_day,
    next_batch,
    settle,
    utc_now,
)
from health_predict.store.known_encounters import amended, index_encounters, known_encounters
from health_predict.store.places import shown
from health_predict.store.storage import Storage
from health_predict.store.tables import keep_table

PIECE = 65_536  # rows read at a time
NEEDED = ("encounter_id", "patient_nbr")
CONTRADICTS = "encounter_id is in an earlier row too, with other values"


@dataclass(frozen=True)
class EncountersTakenIn:
    """Counts of a file's rows; every row is accepted, known, left out or quarantined.

    `accepted` rows are the new `batch` (None: no row was accepted). `known` encounters had arrived before, or are
    repeated in the file with the same values. `left_out` encounters ended in death or a hospice. `quarantined` rows
    break a rule, or contradict an earlier row of the file about the same encounter; `findings` lists the reasons, and
    `quarantine` is the key of the file that holds the rows.

    `amended`: known encounters that came with other values, or another day of discharge, than at first; what came
    first stays, as it was scored, and is judged and trained on. `final_from` is the day from which the outcomes of all
    accepted encounters are final; None where the file has no day of discharge.
    """

    batch: int | None
    rows: int
    accepted: int
    known: int
    left_out: int
    quarantined: int
    findings: tuple[InvalidValues, ...]
    quarantine: str | None
    amended: int = 0
    final_from: date | None = None


def intake_encounters(
    storage: Storage,
    params: IntakeParams,
    who: str,
    source: str,
    endpoint: str | None = None,
    discharge_column: str = DISCHARGED_ON,
    clock: Clock = utc_now,
) -> EncountersTakenIn:
    """Take in the encounters of a CSV or Parquet file, local or s3://, of any period, as the next batch.

    The file is taken in as a whole or not at all. Taking it in twice changes nothing: its encounters are known. With a
    column of days of discharge, outcomes count from discharge + 30 days + reporting lag on (`data.maturity`). Raises
    StorageError when there is no such file; DataError when columns are missing or unknown (encounter_id and
    patient_nbr are required), or the share of quarantined rows is above the limit in `params`.
    """
    fitting, bad, findings = _sifted(source, endpoint, discharge_column, last_day(clock))
    rows = fitting.height + bad.height
    if bad.height > params.max_quarantined_share * rows:
        raise DataError(
            f"{bad.height} of the {rows} rows of {shown(source)} do not fit, more than "
            f"{params.max_quarantined_share:.1%} (IntakeParams.max_quarantined_share): "
            + "; ".join(f"{one.column} {one.reason} in {one.rows} rows" for one in findings)
            + hint_of_missing(bad)
        )
    distinct = fitting.unique("encounter_id", keep="first", maintain_order=True)
    quarantine = _set_aside(storage, bad)

    dated = DISCHARGED_ON in distinct.columns

    def make(log: IntakeLog) -> tuple[_New, Received | None]:
        known = known_encounters(storage, log)
        again = distinct.filter(pl.col("encounter_id").is_in(known["encounter_id"].implode()))
        new = distinct.filter(~pl.col("encounter_id").is_in(again["encounter_id"].implode()))
        cohort = select_cohort(new)
        left_out, other = new.height - cohort.height, amended(storage, log, known, again)
        if cohort.is_empty():
            return _New(None, 0, left_out, other), None
        if not dated and any(one.discharges for one in log.received):
            raise DataError(
                f"{shown(source)} has no column {discharge_column!r}, and earlier files had days of discharge: without "
                "them, outcomes stated before their time would count. Add the column, or name it with "
                "HEALTH_PREDICT_DISCHARGE_COLUMN; nothing was taken in"
            )
        batch = next_batch(storage, log)
        encounters = parquet(cohort.select(*ARRIVAL), ARRIVAL, layout.arrival(batch))
        discharges = cohort.select(*DISCHARGES) if dated else None
        received = Received(
            at=clock().isoformat(timespec="seconds"),
            who=who,
            kind="encounters",
            table=keep_table(storage, encounters),
            rows=cohort.height,
            batch=batch,
            left_out=left_out,
            discharges=None if discharges is None else keep_table(storage, parquet(discharges, DISCHARGES, source)),
        )
        last = cohort.select(final_from(pl.col(DISCHARGED_ON), params.reporting_lag).max()).item() if dated else None
        return _New(batch, cohort.height, left_out, other, last), received

    log, new = append_received(storage, make)
    index_encounters(storage, log)
    settle(storage, params)
    return EncountersTakenIn(
        batch=new.batch,
        rows=rows,
        accepted=new.accepted,
        known=fitting.height - new.accepted - new.left_out,
        left_out=new.left_out,
        quarantined=bad.height,
        findings=findings,
        quarantine=quarantine,
        amended=new.amended,
        final_from=new.final_from,
    )


@dataclass(frozen=True)
class _New:
    """The new encounters of a file, and counts of its known ones."""

    batch: int | None
    accepted: int
    left_out: int
    amended: int
    final_from: date | None = None


def _sifted(
    source: str, endpoint: str | None, discharge_column: str, today: date
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[InvalidValues, ...]]:
    file = open_encounters(source, endpoint, discharge_column=discharge_column)
    absent = [name for name in NEEDED if name not in file.identifiers]
    if absent:
        raise DataError(
            f"{shown(source)} has no {' and no '.join(absent)}: without it an outcome finds no encounter, and a "
            "patient's stays cannot be kept together"
        )
    pieces = list(file.sift(PIECE, today, NEEDED))
    types = {**ARRIVAL, **(DISCHARGES if file.is_dated else {})}
    fitting = pl.concat([piece.encounters.cast(pl.Schema(types)).select(*types) for piece in pieces])
    bad = pl.concat([piece.quarantined for piece in pieces])
    again = _contradicting(fitting)
    if again.any():
        rows = pl.int_range(1, fitting.height + bad.height + 1, eager=True).alias("row")
        numbered = fitting.with_columns(
            rows.filter(~rows.is_in(bad["row"].implode())), pl.lit(CONTRADICTS).alias("reason")
        )
        aside = numbered.filter(again).select(pl.col(name).cast(dtype) for name, dtype in bad.schema.items())
        fitting, bad = fitting.filter(~again), pl.concat([bad, aside]).sort("row")
    return fitting, bad, _findings(bad)


def _contradicting(encounters: pl.DataFrame) -> pl.Series:
    """Whether each row contradicts an earlier row about the same encounter."""
    first = encounters.unique("encounter_id", keep="first", maintain_order=True)
    if first.height == encounters.height:
        return pl.repeat(False, encounters.height, dtype=pl.Boolean, eager=True)
    paired = encounters.select("encounter_id").join(first, on="encounter_id", maintain_order="left")
    same = [encounters[name].eq_missing(paired[name]) for name in encounters.columns]
    return ~pl.DataFrame(same).select(pl.all_horizontal(pl.all())).to_series()


def _findings(bad: pl.DataFrame) -> tuple[InvalidValues, ...]:
    reasons = bad.select(pl.col("reason").str.split("; ").explode()).to_series().value_counts(sort=True)
    split = ((reason.partition(" "), rows) for reason, rows in reasons.iter_rows())
    return tuple(InvalidValues(column, reason, rows) for (column, _, reason), rows in split)


def _set_aside(storage: Storage, bad: pl.DataFrame) -> str | None:
    if bad.is_empty():
        return None
    content = bad.write_csv().encode()
    key = layout.quarantine(sha256(content).hexdigest())
    storage.write(key, content)
    return key
