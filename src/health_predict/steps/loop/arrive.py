"""Writes the arrival of a replayed batch: its encounters, without their outcomes."""

from dataclasses import asdict
from typing import Any

import polars as pl

from health_predict.data.cohort import select_cohort
from health_predict.errors import DataError
from health_predict.params import ScenarioParams
from health_predict.simulation.scenarios import inject
from health_predict.store import layout
from health_predict.store.batches import Arrival, arrival_bytes
from health_predict.store.manifests import Made, rerunnable
from health_predict.store.read_once import ReadOnce
from health_predict.store.replay import future_batches, read_future
from health_predict.store.storage import Storage


def arrive(storage: Storage, params: ScenarioParams, number: int, scenario: str, from_batch: int) -> Arrival:
    """Take in the cohort of batch `number`, with the scenario applied from batch `from_batch` on.

    A batch that does not fit the schema is recorded as refused, with the offending columns, and none of its rows is
    kept. Skipped when the same batch has arrived. Raises DataError for an unknown batch or scenario, StorageError for
    a batch that was altered.
    """
    storage = ReadOnce(storage)
    key, name = layout.arrival(number), "none" if number < from_batch else scenario
    elapsed = max(number - from_batch, 0)
    inputs = {
        "batch": future_batches(storage).get(number),
        "scenario": name,
        "elapsed": elapsed,
        "params": asdict(params),
    }

    def make() -> Made[Arrival]:
        encounters = inject(name, read_future(storage, number), elapsed, params)
        return Made(*_checked(encounters, number, key))

    return rerunnable(storage, layout.manifest(key), inputs, Arrival, make)


def _checked(encounters: pl.DataFrame, number: int, key: str) -> tuple[Arrival, dict[str, Any]]:
    try:
        arrival_bytes(encounters, key)  # the whole batch: without the schema's columns its cohort cannot be selected
    except DataError as error:
        return Arrival(number, 0, str(error)), {}
    cohort = select_cohort(encounters)
    arrival = Arrival(number, cohort.height, None, encounters.height - cohort.height)
    return arrival, {key: arrival_bytes(cohort, key)}
