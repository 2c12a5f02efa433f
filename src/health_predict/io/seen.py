"""Which encounters a model has seen: those of the tables that its bundle names, kept by content."""

from collections.abc import Iterable

import polars as pl

from health_predict.io.bundle import Manifest
from health_predict.io.bundles import kept_manifest
from health_predict.io.ledger import Ledger, Question
from health_predict.io.storage import Storage
from health_predict.io.tables import kept_table, parse_table


def seen_by(storage: Storage, manifests: Iterable[Manifest]) -> pl.Series:
    """Ids of all encounters that any of the models was fitted, tuned or calibrated on, each once.

    Raises StorageError or DataError where that cannot be known: a table is not kept, or was altered.
    """
    digests = {table.sha256 for manifest in manifests for table in manifest.trained_on}
    return _ids(storage, digests)


def seen_in_production(storage: Storage, ledger: Ledger) -> pl.Series:
    """As `seen_by`, of the models that a challenger will be compared with: production's and the first."""
    numbers = {ledger.production, ledger.first and ledger.first.production} - {None}
    bundles = [ledger.subject(str(number)).bundle for number in numbers]
    return seen_by(storage, [kept_manifest(storage, digest) for digest in bundles])


def asked_before(storage: Storage, questions: Iterable[Question], encounters: pl.Series) -> int:
    """How many questions were asked of hold-outs that have any of these encounters in them."""
    ids: dict[str, pl.Series] = {}
    count = 0
    for question in questions:
        found = ids.setdefault(question.holdout, _ids(storage, {question.holdout}))
        count += bool(found.is_in(encounters.implode()).any())
    return count


def spent(storage: Storage, questions: Iterable[Question]) -> pl.Series:
    """Ids of all encounters of hold-outs that were asked."""
    return _ids(storage, {question.holdout for question in questions})


def _ids(storage: Storage, digests: Iterable[str]) -> pl.Series:
    tables = [parse_table(kept_table(storage, digest), digest)["encounter_id"] for digest in sorted(set(digests))]
    return pl.concat(tables).unique() if tables else pl.Series("encounter_id", dtype=pl.Int64)
