"""Writes the outcomes of a batch that has matured."""

from dataclasses import dataclass

import polars as pl

from health_predict.data.cohort import outcome, select_cohort
from health_predict.data.schema import OUTCOME
from health_predict.errors import DataError
from health_predict.params import ScenarioParams
from health_predict.simulation.scenarios import SCENARIOS, follow_up, inject
from health_predict.store import layout
from health_predict.store.batches import FOLLOWED_UP, UNTREATED, outcome_bytes
from health_predict.store.follow_up import read_risks
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.read_once import ReadOnce
from health_predict.store.replay import read_future
from health_predict.store.storage import Storage


@dataclass(frozen=True)
class Matured:
    """Counts of the batch's encounters, of readmissions within 30 days, and of encounters with follow-up."""

    batch: int
    rows: int
    readmitted: int
    skipped: bool = False
    followed_up: int = 0


def mature(storage: Storage, number: int) -> Matured:
    """Write the outcomes of a batch that has arrived, under the scenario of its arrival.

    Under a scenario with follow-up, a random share of the encounters that the batch's predictions flagged is followed
    up; the outcomes without follow-up are written too. Skipped when already written. Raises StorageError before the
    batch arrived, DataError when it was refused.
    """
    storage = ReadOnce(storage)
    key = layout.outcomes(number)
    arrived = completed(storage, layout.manifest(layout.arrival(number)), "simulate")
    if arrived["result"]["refused"]:
        raise DataError(f"batch {number} was refused, so nothing can become known of it")
    inputs = {"arrival": arrived["inputs"]}

    def make() -> Made[Matured]:
        how = arrived["inputs"]
        params = ScenarioParams(**how["params"])
        encounters = select_cohort(inject(how["scenario"], read_future(storage, number), how["elapsed"], params))
        outcomes, followed_up = encounters.select("encounter_id", OUTCOME), 0
        if SCENARIOS[how["scenario"]].follow_up:
            risks, threshold = read_risks(storage, number, encounters["encounter_id"])
            cared, became = follow_up(outcomes[OUTCOME], risks >= threshold, how["elapsed"], params)
            followed_up = int(cared.sum())
            untreated = outcomes[OUTCOME].alias(UNTREATED)
            outcomes = outcomes.with_columns(became, pl.Series(FOLLOWED_UP, cared), untreated)
        result = Matured(number, outcomes.height, int(outcome(outcomes).sum()), followed_up=followed_up)
        return Made(result, {key: outcome_bytes(outcomes, key)})

    return rerunnable(storage, layout.manifest(key), inputs, Matured, make)
