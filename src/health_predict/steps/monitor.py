"""`health-predict monitor`: has the data moved, have the scores, and is the model still as good as when approved?"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from health_predict.data.cohort import LabelledEncounters, outcome
from health_predict.errors import ConflictError, DataError, StorageError
from health_predict.io import layout
from health_predict.io.bundle import Bundle, load_bundle
from health_predict.io.ledger import read_ledger
from health_predict.io.manifests import completed, finished, publish
from health_predict.io.monitoring_reports import MonitoringReport, log_monitoring, read_monitoring
from health_predict.io.places import shown
from health_predict.io.registry import Registry, Version
from health_predict.io.replay import (
    ARRIVAL,
    matured,
    read_arrival,
    read_file,
    read_logged,
    read_matured,
    read_outcomes,
    read_predictions,
    read_reference,
    scored,
    trained_in,
)
from health_predict.io.reports import read_evaluation
from health_predict.io.storage import Storage
from health_predict.io.tables import json_bytes, parse_table
from health_predict.monitoring.drift import field_drift
from health_predict.monitoring.performance import Performance, performance, prediction_drift
from health_predict.monitoring.reference import Reference, profile, value_counts
from health_predict.monitoring.report import html
from health_predict.monitoring.separation import separation
from health_predict.params import Params


@dataclass(frozen=True)
class _Against:
    """What a batch is compared with."""

    version: str
    bundle: Bundle
    reference: Reference
    encounters: pl.DataFrame


@dataclass(frozen=True)
class _Realised:
    """What became of the newest matured batch (None: of the file's encounters)."""

    batch: int | None
    version: str
    found: Performance


def monitor(storage: Storage, registry: Registry, cache: Path, params: Params, number: int) -> MonitoringReport:
    """Judge a batch that has arrived under the version in production, and the newest batch that has matured.

    Writes `drift.json` and `report.html`, and logs the numbers to MLflow. Skipped when it was judged, whatever is in
    production now. Raises what keeps a check from running: StorageError before the batch arrived, ConflictError with
    nothing in production, DataError with too few encounters.
    """
    name = layout.batch(number)
    arrived = completed(storage, layout.manifest(layout.arrival(number)), "simulate")
    known = [one for one in matured(storage, number) if one in scored(storage, number)]
    inputs = {"arrival": arrived["files"], "matured": known[-1] if known else None, "params": _choices(params)}
    if finished(storage, layout.drift_manifest(name), inputs):
        return replace(read_monitoring(storage, name), skipped=True)
    if arrived["result"]["refused"]:
        raise DataError(f"batch {number} was refused and cannot be judged: {arrived['result']['refused']}")
    against = _champion(storage, registry, cache)
    realised = _realised(storage, registry, cache, params, known[-1]) if known else None
    encounters = read_arrival(storage, number)
    report = _judge(name, number, encounters, against, realised, params)
    _write(storage, registry, params, report, inputs, encounters, against)
    return report


def monitor_file(
    storage: Storage,
    registry: Registry,
    cache: Path,
    params: Params,
    current: str,
    reference: str | None = None,
    outcomes: str | None = None,
    endpoint: str | None = None,
) -> MonitoringReport:
    """As `monitor`, for a file of encounters, against another file or what production was trained on.

    `outcomes` names a file with what became of some of them (`read_outcomes`). The report is named after the file and
    the content of all three.
    """
    encounters = read_file(current, endpoint)
    others = read_file(reference, endpoint) if reference else None
    became = read_outcomes(outcomes, endpoint) if outcomes else None
    against = _champion(storage, registry, cache)
    if others is not None:
        against = _with_reference(against, others, params)
    realised = None if became is None else _became(storage, registry, against, encounters, became, params)
    name = layout.judged_file(Path(shown(current)).stem, _digest(encounters, others, became))
    report = _judge(name, None, encounters, against, realised, params)
    files = {"current": current, "reference": reference, "outcomes": outcomes}
    inputs = {**files, "version": against.version, "params": _choices(params)}
    _write(storage, registry, params, report, inputs, encounters, against)
    return report


def monitor_logged(
    storage: Storage, registry: Registry, cache: Path, params: Params, store: Storage, day: str
) -> MonitoringReport:
    """As `monitor`, for what the service scored on a day, from the prediction log in `store`.

    The encounters are judged by the version in production, whichever answered. The report is named after the day and
    what was logged until now.
    """
    encounters = read_logged(store, day)
    against = _champion(storage, registry, cache)
    name = layout.judged_file(f"logged-{day}", _digest(encounters))
    report = _judge(name, None, encounters, against, None, params)
    inputs = {"logged": day, "version": against.version, "params": _choices(params)}
    _write(storage, registry, params, report, inputs, encounters, against)
    return report


def _judge(
    name: str,
    number: int | None,
    encounters: pl.DataFrame,
    against: _Against,
    realised: _Realised | None,
    params: Params,
) -> MonitoringReport:
    scores, manifest = against.bundle.predict_proba(encounters), against.bundle.manifest
    drift = field_drift(against.reference, value_counts(encounters), params.drift)
    apart = separation(against.encounters, encounters, params.drift)
    moved = prediction_drift(against.reference, scores, manifest.threshold, params.performance, params.drift)
    about = f"Batch {realised.batch}: " if realised and realised.batch else ""
    became = [f"{about}{reason}" for reason in realised.found.reasons] if realised else []
    reasons = (*drift.reasons, *apart.reasons, *moved.reasons, *became)
    return MonitoringReport(
        name=name,
        status="DRIFT_DETECTED" if reasons else "NO_DRIFT",
        reasons=reasons,
        batch=number,
        version=against.version,
        synthetic=manifest.synthetic,
        drift=drift,
        separation=apart,
        predictions=moved,
        matured_batch=realised.batch if realised else None,
        matured_version=realised.version if realised else None,
        performance=realised.found if realised else None,
    )


def _champion(storage: Storage, registry: Registry, cache: Path) -> _Against:
    version = read_ledger(storage).production
    if version is None:
        raise ConflictError("nothing is in production to watch; run `health-predict promote` first")
    folder = registry.fetch_bundle(registry.version(version), cache)
    bundle = load_bundle(folder)
    return _Against(version, bundle, read_reference(folder), _trained_on(storage, bundle))


def _trained_on(storage: Storage, bundle: Bundle) -> pl.DataFrame:
    """The encounters that a model was fitted on: the first table that its bundle names."""
    table = bundle.manifest.trained_on[0]
    content = storage.read(table.key)
    if hashlib.sha256(content).hexdigest() != table.sha256:
        raise DataError(
            f"{storage.path(table.key)} is not the table that the model in production was trained on, so a batch "
            "cannot be compared with it; train again"
        )
    return parse_table(content, table.key).select(*ARRIVAL)


def _with_reference(against: _Against, encounters: pl.DataFrame, params: Params) -> _Against:
    unknown = LabelledEncounters(encounters, np.zeros(len(encounters), dtype=np.bool_))
    scores = against.bundle.predict_proba(encounters)
    found = profile(unknown, scores, against.reference.importance, params.drift)
    return replace(against, reference=found, encounters=encounters)


def _realised(storage: Storage, registry: Registry, cache: Path, params: Params, number: int) -> _Realised:
    """How good the version that scored a batch was on it, against when that version was approved."""
    said, became = read_predictions(storage, number), read_matured(storage, number)
    version = registry.version(said["version"][0])
    joined = became.join(said.select("encounter_id", "probability"), on="encounter_id", maintain_order="left")
    bundle = load_bundle(registry.fetch_bundle(version, cache))
    return _Realised(number, version.version, _measured(storage, version, bundle, joined, params))


def _became(
    storage: Storage,
    registry: Registry,
    against: _Against,
    encounters: pl.DataFrame,
    outcomes: pl.DataFrame,
    params: Params,
) -> _Realised:
    """How good production is on those encounters of a file whose outcomes are known."""
    scored = encounters.with_columns(probability=against.bundle.predict_proba(encounters))
    joined = scored.join(outcomes, on="encounter_id", maintain_order="left")
    if joined.height != outcomes.height:
        raise DataError(
            f"{outcomes.height} outcomes were given, and the file of encounters has {joined.height} with their "
            "encounter_id; each has to be there once"
        )
    version = registry.version(against.version)
    return _Realised(None, against.version, _measured(storage, version, against.bundle, joined, params))


def _measured(storage: Storage, version: Version, bundle: Bundle, became: pl.DataFrame, params: Params) -> Performance:
    """Encounters with their outcome and the `probability` that a version gave, against when it was approved."""
    evaluation = read_evaluation(storage, version.run_id)
    trained = read_evaluation(storage, trained_in(storage, version.run_id))
    if evaluation is None or trained is None:
        raise StorageError(
            f"version {version.version} has no evaluation in {storage.root} to compare with; run `health-predict "
            f"evaluate {version.run_id}`"
        )
    # A new calibration keeps the order of risks: what AUROC had been lost before it must not become the standard.
    reference = replace(evaluation.comparison.challenger, auroc=trained.comparison.challenger.auroc)
    return performance(
        outcome(became, bundle.manifest.target),
        became["probability"].to_numpy(),
        became["patient_nbr"].to_numpy(),
        reference,
        params.performance,
        params.bootstrap,
    )


def _write(
    storage: Storage,
    registry: Registry,
    params: Params,
    report: MonitoringReport,
    inputs: Mapping[str, object],
    encounters: pl.DataFrame,
    against: _Against,
) -> None:
    files = {
        layout.drift_numbers(report.name): json_bytes(msgspec.to_builtins(report)),
        layout.drift_report(report.name): html(against.encounters, encounters, params.drift),
    }
    log_monitoring(registry, report)
    result = {"status": report.status, "reasons": list(report.reasons)}
    publish(storage, layout.drift_manifest(report.name), inputs=inputs, files=files, result=result)


def _digest(*tables: pl.DataFrame | None) -> str:
    """SHA-256 of tables' content."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(b"-" if table is None else table.write_csv().encode())
    return digest.hexdigest()


def _choices(params: Params) -> dict[str, object]:
    return {
        "drift": asdict(params.drift),
        "performance": asdict(params.performance),
        "bootstrap": asdict(params.bootstrap),
    }
