"""Scores a batch with the version in production, and keeps the probabilities."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.bundle.model import require_target
from health_predict.errors import ServiceError
from health_predict.store import layout
from health_predict.store.batches import ARRIVES, PREDICTIONS, parquet, read_arrival
from health_predict.store.bundles import open_version
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.workspace import Workspace
from health_predict.workspace.production import in_production


@dataclass(frozen=True)
class BatchScores:
    """A service's probabilities, in the order of the encounters, and the one version that gave them."""

    probability: NDArray[np.float64]
    version: str


Ask = Callable[[pl.DataFrame], BatchScores]


@dataclass(frozen=True)
class ScoredBatch:
    """`through`: whether the API or the bundle gave the probabilities; `decisions`: lines in the ledger at the time."""

    batch: int
    rows: int
    version: str
    first: str
    through: str  # "api" or "bundle"
    decisions: int
    skipped: bool = False


def score(workspace: Workspace, number: int, first: str, ask: Ask | None = None) -> ScoredBatch:
    """Score an arrived batch with the version in production, through the service `ask` or, without one, its bundle.

    Each probability is stored beside that of version `first`. Skipped when the batch was already scored, whichever
    version is in production now. Raises StorageError before the batch arrived, ConflictError with nothing in
    production, BundleError for a model of another outcome, ServiceError where the service does not answer or answers
    with another version.
    """
    workspace = workspace.reading_once()
    storage = workspace.storage
    arrived = completed(storage, layout.manifest(layout.arrival(number)), ARRIVES)
    key, inputs = layout.predictions(number), {"arrival": arrived["files"], "first": first}

    def make() -> Made[ScoredBatch]:
        decisions, production = len(read_ledger(storage).entries), in_production(storage)
        encounters = read_arrival(storage, number)
        beside = _predict(workspace, first, encounters)
        if ask is not None:
            answers = ask(encounters)
        else:
            same = production == first
            answers = BatchScores(beside if same else _predict(workspace, production, encounters), production)
        if answers.version != production:
            raise ServiceError(
                f"the API answers with version {answers.version}, but version {production} is in production"
            )
        table = encounters.select(
            "encounter_id",
            "patient_nbr",
            pl.Series("probability", answers.probability),
            pl.lit(production).alias("version"),
            pl.Series("first_probability", beside),
        )
        through = "bundle" if ask is None else "api"
        result = ScoredBatch(number, table.height, production, first, through, decisions)
        return Made(result, {key: parquet(table, PREDICTIONS, key)})

    return rerunnable(storage, layout.manifest(key), inputs, ScoredBatch, make)


def _predict(workspace: Workspace, version: str, encounters: pl.DataFrame) -> NDArray[np.float64]:
    bundle = open_version(workspace.storage, workspace.connect, read_ledger(workspace.storage).version(version))
    require_target(bundle.manifest)
    return bundle.predict_proba(encounters)
