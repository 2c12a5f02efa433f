"""`health-predict train`: tunes the families, fits the best of each, logs all runs, names the winner."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict import __version__
from health_predict.adapters.registry import Registry
from health_predict.adapters.training_runs import FINGERPRINT, WINNER, experiment, log_best, log_search, parent_run
from health_predict.bundle.export import Provenance, git_revision
from health_predict.bundle.model import FORMAT
from health_predict.data.cohort import LabelledEncounters
from health_predict.data.splits import supply
from health_predict.errors import Declined
from health_predict.evaluation.metrics import Measurement, compare
from health_predict.params import LIVE_TARGET, BootstrapParams, Family, GateParams, Params, Target
from health_predict.store.bundles import kept_manifest
from health_predict.store.datasets import INITIAL, Dataset, Vouched, read_part, vouch
from health_predict.store.holdouts import asked_before, seen_in_production
from health_predict.store.ledger import read_ledger
from health_predict.store.reports import BestModel, TrainingReport, finished_training, write_training
from health_predict.store.simulations import simulation_of
from health_predict.store.storage import Storage
from health_predict.store.tables import json_bytes, keep_table, read_table
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import Fitted, Prepared, fit, prepare
from health_predict.training.search import Search, Trial, only_trial
from health_predict.workspace import Workspace


@dataclass(frozen=True)
class Progress:
    """Callbacks for an ended trial and for a finished family."""

    trial: Callable[[Family, Trial], None]
    model: Callable[[BestModel], None]


@dataclass(frozen=True)
class _Data:
    train: LabelledEncounters
    validation: LabelledEncounters
    provenance: Provenance


def train(
    workspace: Workspace,
    params: Params,
    target: Target,
    ray_address: str | None,
    progress: Progress,
    force: bool = False,
    dataset: Dataset = INITIAL,
    capacity: float | None = None,
) -> TrainingReport:
    """Tune and fit the families on a data set, and name the best.

    `capacity` None: that of the version in production, and of `params` before the first.

    The training tables are kept by content, where the gate finds them as long as a model may be in production. Skipped
    when a training with the same data, parameters and target is finished, unless `force`. Raises StorageError before
    the data set is made, Declined where no model of the data set could be compared with production, TrackingError when
    MLflow does not answer, BundleError when production's bundle is damaged, or when an exported model's scores differ
    from the fitted one's.
    """
    workspace = workspace.reading_once()
    storage = workspace.storage
    params = replace(params, search=replace(params.search, families=params.search.families or tuple(CANDIDATES)))
    params = _carried(storage, params, capacity)
    vouched = vouch(storage, dataset)
    # Also where training is skipped: a table may have been lost.
    for key in (dataset.train, dataset.validation, dataset.test):
        keep_table(storage, storage.read(key))
    fingerprint = _fingerprint(vouched, params, target)
    if not force and (done := _finished(workspace, fingerprint)):
        return done
    if target == LIVE_TARGET:
        _require_holdout(storage, vouched, params.gate)
    data = _read(storage, vouched, params, target)
    with parent_run(workspace.registry, fingerprint, {"target": target, **asdict(params.search)}) as run_id:
        searches, models = _search_and_fit(workspace.registry, run_id, data, params, ray_address, progress)
        report = _report(run_id, fingerprint, data.provenance, searches, models)
        workspace.registry.log(run_id, tags={WINNER: report.winner})
    write_training(storage, report)
    return report


def _carried(storage: Storage, params: Params, capacity: float | None) -> Params:
    """The parameters, with what they leave open as for the model in production, if there is one."""
    ledger, excluded = read_ledger(storage), params.preprocessor.exclude
    if ledger.production and (capacity is None or excluded is None):
        before = kept_manifest(storage, ledger.subject(ledger.production).bundle)
        capacity = before.capacity if capacity is None else capacity
        excluded = tuple(before.excluded) if excluded is None else excluded
    return replace(
        params,
        preprocessor=replace(params.preprocessor, exclude=excluded or ()),
        bundle=params.bundle if capacity is None else replace(params.bundle, capacity=capacity),
    )


def _search_and_fit(
    registry: Registry, run_id: str, data: _Data, params: Params, ray_address: str | None, progress: Progress
) -> tuple[list[Search], list[BestModel]]:
    families = params.search.families
    prepared = {
        encoding: prepare(encoding, data.train, data.validation, params.preprocessor)
        for encoding in sorted({CANDIDATES[family].encoding for family in families})
    }
    by_family = {family: prepared[CANDIDATES[family].encoding] for family in families}
    searches, models, risks = [], [], []
    for found, fitted in _fitted(by_family, params, ray_address, progress):
        log_search(registry, run_id, found)
        best = log_best(registry, run_id, fitted, data.train, data.validation, data.provenance, params)
        progress.model(best)
        searches.append(found)
        models.append(best)
        risks.append(fitted.predict_proba(data.validation.encounters))
    return searches, _behind(models, risks, data.validation, params.bootstrap)


def _behind(
    models: Sequence[BestModel],
    risks: Sequence[NDArray[np.float64]],
    validation: LabelledEncounters,
    bootstrap: BootstrapParams,
) -> list[BestModel]:
    """The models with how far each is behind the one with the lowest Brier score, on resamples of patients."""
    winner = min(range(len(models)), key=lambda place: models[place].metrics.brier.estimate)

    def behind(y_proba: NDArray[np.float64]) -> Measurement:
        data = validation.outcomes, y_proba, risks[winner], validation.patients
        return compare(*data, bootstrap, validation.represents).brier

    return [
        model if place == winner else replace(model, brier_behind=behind(y_proba))
        for place, (model, y_proba) in enumerate(zip(models, risks, strict=True))
    ]


def _fitted(
    by_family: Mapping[Family, Prepared], params: Params, ray_address: str | None, progress: Progress
) -> Iterator[tuple[Search, Fitted]]:
    """Each family's search with its best configuration fitted. For a single trial no cluster is started."""
    capacity = params.bundle.capacity
    if params.search.trials == 1 and ray_address is None:
        for family, prepared in by_family.items():
            yield only_trial(family, prepared, params.search, capacity, progress.trial)
        return
    from health_predict.adapters.ray_cluster import cluster  # noqa: PLC0415  (a second to import)
    from health_predict.adapters.ray_search import search  # noqa: PLC0415

    with cluster(ray_address):
        folds = {family: prepared.fold for family, prepared in by_family.items()}
        for found in search(folds, params.search, progress.trial):
            yield found, fit(found.family, found.best.config, by_family[found.family], params.search, capacity)


def _read(storage: Storage, vouched: Vouched, params: Params, target: Target) -> _Data:
    train, trained = read_part(storage, vouched, vouched.dataset.train, target)
    validation, validated = read_part(storage, vouched, vouched.dataset.validation, target)
    provenance = Provenance(
        run_id="",
        dataset=vouched.dataset.name,
        target=target,
        trained_on=(trained, validated),
        synthetic=vouched.synthetic,
        simulation=simulation_of(storage),
        git_revision=git_revision(),
        seed=params.search.seed,
    )
    return _Data(train, validation, provenance)


def _fingerprint(vouched: Vouched, params: Params, target: Target) -> str:
    what = {
        "data": [vouched.files[key] for key in (vouched.dataset.train, vouched.dataset.validation)],
        "target": target,
        "preprocessor": asdict(params.preprocessor),
        "search": asdict(params.search),
        "bundle": asdict(params.bundle),
        "version": [__version__, FORMAT],
    }
    return hashlib.sha256(json_bytes(what)).hexdigest()


def _require_holdout(storage: Storage, vouched: Vouched, gate: GateParams) -> None:
    """Raise Declined, before training, where too few encounters are unseen by production for the gate to decide."""
    ledger = read_ledger(storage)
    if not ledger.moved:
        return
    test = read_table(storage, vouched.dataset.test)
    unseen = test.filter(~pl.col("encounter_id").is_in(seen_in_production(storage, ledger.production).implode()))
    enough = supply(unseen)
    reasons = []
    if asked_before(storage, ledger.questions(), test["encounter_id"]) >= gate.max_looks:
        reasons.append(
            f"The encounters set aside for the comparison were asked {gate.max_looks} times already, and chance would "
            "decide; a fresh hold-out comes with outcomes that mature (docs/gate.md)."
        )
    if enough.rows < gate.min_rows or enough.outcomes < gate.min_outcomes:
        reasons.append(
            f"Of the {test.height} encounters set aside for the comparison, {enough.rows} with {enough.outcomes} "
            f"readmissions were not seen by the models in production; {gate.min_rows} and {gate.min_outcomes} are "
            "needed. Wait until more outcomes have matured: a training sets aside what production has not seen."
        )
    if reasons:
        raise Declined(
            f"a model trained on {vouched.dataset.name} could not be compared with version {ledger.production}:",
            reasons,
        )


def _finished(workspace: Workspace, fingerprint: str) -> TrainingReport | None:
    """The report of the same training, if MLflow still has its runs; makes it the newest again."""
    report = finished_training(workspace.storage, fingerprint)
    if report is None:
        return None
    runs = workspace.registry.finished_runs(experiment(workspace.registry.model_name), {FINGERPRINT: fingerprint})
    if report.run_id not in [run.info.run_id for run in runs]:
        return None
    write_training(workspace.storage, report)
    return replace(report, skipped=True)


def _report(
    run_id: str, fingerprint: str, provenance: Provenance, searches: list[Search], models: list[BestModel]
) -> TrainingReport:
    # A proper score: it rewards both discrimination and calibration.
    ranked = sorted(models, key=lambda model: model.metrics.brier.estimate)
    trials = [trial for found in searches for trial in found.trials]
    stopped_at = Counter(len(trial.auroc) for trial in trials if trial.stopped)
    return TrainingReport(
        run_id=run_id,
        dataset=provenance.dataset,
        fingerprint=fingerprint,
        target=provenance.target,
        synthetic=provenance.synthetic,
        simulation=provenance.simulation,
        models=tuple(ranked),
        winner=ranked[0].run_id,
        trials=len(trials),
        stopped=stopped_at.total(),
        stopped_at={str(step): count for step, count in sorted(stopped_at.items())},
    )
