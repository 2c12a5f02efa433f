"""Time passes: what became of a batch's encounters is known."""

from dataclasses import dataclass

from health_predict.data.cohort import outcome, select_cohort
from health_predict.data.schema import OUTCOME
from health_predict.errors import DataError
from health_predict.params import ScenarioParams
from health_predict.simulation.scenarios import inject
from health_predict.store import layout
from health_predict.store.batches import OUTCOMES, parquet
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.read_once import ReadOnce
from health_predict.store.replay import read_future
from health_predict.store.storage import Storage


@dataclass(frozen=True)
class Matured:
    """Encounters of the batch, and how many of them were readmitted within 30 days."""

    batch: int
    rows: int
    readmitted: int
    skipped: bool = False


def mature(storage: Storage, number: int) -> Matured:
    """Write the outcomes of a batch that has arrived, under the scenario it arrived under.

    Skipped when they are there. Raises StorageError before the batch arrived, DataError when it was refused.
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
        result = Matured(number, encounters.height, int(outcome(encounters).sum()))
        files = {key: parquet(encounters.select("encounter_id", OUTCOME), OUTCOMES, key)}
        return Made(result, files)

    return rerunnable(storage, layout.manifest(key), inputs, Matured, make)
