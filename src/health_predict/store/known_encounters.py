"""Which encounters have arrived before, and what was said of them then.

The tables that a hospital handed over are kept by their content, so an index of their ids (`intake/known.parquet`) is
never wrong, only short: what it lacks is added from the tables. It can be deleted.
"""

import io
from collections.abc import Iterator

import polars as pl

from health_predict.data.schema import DISCHARGED_ON
from health_predict.data.validation import DTYPES
from health_predict.store import layout
from health_predict.store.batches import ARRIVAL, Types, arrived
from health_predict.store.intake import IntakeLog, Received, discharges_of
from health_predict.store.storage import Storage
from health_predict.store.tables import kept_table

INDEX: Types = {"encounter_id": DTYPES["encounter_id"], "table": pl.String()}  # SHA-256 of a kept table, or a key


def known_encounters(storage: Storage, log: IntakeLog) -> pl.DataFrame:
    """The encounters that have arrived before, or that the store was begun with, and the table of each (INDEX)."""
    parts = [_indexed(storage, log), *(_of(storage.read(key), key) for key in _others(storage, log))]
    return _each_once(tuple(parts))


def index_encounters(storage: Storage, log: IntakeLog) -> None:
    """Write what the index lacks of the tables in the log."""
    before = _index(storage)
    now = _indexed(storage, log, before)
    if now.height > before.height:
        file = io.BytesIO()
        now.write_parquet(file)
        storage.write(layout.KNOWN, file.getvalue())


def amended(storage: Storage, log: IntakeLog, known: pl.DataFrame, encounters: pl.DataFrame) -> int:
    """How many of the encounters (ARRIVAL, and DISCHARGED_ON if they are dated) have arrived before (`known`, INDEX)
    with other values, or by the log with another day of discharge or none."""
    again = encounters.join(known, on="encounter_id", maintain_order="left")
    taken_in = {one.table: one for one in log.batches.values()}
    return sum(_differing(storage, group, taken_in.get(group["table"][0])) for group in again.partition_by("table"))


def _differing(storage: Storage, group: pl.DataFrame, received: Received | None) -> int:
    place = group["table"][0]
    content = storage.read(place) if "/" in place else kept_table(storage, place)
    before = pl.read_parquet(io.BytesIO(content), columns=list(ARRIVAL))
    if received and DISCHARGED_ON in group.columns:
        before = before.join(discharges_of(storage, [received]), on="encounter_id", how="left")
    both = group.join(before, on="encounter_id", suffix="_before", maintain_order="left")
    fields = [name for name in before.columns if name != "encounter_id"]
    same = [pl.col(name).eq_missing(pl.col(f"{name}_before")) for name in fields]
    return both.filter(~pl.all_horizontal(same)).height


def _each_once(parts: tuple[pl.DataFrame, ...]) -> pl.DataFrame:
    return pl.concat(parts).unique("encounter_id", keep="first", maintain_order=True)


def _indexed(storage: Storage, log: IntakeLog, index: pl.DataFrame | None = None) -> pl.DataFrame:
    """The ids of all tables of encounters in the log; those that the index lacks are read."""
    found = _index(storage) if index is None else index
    there = set(found["table"].unique())
    lacking = [one.table for one in log.batches.values() if one.table not in there]
    if not lacking:
        return found
    return pl.concat([found, *(_of(kept_table(storage, table), table) for table in lacking)])


def _index(storage: Storage) -> pl.DataFrame:
    try:
        if storage.exists(layout.KNOWN):
            found = pl.read_parquet(io.BytesIO(storage.read(layout.KNOWN)))
            if found.schema == pl.Schema(INDEX):
                return found
    except (pl.exceptions.PolarsError, OSError):
        pass  # damaged: it is made anew
    return pl.DataFrame(schema=INDEX)


def _others(storage: Storage, log: IntakeLog) -> Iterator[str]:
    """Keys of the tables of encounters that did not come by the log: the initial ones, and a replay's."""
    yield from (
        key for key in (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST) if storage.exists(key)
    )
    yield from (layout.arrival(number) for number in arrived(storage) if number not in log.batches)


def _of(content: bytes, place: str) -> pl.DataFrame:
    ids = pl.read_parquet(io.BytesIO(content), columns=["encounter_id"])
    return ids.with_columns(pl.lit(place, pl.String).alias("table"))
