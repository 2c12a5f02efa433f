"""Assembles the data set of a retraining from all matured encounters."""

from dataclasses import asdict, dataclass
from hashlib import sha256

import polars as pl

from health_predict.data.cohort import outcome
from health_predict.data.follow_up import for_training
from health_predict.data.splits import retraining as divide
from health_predict.params import Params
from health_predict.store import layout
from health_predict.store.batches import MATURES, matured
from health_predict.store.datasets import INITIAL, Dataset, retraining, vouch
from health_predict.store.follow_up import read_judgeable, treated
from health_predict.store.holdouts import candidates, holdout_bytes, known
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.read_once import ReadOnce
from health_predict.store.storage import Storage
from health_predict.store.tables import json_bytes, read_json, read_table, table_bytes


@dataclass(frozen=True)
class Assembled:
    """Counts of encounters; `left_out` are other encounters of the patients in validation and test.

    `version` was in production: this version, the first approved model and the one to be trained on `train` and
    `validation` can be compared on `test`.
    """

    batch: int
    version: str | None
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


def assemble(storage: Storage, params: Params, number: int, version: str | None = None) -> Assembled:
    """Write train, validation and test data from the initial data and all batches before `number` that have matured.

    Test and validation are fresh: neither `version` (None: the one in production now) nor the first approved model has
    seen them, and no earlier hold-out had them. With the number that `store.batches.next_assembly` returns, all batches
    matured by now count. Skipped when done with the same batches, parameters and version. Raises Declined, with nothing
    written, where fewer encounters are fresh than the gate needs to decide; StorageError before `data split`.
    """
    storage = ReadOnce(storage)
    version = version or read_ledger(storage).production
    initial = vouch(storage, INITIAL)
    numbers = matured(storage, number)
    manifests = {one: completed(storage, layout.manifest(layout.outcomes(one)), MATURES) for one in numbers}
    inputs = {
        "initial": dict(initial.files),
        "outcomes": {str(one): manifest["files"] for one, manifest in manifests.items()},
        "version": version,
        "params": [asdict(params.assembly), asdict(params.gate)],
    }
    if any(manifest["result"].get("followed_up") for manifest in manifests.values()):
        inputs["follow_up"] = asdict(params.follow_up)
    manifest = layout.retraining_manifest(number)

    def make() -> Made[Assembled]:
        first = pl.concat([read_table(storage, key) for key in initial.files])
        became = [read_judgeable(storage, one, params.follow_up) for one in numbers]
        batches = [batch.encounters for batch in became]
        holdout = layout.holdout(sha256(json_bytes(["retraining", number, inputs])).hexdigest())
        earlier = _unasked(storage, number)
        held = candidates(batches, known(storage, version, own=(holdout, *earlier)), params)
        parts = divide([first, *batches], held, params.assembly, params.gate)
        train = for_training(parts.train, treated(became), params.follow_up)
        dataset = retraining(number)
        tables = {dataset.train: train, dataset.validation: parts.validation, dataset.test: parts.test}
        result = Assembled(
            batch=number,
            version=version,
            matured=tuple(numbers),
            train=parts.train.height,
            validation=parts.validation.height,
            test=parts.test.height,
            test_outcomes=int(outcome(parts.test).sum()),
            left_out=first.height + sum(map(len, batches)) - sum(table.height for table in tables.values()),
            synthetic=initial.synthetic,
        )
        files = {key: table_bytes(table, key) for key, table in tables.items()}
        files[holdout] = holdout_bytes(parts.test, holdout)
        for key in earlier:
            if key != holdout:
                storage.delete(key)
        return Made(result, files)

    return rerunnable(storage, manifest, inputs, Assembled, make)


def _unasked(storage: Storage, number: int) -> list[str]:
    """Keys of the hold-out of an earlier data set of this number, assembled before outcomes were corrected, if the
    gate compared no model on it: the new data set replaces it."""
    manifest, dataset = layout.retraining_manifest(number), retraining(number)
    if not storage.exists(manifest):
        return []
    files = read_json(storage, manifest)["files"]
    if files.get(dataset.test) in {question.holdout for question in read_ledger(storage).questions()}:
        return []
    return [key for key in files if key.startswith(layout.HOLDOUTS)]
