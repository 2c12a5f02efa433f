"""What models may be compared on: encounters that none of them has seen, and that no earlier hold-out had."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from health_predict.data.splits import fresh, needed, pool, total
from health_predict.data.validation import DTYPES
from health_predict.errors import DataError, Declined, StorageError
from health_predict.io import layout
from health_predict.io.bundle import Bundle, TableDigest, load_bundle
from health_predict.io.ledger import read_ledger
from health_predict.io.registry import Registry
from health_predict.io.replay import parquet
from health_predict.io.storage import Storage
from health_predict.io.tables import parse_table
from health_predict.monitoring.retraining import too_few
from health_predict.params import Params

IDS = {"encounter_id": DTYPES["encounter_id"]}


def version_bundle(registry: Registry, version: str, cache: Path) -> Bundle:
    """The bundle of a version, verified."""
    return load_bundle(registry.fetch_bundle(registry.version(version), cache))


def known(storage: Storage, registry: Registry, cache: Path, champion: str | None, own: str | None = None) -> pl.Series:
    """Ids of all encounters that a champion or the first approved model has seen, or that a hold-out had.

    `own` is the key of the one hold-out that does not count: of the data set that this is asked for.
    """
    first = read_ledger(storage).first
    versions = {version for version in (champion, first.production if first else None) if version}
    bundles = [version_bundle(registry, version, cache) for version in sorted(versions)]
    return pl.concat([seen(storage, bundles), _held_out(storage, own)]).unique(maintain_order=True)


def candidates(batches: Sequence[pl.DataFrame], known_ids: pl.Series, params: Params) -> pl.DataFrame:
    """Those of matured encounters that a hold-out may be drawn from (`splits.pool`).

    Raises Declined where they are too few for the gate to decide on.
    """
    there, enough = total(fresh(batches, known_ids)), needed(params.assembly, params.gate)
    if not there.covers(enough):
        reason = too_few(there.rows, there.outcomes, enough.rows, enough.outcomes)
        raise Declined("nothing is trained, as the gate could not decide on it:", [reason, "Wait for more outcomes."])
    return pool(batches, known_ids, params.assembly, params.gate)


def seen(storage: Storage, bundles: Iterable[Bundle]) -> pl.Series:
    """Ids of all encounters that any of the models was fitted, tuned or calibrated on."""
    tables = {table.sha256: table for bundle in bundles for table in bundle.manifest.trained_on}
    ids = [pl.read_parquet(io.BytesIO(_content(storage, table)), columns=list(IDS)) for table in tables.values()]
    return pl.concat([_nobody(), *ids])["encounter_id"]


def read_seen(storage: Storage, table: TableDigest) -> pl.DataFrame:
    """Typed encounters with outcomes that a model has seen."""
    return parse_table(_content(storage, table), table.key)


def holdout_bytes(test: pl.DataFrame, key: str) -> bytes:
    """What is kept of a hold-out, so that no later one has its encounters."""
    return parquet(test.select(*IDS), IDS, key)


def _held_out(storage: Storage, own: str | None) -> pl.Series:
    kept = [key for key in storage.list(layout.HOLDOUTS) if key != own]
    return pl.concat([_nobody(), *(pl.read_parquet(io.BytesIO(storage.read(key))) for key in kept)])["encounter_id"]


def _nobody() -> pl.DataFrame:
    return pl.DataFrame(schema=IDS)


def _content(storage: Storage, table: TableDigest) -> bytes:
    """The table by its content, or where it was made, as long as it is the same there."""
    for key in (layout.table(table.sha256), table.key):
        if storage.exists(key):
            content = storage.read(key)
            if hashlib.sha256(content).hexdigest() == table.sha256:
                return content
    if storage.exists(table.key):
        raise DataError(
            f"{storage.path(table.key)} is not the table that a model was trained on, so it cannot be known what the "
            "model has seen; train again"
        )
    raise StorageError(
        f"{table.key} is not in {storage.root}: a model was trained on it, and without it it cannot be known what the "
        "model has seen; copy it from the store that trained the model, or train again"
    )
