"""Hold-outs: encounters that none of the compared models has seen, and that no earlier hold-out had."""

import io
from collections.abc import Collection, Iterable, Sequence

import polars as pl

from health_predict.bundle.model import Manifest, TableDigest
from health_predict.data.splits import fresh, needed, pool, total
from health_predict.data.validation import DTYPES
from health_predict.errors import Declined
from health_predict.monitoring.retraining import too_few
from health_predict.params import Params
from health_predict.store import layout
from health_predict.store.batches import parquet
from health_predict.store.bundles import kept_manifest
from health_predict.store.ledger import Question, read_ledger
from health_predict.store.storage import Storage
from health_predict.store.tables import kept_table, parse_table

IDS = {"encounter_id": DTYPES["encounter_id"]}


def known(storage: Storage, champion: str | None, own: Collection[str] = ()) -> pl.Series:
    """Ids of all encounters that a champion or the first approved model has seen, or that a hold-out had.

    `own` are keys of hold-outs that do not count: of the data set that this is asked for.
    """
    return pl.concat([seen_in_production(storage, champion), _held_out(storage, own)]).unique(maintain_order=True)


def seen_in_production(storage: Storage, champion: str | None) -> pl.Series:
    """Ids of all encounters that a champion, or the first approved model, has seen: a challenger is compared with both.

    Raises StorageError or DataError where that cannot be known.
    """
    ledger = read_ledger(storage)
    versions = {champion, ledger.first.production if ledger.first else None} - {None}
    digests = sorted(ledger.subject(str(version)).bundle for version in versions)
    return seen(storage, [kept_manifest(storage, digest) for digest in digests])


def asked_before(storage: Storage, questions: Iterable[Question], encounters: pl.Series) -> int:
    """How many questions were asked of hold-outs that have any of these encounters in them."""
    ids: dict[str, pl.Series] = {}
    for question in questions:
        if question.holdout not in ids:
            ids[question.holdout] = _ids(kept_table(storage, question.holdout))["encounter_id"]
    shared = {holdout for holdout, found in ids.items() if found.is_in(encounters.implode()).any()}
    return sum(question.holdout in shared for question in questions)


def candidates(batches: Sequence[pl.DataFrame], known_ids: pl.Series, params: Params) -> pl.DataFrame:
    """The matured encounters that a hold-out may be drawn from (`splits.pool`).

    Raises Declined where they are too few for the gate to decide on.
    """
    there, enough = total(fresh(batches, known_ids)), needed(params.assembly, params.gate)
    if not there.covers(enough):
        reason = too_few(there.rows, there.outcomes, enough.rows, enough.outcomes)
        raise Declined("nothing is trained, as the gate could not decide on it:", [reason, "Wait for more outcomes."])
    return pool(batches, known_ids, params.assembly, params.gate)


def seen(storage: Storage, manifests: Iterable[Manifest]) -> pl.Series:
    """Ids of all encounters that any of the models was fitted, tuned or calibrated on, each once.

    Raises StorageError or DataError where that cannot be known: a table is not kept, or was altered.
    """
    digests = {table.sha256 for manifest in manifests for table in manifest.trained_on}
    ids = [_ids(kept_table(storage, digest)) for digest in sorted(digests)]
    return pl.concat([_nobody(), *ids])["encounter_id"].unique(maintain_order=True)


def read_seen(storage: Storage, table: TableDigest) -> pl.DataFrame:
    """Typed encounters with outcomes that a model has seen."""
    return parse_table(kept_table(storage, table.sha256), table.key)


def holdout_bytes(test: pl.DataFrame, key: str) -> bytes:
    """The Parquet file with the encounter_ids of a hold-out, so that no later hold-out has them."""
    return parquet(test.select(*IDS), IDS, key)


def _held_out(storage: Storage, own: Collection[str]) -> pl.Series:
    kept = [key for key in storage.list(layout.HOLDOUTS) if key not in own]
    return pl.concat([_nobody(), *(_ids(storage.read(key)) for key in kept)])["encounter_id"]


def _nobody() -> pl.DataFrame:
    return pl.DataFrame(schema=IDS)


def _ids(table: bytes) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(table), columns=list(IDS))
