"""`health-predict evaluate`: the challenger beside the champion on encounters that neither was trained on."""

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import polars as pl

from health_predict.data.cohort import LabelledEncounters
from health_predict.errors import ConflictError, DataError
from health_predict.evaluation.gate import Scores, checks, compare_models
from health_predict.io.bundle import Bundle, load_bundle
from health_predict.io.datasets import Dataset, named, read_part, vouch
from health_predict.io.ledger import Ledger, read_ledger
from health_predict.io.registry import BUNDLE, Registry
from health_predict.io.reports import EvaluationReport, read_evaluation, read_training, write_evaluation
from health_predict.io.storage import Storage
from health_predict.io.tables import parse_table
from health_predict.io.training_runs import log_evaluation
from health_predict.params import Params


def evaluate(
    storage: Storage, registry: Registry, params: Params, run_id: str | None, dataset: Dataset | None = None
) -> EvaluationReport:
    """Compare a run's model with production on a data set's test part.

    Without a run it is the newest training's winner, without a data set the one that its bundle names. Skipped when
    the same models were compared on the same data by the same rules. The evaluation that a run was promoted on is
    never replaced: it is what monitoring compares with. Raises StorageError before `train`, BundleError when a bundle
    is not whole, DataError when it cannot be known what a model was trained on, ConflictError for a run that was
    promoted against another version than is in production now.
    """
    run_id = run_id or read_training(storage).winner
    ledger = read_ledger(storage)
    report = read_evaluation(storage, run_id)
    if report and _was_promoted(ledger, run_id):
        return _approved(registry, ledger, report)
    challenger = _bundle(registry, run_id)
    dataset = dataset or named(challenger.manifest.dataset)
    vouched = vouch(storage, dataset)
    made_from = {"test": vouched.files[dataset.test], "rules": repr((params.gate, params.bootstrap))}
    if report and report.comparison.fingerprints == made_from and report.champion == ledger.production:
        return replace(report, skipped=True)
    champion = _version_bundle(registry, ledger.production)
    first = _version_bundle(registry, ledger.first.production if ledger.first else None)
    data, _ = read_part(storage, vouched, dataset.test, challenger.manifest.target)
    comparison = compare_models(
        data.encounters,
        data.outcomes,
        _scores(run_id, challenger, data),
        champion=champion and _scores(*champion, data),
        first=first and _scores(*first, data),
        trained_on=_trained_on(storage, [challenger, *(version[1] for version in (champion, first) if version)]),
        fingerprints=made_from,
        gate=params.gate,
        bootstrap=params.bootstrap,
    )
    report = EvaluationReport(
        run_id=run_id,
        family=challenger.manifest.family,
        champion=ledger.production,
        synthetic=challenger.manifest.synthetic,
        comparison=comparison,
        checks=tuple(checks(comparison, params.gate)),
    )
    log_evaluation(registry, report)  # first: what is in the store is not made again
    write_evaluation(storage, report)
    return report


def _was_promoted(ledger: Ledger, run_id: str) -> bool:
    return any(entry.run_id == run_id and entry.decision == "promoted" for entry in ledger.entries)


def _approved(registry: Registry, ledger: Ledger, report: EvaluationReport) -> EvaluationReport:
    """The evaluation that a run was promoted on, if the run is in production or could be promoted on it again."""
    serving = registry.version(ledger.production).run_id if ledger.production else None
    if report.run_id != serving and report.champion != ledger.production:
        raise ConflictError(
            f"the run {report.run_id} was promoted before, against version {report.champion}, and that evaluation is "
            f"kept; production is {ledger.production} now. Run `health-predict rollback` to go back to the version "
            "before, or train anew"
        )
    return replace(report, skipped=True)


def _bundle(registry: Registry, run_id: str) -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        return load_bundle(registry.download(run_id, BUNDLE, Path(folder)))


def _version_bundle(registry: Registry, version: str | None) -> tuple[str, Bundle] | None:
    return (version, _bundle(registry, registry.version(version).run_id)) if version else None


def _scores(version: str, bundle: Bundle, data: LabelledEncounters) -> Scores:
    return Scores(version, bundle.predict_proba(data.encounters), bundle.manifest.threshold)


def _trained_on(storage: Storage, bundles: Iterable[Bundle]) -> pl.Series:
    """Ids of all encounters that any of the models has seen; the tables have to be the ones it saw."""
    tables = {table.key: table for bundle in bundles for table in bundle.manifest.trained_on}
    digests = {(table.key, table.sha256) for bundle in bundles for table in bundle.manifest.trained_on}
    ids = []
    for key in tables:
        content = storage.read(key)
        if {(key, hashlib.sha256(content).hexdigest())} != {pair for pair in digests if pair[0] == key}:
            raise DataError(
                f"{storage.path(key)} is not the table that the models were trained on, so it cannot be known which "
                "encounters they have seen; train again"
            )
        ids.append(parse_table(content, key)["encounter_id"])
    return pl.concat(ids)
