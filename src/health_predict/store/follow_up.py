"""Matured encounters with what care did of them: whom each represents, so that outcomes are those without follow-up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.data.cohort import outcome
from health_predict.data.follow_up import FollowUp, is_known, represent, with_representation
from health_predict.params import FollowUpParams
from health_predict.store import layout
from health_predict.store.batches import (
    FOLLOWED_UP,
    SCORES,
    read_matured,
    read_outcomes,
    read_predictions,
    scored,
)
from health_predict.store.bundles import kept_manifest
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import completed
from health_predict.store.storage import Storage


@dataclass(frozen=True)
class MaturedBatch:
    """Typed encounters with outcomes; where follow-up is known, with the column REPRESENTS, and `care` in their order.

    `unknown`: why nobody can know what became of encounters without follow-up; then none represents any.
    """

    encounters: pl.DataFrame
    care: FollowUp | None = None
    unknown: str | None = None


def read_judgeable(storage: Storage, number: int, params: FollowUpParams) -> MaturedBatch:
    """As `read_matured`, with whom each encounter represents, by the risks that the batch was scored with.

    `params.reading` "naive" leaves it out, and takes the outcomes as they were.
    """
    encounters = read_matured(storage, number)
    said = encounters.select("encounter_id").join(
        read_outcomes(storage, number), on="encounter_id", how="left", maintain_order="left"
    )
    followed_up = said.get_column(FOLLOWED_UP, default=None)
    if followed_up is None or not is_known(followed_up, params):
        return MaturedBatch(encounters)
    if number not in scored(storage):
        unknown = f"Follow-up is known of batch {number}, and the risks that care acted on are not: it was not scored."
        return MaturedBatch(with_representation(encounters, np.zeros(encounters.height)), None, unknown)
    risks, threshold = read_risks(storage, number, encounters["encounter_id"])
    care = FollowUp.of(risks, threshold, followed_up)
    found = represent(outcome(encounters), care, params)
    return MaturedBatch(with_representation(encounters, found.weights), care, found.unknown)


def treated(batches: Sequence[MaturedBatch]) -> list[tuple[pl.DataFrame, NDArray[np.bool_], FollowUp]]:
    """Encounters, outcomes and care of the batches with follow-up whose encounters represent any."""
    return [
        (batch.encounters, outcome(batch.encounters), batch.care)
        for batch in batches
        if batch.care is not None and batch.unknown is None
    ]


def read_risks(storage: Storage, number: int, encounters: pl.Series) -> tuple[NDArray[np.float64], float]:
    """The risks that these encounters of a batch were scored with, in their order, and from which one was flagged."""
    ids = pl.DataFrame({"encounter_id": encounters})
    scores = ids.join(read_predictions(storage, number), on="encounter_id", how="left", maintain_order="left")
    return scores["probability"].to_numpy(), read_threshold(storage, number)


def read_threshold(storage: Storage, number: int) -> float:
    """The probability from which the version that scored a batch flags."""
    said = completed(storage, layout.manifest(layout.predictions(number)), SCORES)["result"]
    return kept_manifest(storage, read_ledger(storage).subject(said["version"]).bundle).threshold
