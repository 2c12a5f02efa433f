"""Everything that has matured becomes the data set of a retraining."""

from dataclasses import asdict, dataclass

import polars as pl

from health_predict.data.cohort import outcome
from health_predict.data.splits import retraining as divide
from health_predict.io import layout
from health_predict.io.datasets import INITIAL, Dataset, retraining, vouch
from health_predict.io.manifests import completed, finished, publish
from health_predict.io.replay import matured, read_matured
from health_predict.io.storage import Storage
from health_predict.io.tables import read_table, table_bytes
from health_predict.params import AssemblyParams


@dataclass(frozen=True)
class Assembled:
    """Counts of encounters; `left_out` are other encounters of the patients in validation and test."""

    batch: int
    matured: tuple[int, ...]
    train: int
    validation: int
    test: int
    test_outcomes: int
    left_out: int
    synthetic: bool
    skipped: bool = False

    @property
    def dataset(self) -> Dataset:
        return retraining(self.batch)


def assemble(storage: Storage, params: AssemblyParams, number: int) -> Assembled:
    """Write train, validation and test data from the initial data and all batches before `number` that have matured.

    Skipped when it was done with the same batches and parameters. Raises StorageError before `data split`, DataError
    where no batch has matured.
    """
    initial = vouch(storage, INITIAL)
    numbers = matured(storage, number)
    manifests = {one: completed(storage, layout.manifest(layout.outcomes(one)), "simulate") for one in numbers}
    inputs = {
        "initial": dict(initial.files),
        "outcomes": {str(one): manifest["files"] for one, manifest in manifests.items()},
        "params": asdict(params),
    }
    manifest = layout.retraining_manifest(number)
    done = finished(storage, manifest, inputs)
    if done:
        return Assembled(**{**done, "matured": tuple(done["matured"]), "skipped": True})
    first = pl.concat([read_table(storage, key) for key in initial.files])
    batches = [read_matured(storage, one) for one in numbers]
    parts = divide([first, *batches], params)
    dataset = retraining(number)
    tables = {dataset.train: parts.train, dataset.validation: parts.validation, dataset.test: parts.test}
    result = Assembled(
        batch=number,
        matured=tuple(numbers),
        train=parts.train.height,
        validation=parts.validation.height,
        test=parts.test.height,
        test_outcomes=int(outcome(parts.test).sum()),
        left_out=first.height + sum(map(len, batches)) - sum(table.height for table in tables.values()),
        synthetic=initial.synthetic,
    )
    files = {key: table_bytes(table, key) for key, table in tables.items()}
    publish(storage, manifest, inputs=inputs, files=files, result=asdict(result))
    return result
