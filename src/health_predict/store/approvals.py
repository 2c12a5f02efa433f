"""How good a version was when the gate let it in."""

from dataclasses import replace

from health_predict.errors import StorageError
from health_predict.evaluation.metrics import Metrics
from health_predict.store import layout
from health_predict.store.ledger import Version
from health_predict.store.reports import read_evaluation
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json


def trained_in(storage: Storage, run_id: str) -> str:
    """The run in which a run's model was trained: an earlier one, where this one only calibrated the model anew."""
    manifests = [key for key in storage.list(layout.RECALIBRATIONS) if key.endswith(".json")]
    results = [read_json(storage, key)["result"] for key in manifests]
    before = {result["run_id"]: result["recalibrated"] for result in results}
    while run_id in before:
        run_id = before[run_id]
    return run_id


def approved(storage: Storage, version: Version) -> Metrics:
    """Metrics of a version on the hold-out that it was promoted on; StorageError where it has no evaluation.

    A recalibrated version has the AUROC of the model that it comes from: a recalibration keeps the order of risks, and
    an AUROC that had fallen by then must not become the standard.
    """
    evaluation = read_evaluation(storage, version.run_id)
    trained = read_evaluation(storage, trained_in(storage, version.run_id))
    if evaluation is None or trained is None:
        raise StorageError(
            f"version {version.version} has no evaluation in {storage.root} to compare with; run `health-predict "
            f"evaluate {version.run_id}`"
        )
    return replace(evaluation.comparison.challenger, auroc=trained.comparison.challenger.auroc)
