"""The cheap remedy: recalibrates an unchanged model to the newest outcomes."""

import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

from health_predict.adapters.registry import BUNDLE, PREPROCESSOR, Registry
from health_predict.adapters.training_runs import FAMILY, experiment, validation_metrics
from health_predict.bundle.export import bands, git_revision
from health_predict.bundle.model import MODEL, Bundle, Manifest, TableDigest, load_bundle, require_target, write_bundle
from health_predict.bundle.profile import read_reference
from health_predict.bundle.reference_encounter import reference_encounter
from health_predict.data.cohort import LabelledEncounters, label, outcome
from health_predict.data.splits import recalibration as divide
from health_predict.evaluation.metrics import evaluate
from health_predict.evaluation.operating_point import threshold_at
from health_predict.features.calibration import Calibration, log_odds
from health_predict.monitoring.reference import percentiles
from health_predict.params import Params
from health_predict.store import layout
from health_predict.store.batches import MATURES, matured
from health_predict.store.bundles import unpacked
from health_predict.store.datasets import Dataset, recalibration
from health_predict.store.follow_up import read_judgeable
from health_predict.store.holdouts import candidates, holdout_bytes, known
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.simulations import simulation_of
from health_predict.store.tables import json_bytes, keep_table, table_bytes
from health_predict.training.candidates import TITLES
from health_predict.training.fit import recalibration as fit
from health_predict.workspace import Workspace


@dataclass(frozen=True)
class Recalibrated:
    """`run_id` holds the new bundle, `recalibrated` is the run of the recalibrated version. Counts of encounters.

    `intercept` and `slope` are applied after the version's own calibration.
    """

    batch: int
    matured: int
    recalibrated: str
    run_id: str
    intercept: float
    slope: float
    validation: int
    test: int
    test_outcomes: int
    synthetic: bool
    skipped: bool = False

    @property
    def dataset(self) -> Dataset:
        return recalibration(self.batch)


@dataclass(frozen=True)
class _Renewed:
    """The new parts of a bundle, without those about its run."""

    calibration: Calibration  # applied after the previous one
    manifest: Manifest
    reference: bytes


def recalibrate(workspace: Workspace, params: Params, number: int, version: str) -> Recalibrated:
    """Recalibrate a version on a part of the newest encounters matured before batch `number`; the gate gets the rest.

    Both parts are fresh, as in `assemble`: neither the version nor the first approved model has seen them, and no
    earlier hold-out had them. Skipped when done with the same version, outcomes and parameters. Raises Declined where
    fewer encounters are fresh than the gate needs to decide, BundleError for a version of another outcome, DataError
    as `metrics.evaluate` does.
    """
    workspace = workspace.reading_once()
    storage = workspace.storage
    numbers = matured(storage, number)
    became = {one: completed(storage, layout.manifest(layout.outcomes(one)), MATURES) for one in numbers}
    choices = [asdict(choice) for choice in (params.assembly, params.gate, params.bundle, params.bootstrap)]
    inputs = {
        "version": version,
        "outcomes": {str(one): found["files"] for one, found in became.items()},
        "params": choices,
    }
    if any(one["result"].get("followed_up") for one in became.values()):
        inputs["follow_up"] = asdict(params.follow_up)
    manifest, dataset = layout.recalibration_manifest(number), recalibration(number)

    def make() -> Made[Recalibrated]:
        batches = [read_judgeable(storage, one, params.follow_up).encounters for one in numbers]
        holdout = layout.holdout(sha256(json_bytes(["recalibration", number, inputs])).hexdigest())
        held = candidates(batches, known(storage, version, own=(holdout,)), params)
        validation, test = divide(held, params.assembly, params.gate)
        files = {key: table_bytes(part, key) for key, part in ((dataset.validation, validation), (dataset.test, test))}
        files[holdout] = holdout_bytes(test, holdout)
        before = read_ledger(storage).version(version)
        with unpacked(storage, workspace.connect, before) as folder:
            bundle = load_bundle(folder)
            require_target(bundle.manifest)
            labelled, digest = label(validation, bundle.manifest.target), keep_table(storage, files[dataset.validation])
            table = TableDigest(dataset.validation, validation.height, int(labelled.outcomes.sum()), digest)
            renewed = _renew(bundle, folder, labelled, table, dataset.name, simulation_of(storage), params)
            run_id = _log(workspace.registry, before.run_id, folder, bundle, renewed)
        result = Recalibrated(
            batch=number,
            matured=numbers[-1],
            recalibrated=before.run_id,
            run_id=run_id,
            intercept=renewed.calibration.intercept,
            slope=renewed.calibration.slope,
            validation=validation.height,
            test=test.height,
            test_outcomes=int(outcome(test).sum()),
            synthetic=bundle.manifest.synthetic,
        )
        return Made(result, files)

    return rerunnable(storage, manifest, inputs, Recalibrated, make)


def _renew(
    bundle: Bundle,
    folder: Path,
    validation: LabelledEncounters,
    table: TableDigest,
    dataset: str,
    simulation: str | None,
    params: Params,
) -> _Renewed:
    before, old = bundle.predict_proba(validation.encounters), bundle.manifest
    calibration = fit(before, validation.outcomes, validation.patients, params.bootstrap, validation.represents)
    y_proba = calibration.apply(log_odds(before))
    threshold = threshold_at(old.capacity, y_proba, validation.represents)
    metrics = evaluate(
        validation.outcomes, y_proba, validation.patients, threshold, params.bootstrap, validation.represents
    )
    manifest = msgspec.structs.replace(
        old,
        dataset=dataset,
        simulation=simulation or old.simulation,
        lineage=[*old.lineage, old.run_id],
        threshold=threshold,
        calibration=old.calibration.then(calibration),
        bands=bands(y_proba, threshold, params.bundle),
        percentiles=percentiles(y_proba),
        trained_on=[*old.trained_on, table],
        metrics=validation_metrics(metrics),
        git_revision=git_revision(),
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    scores = {"scores": percentiles(y_proba), "scored": len(y_proba)}
    reference = msgspec.structs.replace(read_reference(folder), **scores)
    # The newest encounters may have another median than those that the patient was chosen for.
    compared_with = reference_encounter(replace(bundle, manifest=manifest), reference.fields, params.bundle)
    manifest = msgspec.structs.replace(manifest, reference_encounter=compared_with)
    return _Renewed(calibration, manifest, msgspec.json.encode(reference))


def _log(registry: Registry, before: str, folder: Path, bundle: Bundle, renewed: _Renewed) -> str:
    """Log a run with the new bundle, and the preprocessor and the model of the run `before`; returns its id."""
    manifest, name = renewed.manifest, experiment(registry.model_name)
    tags = {
        FAMILY: manifest.family,
        "health_predict.git_revision": manifest.git_revision,
        "health_predict.recalibrated_run_id": before,
    }
    registry.end_orphans(name)
    with (
        registry.run(name, f"Recalibrated_{TITLES[manifest.family]}_Model", tags) as run_id,
        tempfile.TemporaryDirectory() as scratch,
    ):
        for part in (Path(PREPROCESSOR).parent.as_posix(), "model"):
            registry.download(before, part, Path(scratch))
        manifest = msgspec.structs.replace(manifest, run_id=run_id)
        model = (folder / MODEL).read_bytes()
        write_bundle(Path(scratch) / BUNDLE, manifest, bundle.encoder, model, renewed.reference)
        digest = load_bundle(Path(scratch) / BUNDLE).sha256
        registry.log_folder(run_id, Path(scratch))
        registry.log(
            run_id,
            params={"family": manifest.family, **asdict(renewed.calibration), "threshold": manifest.threshold},
            metrics=manifest.metrics,
            tags={"health_predict.bundle_sha256": digest},
        )
    return run_id
