"""What the loop keeps of each batch: what arrived, what was predicted of it, and what became of it.

The three are tables of their own, so that an outcome is nowhere before it has matured: `arrivals/` has none, and
`outcomes/` gets a batch's file only then. `read_matured` is the one way to encounters with outcomes.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from health_predict.data.schema import OUTCOME
from health_predict.data.validation import DTYPES
from health_predict.errors import DataError, StorageError
from health_predict.store import layout
from health_predict.store.storage import Storage
from health_predict.store.tables import table_bytes

Types = Mapping[str, pl.DataType]

# Commands that make a batch's files, for messages.
ARRIVES = "intake encounters` or `health-predict simulate"
SCORES = "loop score"
MATURES = "intake outcomes` or `health-predict simulate"

ARRIVAL: Types = {name: dtype for name, dtype in DTYPES.items() if name != OUTCOME}

PREDICTIONS: Types = {
    "encounter_id": DTYPES["encounter_id"],
    "patient_nbr": DTYPES["patient_nbr"],
    "probability": pl.Float64(),
    "version": pl.String(),
    "first_probability": pl.Float64(),  # what the version says that was in production when the replay began
}

OUTCOMES: Types = {"encounter_id": DTYPES["encounter_id"], OUTCOME: DTYPES[OUTCOME]}

# Columns that outcomes may have: whether the encounter was followed up, null where nothing was said; and, in a
# simulation, which knows it, what would have become of it without.
FOLLOWED_UP, UNTREATED = "followed_up", "readmitted_untreated"
CARE: Types = {FOLLOWED_UP: pl.Boolean(), UNTREATED: DTYPES[OUTCOME]}


@dataclass(frozen=True)
class Arrival:
    """`left_out` encounters ended in death or a hospice, and are not among the rows.

    `refused` says why the batch does not fit the schema; then there are no rows. None: it fits.
    """

    batch: int
    rows: int
    refused: str | None
    left_out: int = 0
    skipped: bool = False


def arrival_bytes(encounters: pl.DataFrame, name: str) -> bytes:
    """The Parquet file of encounters without their outcomes. DataError where they do not fit the schema."""
    table_bytes(encounters, name)
    return parquet(encounters.drop(OUTCOME), ARRIVAL, name)


def outcome_bytes(outcomes: pl.DataFrame, name: str) -> bytes:
    """The Parquet file of outcomes (OUTCOMES, and those columns of CARE that the table has). DataError."""
    return parquet(outcomes, _of_outcomes(outcomes), name)


def parquet(table: pl.DataFrame, types: Types, name: str) -> bytes:
    """The Parquet file of a table with exactly these columns; the same table gives the same bytes. DataError."""
    _check(table, types, name)
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


def read_arrival(storage: Storage, number: int) -> pl.DataFrame:
    """Encounters of a batch without their outcomes, in order. StorageError before it arrived."""
    return _read(storage, layout.arrival(number), ARRIVAL, ARRIVES)


def read_predictions(storage: Storage, number: int) -> pl.DataFrame:
    """One row (`PREDICTIONS`) for each encounter of the batch, in its order. StorageError before it was scored."""
    return _read(storage, layout.predictions(number), PREDICTIONS, SCORES)


def read_matured(storage: Storage, number: int) -> pl.DataFrame:
    """Typed encounters of a batch whose outcomes are known, with the outcomes, in the order of their arrival.

    StorageError before the batch matured, DataError where an outcome is of no encounter of the batch, or there twice.
    """
    outcomes = read_outcomes(storage, number)
    arrived = read_arrival(storage, number)
    joined = arrived.join(outcomes, on="encounter_id", how="inner", maintain_order="left")
    if joined.height != outcomes.height or joined["encounter_id"].n_unique() != joined.height:
        raise DataError(
            f"{storage.path(layout.outcomes(number))} has {outcomes.height} outcomes, of which {joined.height} are of "
            f"one encounter of the {arrived.height} each"
        )
    return joined.select(*DTYPES)


def read_outcomes(storage: Storage, number: int) -> pl.DataFrame:
    """What became of a batch's encounters: OUTCOMES, and those columns of CARE that are known. StorageError."""
    key = layout.outcomes(number)
    table = _found(storage, key, MATURES)
    _check(table, _of_outcomes(table), storage.path(key))
    return table


def arrived(storage: Storage, upto: int | None = None) -> list[int]:
    """Numbers of the batches, up to this one, that have arrived and were not refused, in order."""
    kept = set(storage.list(layout.ARRIVALS))
    numbers = _batches(storage, layout.ARRIVALS)
    return [one for one in numbers if (upto is None or one <= upto) and layout.arrival(one) in kept]


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


def _of_outcomes(table: pl.DataFrame) -> Types:
    return {**OUTCOMES, **{name: dtype for name, dtype in CARE.items() if name in table.columns}}


def _read(storage: Storage, key: str, types: Types, command: str) -> pl.DataFrame:
    table = _found(storage, key, command)
    _check(table, types, storage.path(key))
    return table


def _found(storage: Storage, key: str, command: str) -> pl.DataFrame:
    if not storage.exists(key):
        raise StorageError(f"{key} is not in {storage.root}; run `health-predict {command}` first")
    return _parse(storage.read(key), storage.path(key))


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
