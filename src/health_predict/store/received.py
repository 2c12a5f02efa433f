"""Encounters and outcomes that somebody hands over: in a file, or to the service, whose prediction log has them."""

from datetime import date

import polars as pl

from health_predict.data.hints import hint_of_missing
from health_predict.data.maturity import AS_OF
from health_predict.data.schema import FIELD, OUTCOME
from health_predict.data.validation import DTYPES
from health_predict.errors import DataError, StorageError
from health_predict.store import layout, prediction_log
from health_predict.store.batches import ARRIVAL, OUTCOMES
from health_predict.store.encounter_files import open_encounters, read_columns
from health_predict.store.places import shown
from health_predict.store.storage import Storage


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
    nothing was kept of that day, DataError as `prediction_log.read_predictions` does.
    """
    kept = list(prediction_log.read_predictions(store, day))
    if not kept:
        raise StorageError(f"no scored encounters of {day} are below {layout.ONLINE_PREDICTIONS} in {store.root}")
    whose = pl.Series([one.patient or f"{position}" for position, one in enumerate(kept)])
    identifiers = {"encounter_id": range(1, len(kept) + 1), "patient_nbr": whose.rank("dense")}
    columns = {name: [one.encounter.get(name) for one in kept] for name in ARRIVAL if name not in identifiers}
    return pl.DataFrame(identifiers | columns).cast(pl.Schema(ARRIVAL)).select(*ARRIVAL)


def read_outcomes(source: str, endpoint: str | None = None) -> pl.DataFrame:
    """Outcomes of encounters (`OUTCOMES`) from a CSV or Parquet file, local or s3://, with these columns.

    Raises DataError where a column or a value is missing or does not fit, or an encounter is there twice;
    StorageError when there is no such file.
    """
    return _outcomes(source, read_columns(source, tuple(OUTCOMES), "outcomes", endpoint), ["encounter_id"])


def read_statements(source: str, as_of: date | None, endpoint: str | None = None) -> pl.DataFrame:
    """As `read_outcomes`, with the day that each speaks of: that of the file's column AS_OF, else `as_of`.

    An encounter may be there once a day.
    """
    table = read_columns(source, tuple(OUTCOMES), "outcomes", endpoint, AS_OF)
    return _outcomes(source, table.with_columns(pl.coalesce(AS_OF, pl.lit(as_of, pl.Date))), ["encounter_id", AS_OF])


def _outcomes(source: str, raw: pl.DataFrame, once: list[str]) -> pl.DataFrame:
    known = pl.Enum([str(code) for code in FIELD[OUTCOME].codes])
    table = raw.with_columns(pl.col(OUTCOME).cast(known, strict=False).cast(OUTCOMES[OUTCOME]))
    unfit = sum(table.select(*OUTCOMES).null_count().row(0))
    twice = table.height - table.select(once).n_unique()
    if unfit or twice:
        raise DataError(
            f"{shown(source)} has {unfit} values that are missing or do not fit, and {twice} duplicate "
            f"encounter_ids{hint_of_missing(raw)}"
        )
    return table
