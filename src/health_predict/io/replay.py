"""What the loop keeps of each batch: what arrived, what was predicted of it, and what became of it.

The three are tables of their own, so that an outcome is nowhere before it has matured: `arrivals/` has none, and
`outcomes/` gets a batch's file only then. `read_matured` is the one way to encounters with outcomes.
"""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec
import polars as pl

from health_predict.data.schema import FIELD, OUTCOME
from health_predict.data.validation import DTYPES
from health_predict.errors import BundleError, DataError, StorageError
from health_predict.evaluation.metrics import Metrics
from health_predict.io import layout, predictions
from health_predict.io.bundle import REFERENCE
from health_predict.io.encounter_files import open_encounters, read_columns
from health_predict.io.ledger import Version
from health_predict.io.places import shown
from health_predict.io.reports import read_evaluation
from health_predict.io.storage import Storage
from health_predict.io.tables import parse_table, read_json, table_bytes, write_json
from health_predict.monitoring.reference import Reference
from health_predict.monitoring.retraining import Action
from health_predict.params import Family

Document = TypeVar("Document")
Types = Mapping[str, pl.DataType]


@dataclass(frozen=True)
class Plan:
    """What is replayed, and how models are retrained in it."""

    scenario: str
    from_batch: int
    families: tuple[Family, ...]
    trials: int
    seed: int


@dataclass(frozen=True)
class Ended:
    """How a batch ended. `run_id` is that of the remedy, `promoted` its version if the gate let it in."""

    batch: int
    refused: bool = False
    action: Action = "none"
    run_id: str | None = None
    promoted: str | None = None
    objections: tuple[str, ...] = ()
    answered_meanwhile: int | None = None  # requests, all with success, while the service took the version up


def read_plan(storage: Storage) -> Plan | None:
    """The replay that was begun; None where none was."""
    return _document(storage, layout.REPLAY, Plan) if storage.exists(layout.REPLAY) else None


def write_plan(storage: Storage, plan: Plan) -> None:
    write_json(storage, layout.REPLAY, asdict(plan))


def read_ended(storage: Storage, number: int) -> Ended | None:
    """How a batch ended; None while it has not."""
    key = layout.replayed(number)
    return _document(storage, key, Ended) if storage.exists(key) else None


def write_ended(storage: Storage, ended: Ended) -> None:
    """The last thing that is written of a batch: with it, the replay is beyond the batch."""
    write_json(storage, layout.replayed(ended.batch), asdict(ended))


ARRIVAL: Types = {name: dtype for name, dtype in DTYPES.items() if name != OUTCOME}
PREDICTIONS: Types = {
    "encounter_id": DTYPES["encounter_id"],
    "patient_nbr": DTYPES["patient_nbr"],
    "probability": pl.Float64(),
    "version": pl.String(),
    "first_probability": pl.Float64(),  # what the version says that was in production when the replay began
}
OUTCOMES: Types = {"encounter_id": DTYPES["encounter_id"], OUTCOME: DTYPES[OUTCOME]}


def arrival_bytes(encounters: pl.DataFrame, name: str) -> bytes:
    """The Parquet file of encounters without their outcomes. DataError where they do not fit the schema."""
    table_bytes(encounters, name)
    return parquet(encounters.drop(OUTCOME), ARRIVAL, name)


def parquet(table: pl.DataFrame, types: Types, name: str) -> bytes:
    """The Parquet file of a table with exactly these columns; the same table gives the same bytes. DataError."""
    _check(table, types, name)
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


def read_arrival(storage: Storage, number: int) -> pl.DataFrame:
    """Encounters of a batch without their outcomes, in order. StorageError before it arrived."""
    return _read(storage, layout.arrival(number), ARRIVAL)


def read_predictions(storage: Storage, number: int) -> pl.DataFrame:
    """One row (`PREDICTIONS`) for each encounter of the batch, in its order. StorageError before it was scored."""
    return _read(storage, layout.predictions(number), PREDICTIONS)


def read_matured(storage: Storage, number: int) -> pl.DataFrame:
    """Typed encounters of a batch with the outcomes that have matured, in order.

    StorageError before they matured, DataError where an encounter has none.
    """
    outcomes = _read(storage, layout.outcomes(number), OUTCOMES)
    arrived = read_arrival(storage, number)
    joined = arrived.join(outcomes, on="encounter_id", how="left", maintain_order="left")
    lacking = joined[OUTCOME].null_count()
    if lacking or joined.height != arrived.height:
        raise DataError(
            f"{storage.path(layout.outcomes(number))} has no outcome, or two, for {lacking or joined.height} of "
            f"{arrived.height} encounters"
        )
    return joined.select(*DTYPES)


def arrived(storage: Storage, upto: int | None = None) -> list[int]:
    """Numbers of the batches, up to this one, that have arrived and were not refused, in order."""
    numbers = _batches(storage, layout.ARRIVALS)
    return [one for one in numbers if (upto is None or one <= upto) and storage.exists(layout.arrival(one))]


def matured(storage: Storage, before: int | None = None) -> list[int]:
    """Numbers of the batches, earlier than this one, whose outcomes have matured, oldest first."""
    return [one for one in _batches(storage, layout.OUTCOMES) if before is None or one < before]


def scored(storage: Storage, upto: int | None = None) -> list[int]:
    """Numbers of the batches, up to this one, that were scored, oldest first."""
    return [one for one in _batches(storage, layout.PREDICTIONS) if upto is None or one <= upto]


def next_assembly(storage: Storage) -> int:
    """The number under which all that has matured by now can become a data set: as if another batch had arrived."""
    return max(_batches(storage, layout.ARRIVALS), default=0) + 1


def _batches(storage: Storage, prefix: str) -> list[int]:
    """Numbers of the batches with a finished set of files whose keys begin so."""
    keys = (key.removeprefix(prefix) for key in storage.list(prefix) if key.endswith(".json"))
    return sorted(int(number) for key in keys if (number := key.removesuffix(".json")).isdigit())


def trained_in(storage: Storage, run_id: str) -> str:
    """The run in which a run's model was trained: an earlier one, where this one only calibrated the model anew."""
    manifests = [key for key in storage.list(layout.RECALIBRATIONS) if key.endswith(".json")]
    results = [read_json(storage, key)["result"] for key in manifests]
    before = {result["run_id"]: result["recalibrated"] for result in results}
    while run_id in before:
        run_id = before[run_id]
    return run_id


def approved(storage: Storage, version: Version) -> Metrics:
    """What a version was when the gate let it in; StorageError where no evaluation says so.

    A new calibration keeps the order of risks: what AUROC had been lost before it must not become the standard.
    """
    evaluation = read_evaluation(storage, version.run_id)
    trained = read_evaluation(storage, trained_in(storage, version.run_id))
    if evaluation is None or trained is None:
        raise StorageError(
            f"version {version.version} has no evaluation in {storage.root} to compare with; run `health-predict "
            f"evaluate {version.run_id}`"
        )
    return replace(evaluation.comparison.challenger, auroc=trained.comparison.challenger.auroc)


def read_file(source: str, endpoint: str | None = None) -> pl.DataFrame:
    """Typed encounters (`ARRIVAL`) of a CSV or Parquet file, local or s3://, by the rules of `open_encounters`.

    Where the file does not say whose encounters they are, each is taken for another patient's.
    """
    batches = open_encounters(source, endpoint).batches(65_536)
    table = pl.concat(batch.encounters.cast(pl.Schema(ARRIVAL)) for batch in batches).select(*ARRIVAL)
    anonymous = -pl.int_range(1, pl.len() + 1).cast(DTYPES["patient_nbr"])
    return table.with_columns(pl.col("patient_nbr").fill_null(anonymous))


def read_logged(store: Storage, day: str) -> pl.DataFrame:
    """Typed encounters (`ARRIVAL`) that the service scored on a day (`2026-01-31`), from its prediction log.

    Identifiers are stand-ins, as the log has none; encounters of one patient have the same. Raises StorageError where
    nothing was kept of that day, DataError as `predictions.read_predictions` does.
    """
    kept = list(predictions.read_predictions(store, day))
    if not kept:
        raise StorageError(f"no scored encounters of {day} are below {layout.ONLINE_PREDICTIONS} in {store.root}")
    whose = pl.Series([one.patient or f"{position}" for position, one in enumerate(kept)])
    identifiers = {"encounter_id": range(1, len(kept) + 1), "patient_nbr": whose.rank("dense")}
    columns = {name: [one.encounter.get(name) for one in kept] for name in ARRIVAL if name not in identifiers}
    return pl.DataFrame(identifiers | columns).cast(pl.Schema(ARRIVAL)).select(*ARRIVAL)


def read_outcomes(source: str, endpoint: str | None = None) -> pl.DataFrame:
    """What became of encounters (`OUTCOMES`), from a CSV or Parquet file, local or s3://, with these columns.

    Raises DataError where a column or a value is missing or does not fit, or an encounter is there twice;
    StorageError when there is no such file.
    """
    known = pl.Enum([str(code) for code in FIELD[OUTCOME].codes])
    table = read_columns(source, tuple(OUTCOMES), "outcomes", endpoint).with_columns(
        pl.col(OUTCOME).cast(known, strict=False).cast(OUTCOMES[OUTCOME])
    )
    unfit = sum(table.null_count().row(0))
    twice = table.height - table["encounter_id"].n_unique()
    if unfit or twice:
        raise DataError(
            f"{shown(source)} has {unfit} values that are missing or do not fit, and {twice} duplicate encounter_ids"
        )
    return table


def read_reference(bundle: Path) -> Reference:
    """The profile of what a model was trained on, from its bundle's folder (a verified one)."""
    try:
        return msgspec.json.decode((bundle / REFERENCE).read_bytes(), type=Reference)
    except (OSError, msgspec.MsgspecError) as error:
        raise BundleError(f"{REFERENCE} in {bundle} is not a reference profile that this version reads") from error


def future_batches(storage: Storage) -> dict[int, str]:
    """Digest of every batch that `data split` set aside, by number. StorageError before `data split`.

    The batches themselves are not looked at: `read_future` does, for the one that it reads.
    """
    if not storage.exists(layout.SPLIT_MANIFEST):
        raise StorageError(f"{layout.SPLIT_MANIFEST} is not in {storage.root}; run `health-predict data split` first")
    files: dict[str, str] = read_json(storage, layout.SPLIT_MANIFEST)["files"]
    found = [key for key in files if key.startswith(layout.FUTURE)]
    return {number: files[layout.future_batch(number)] for number in range(1, len(found) + 1)}


def read_future(storage: Storage, number: int) -> pl.DataFrame:
    """Typed encounters of a batch that `data split` set aside, with their outcomes.

    Raises DataError for a batch that there is not, StorageError for one that is missing or not as it was written.
    """
    digests, key = future_batches(storage), layout.future_batch(number)
    if number not in digests:
        raise DataError(f"there is no batch {number}; `data split` made {len(digests)}")
    content = storage.read(key) if storage.exists(key) else b""
    if sha256(content).hexdigest() != digests[number]:
        raise StorageError(
            f"{key} in {storage.root} is missing or not what {layout.SPLIT_MANIFEST} records; "
            "run `health-predict data split` again"
        )
    return parse_table(content, storage.path(key))


def _document(storage: Storage, key: str, kind: type[Document]) -> Document:
    try:
        return msgspec.convert(read_json(storage, key), kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{storage.path(key)} is not what this version writes: {error}") from error


def _read(storage: Storage, key: str, types: Types) -> pl.DataFrame:
    if not storage.exists(key):
        raise StorageError(f"{key} is not in {storage.root}; run `health-predict simulate` first")
    table = _parse(storage.read(key), storage.path(key))
    _check(table, types, storage.path(key))
    return table


def _parse(content: bytes, name: str) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{name} is not a readable Parquet file; was it cut short?") from error


def _check(table: pl.DataFrame, types: Types, name: str) -> None:
    if list(table.schema.items()) == list(types.items()):
        return
    absent = [column for column in types if column not in table.columns]
    unknown = [column for column in table.columns if column not in types]
    problems = [
        *(f"{column} is missing" for column in absent),
        *(f"{column!r} is unknown" for column in unknown),
        *(
            f"{column} is {table.schema[column]}, not {dtype}"
            for column, dtype in types.items()
            if column in table.columns and table.schema[column] != dtype
        ),
    ]
    raise DataError(f"{name} does not fit: {'; '.join(problems) or 'the columns are in another order'}")
