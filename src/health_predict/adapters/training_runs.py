"""MLflow runs of a training: a parent run, a nested run for each trial, one `Best_<Family>_Model` per family."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import joblib
import msgspec
import numpy as np
from numpy.typing import NDArray

from health_predict.adapters.registry import BUNDLE, EVALUATION, PREPROCESSOR, Registry
from health_predict.bundle.export import Provenance, export
from health_predict.bundle.model import Bundle
from health_predict.data.cohort import LabelledEncounters
from health_predict.evaluation.metrics import Metrics, evaluate
from health_predict.params import FigureParams, Params
from health_predict.reports.figures import quality_figures
from health_predict.store.reports import BestModel, EvaluationReport
from health_predict.store.tables import json_bytes
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import Fitted, cross_calibrated, importance
from health_predict.training.search import METRIC, Search, Trial

FINGERPRINT = "health_predict.fingerprint"
WINNER = "health_predict.winner_run_id"
FAMILY = "health_predict.family"


def experiment(model_name: str) -> str:
    """Name of the experiment that holds a registered model's trainings."""
    return f"{model_name}_Training"


@contextmanager
def parent_run(registry: Registry, fingerprint: str, params: Mapping[str, object]) -> Iterator[str]:
    """Yield the id of the parent run of a training. Closes runs that a killed training left open on this host."""
    name = experiment(registry.model_name)
    registry.end_orphans(name)
    with registry.run(name, "Training", {FINGERPRINT: fingerprint}) as run_id:
        registry.log(run_id, params=params)
        yield run_id


def log_search(registry: Registry, parent: str, search: Search) -> None:
    """Log a nested run for every trial, with its configuration and AUROC by step, and ASHA's stops on the parent."""
    name = experiment(registry.model_name)
    for trial in search.trials:
        run_name = f"{search.family} trial {trial.number}"
        with registry.run(name, run_name, {FAMILY: search.family}, parent=parent) as run_id:
            registry.log(run_id, trial.config, {"seconds": trial.seconds}, {METRIC: trial.auroc}, _stop(trial))
    rungs = {f"{search.family}_stopped_at_step_{step}": float(n) for step, n in search.stopped_at.items()}
    registry.log(parent, metrics={f"{search.family}_stopped_share": search.stopped_share, **rungs})


def log_best(
    registry: Registry,
    parent: str,
    fitted: Fitted,
    train: LabelledEncounters,
    validation: LabelledEncounters,
    provenance: Provenance,
    params: Params,
) -> BestModel:
    """Measure a fitted model on the validation encounters, export its bundle, and log both in one run.

    Raises BundleError when the exported model's scores differ from the fitted model's.
    """
    title = CANDIDATES[fitted.family].title
    judged = validation.judgeable
    y_proba = fitted.predict_proba(judged.encounters)
    metrics = evaluate(judged.outcomes, y_proba, judged.patients, fitted.threshold, params.bootstrap, judged.represents)
    tags = {FAMILY: fitted.family, "health_predict.git_revision": provenance.git_revision}
    for table in provenance.trained_on:
        tags[f"health_predict.data.{Path(table.key).stem}"] = table.sha256
    name = experiment(registry.model_name)
    with (
        registry.run(name, f"Best_{title}_Model", tags, parent=parent) as run_id,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = Path(scratch)
        logged = validation_metrics(metrics)
        provenance = replace(provenance, run_id=run_id)
        bundle, difference = export(folder / BUNDLE, fitted, train, validation, logged, provenance, params)
        _write_preprocessor(folder, fitted)
        _write_model(folder / "model", fitted)
        _write_figures(folder / "figures", fitted, judged, y_proba, params.figures)
        registry.log_folder(run_id, folder)
        registry.log(
            run_id,
            params={
                "family": fitted.family,
                **fitted.config,
                "threshold": fitted.threshold,
                "excluded": ",".join(bundle.manifest.excluded) or "none",
            },
            metrics={**logged, "onnx_max_difference": difference},
            tags={"health_predict.bundle_sha256": bundle.sha256},
        )
    return _described(run_id, fitted, metrics, difference, bundle)


def log_evaluation(registry: Registry, report: EvaluationReport) -> None:
    """Log a comparison on unseen encounters in the model's run: metrics `test_...`, and the report as JSON."""
    found, eligible = report.comparison.challenger, report.comparison.eligible
    metrics = {f"test_{name}": value for name, value in _estimates(found).items()}
    if eligible is not None and eligible.challenger is not None:
        metrics |= {f"test_eligible_{name}": value for name, value in _estimates(eligible.challenger).items()}
    registry.log(report.run_id, metrics=metrics)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / EVALUATION).write_bytes(json_bytes(msgspec.to_builtins(report)))
        registry.log_folder(report.run_id, Path(folder), Path(EVALUATION).stem)


def validation_metrics(metrics: Metrics) -> dict[str, float]:
    """Metrics by the name they are logged under, such as `val_roc_auc`."""
    logged = {
        "val_roc_auc": metrics.auroc,
        "val_average_precision": metrics.average_precision,
        "val_f1_score": metrics.f1,
        "val_precision": metrics.precision,
        "val_recall": metrics.recall,
        "val_flag_rate": metrics.flag_rate,
        "val_brier_score": metrics.brier,
        "val_expected_calibration_error": metrics.ece,
        "val_calibration_intercept": metrics.calibration_intercept,
        "val_calibration_slope": metrics.calibration_slope,
        "val_observed_expected": metrics.observed_expected,
    }
    return {name: interval.estimate for name, interval in logged.items() if interval is not None}


def _estimates(found: Metrics) -> dict[str, float]:
    """Metrics of unseen encounters by name, without the part of the data in front."""
    named = {
        "roc_auc": found.auroc,
        "average_precision": found.average_precision,
        "brier_score": found.brier,
        "expected_calibration_error": found.ece,
        "observed_expected": found.observed_expected,
        "flag_rate": found.flag_rate,
        "recall": found.recall,
        "precision": found.precision,
        "number_to_follow_up": found.number_to_follow_up,
    }
    return {name: interval.estimate for name, interval in named.items() if interval is not None}


def _stop(trial: Trial) -> dict[str, str]:
    return {"health_predict.stopped_at_step": str(len(trial.auroc))} if trial.stopped else {}


def _described(run_id: str, fitted: Fitted, metrics: Metrics, difference: float, bundle: Bundle) -> BestModel:
    return BestModel(fitted.family, run_id, fitted.config, fitted.threshold, metrics, difference, bundle.sha256)


def _write_preprocessor(folder: Path, fitted: Fitted) -> None:
    (folder / PREPROCESSOR).parent.mkdir(parents=True)
    joblib.dump(fitted.preprocessor, folder / PREPROCESSOR, compress=3)


def _write_model(folder: Path, fitted: Fitted) -> None:
    import importlib  # noqa: PLC0415
    from importlib.metadata import version  # noqa: PLC0415

    flavour, library = CANDIDATES[fitted.family].flavour, CANDIDATES[fitted.family].library
    # The research copy of the model; skops, the default, refuses forests.
    options = {"serialization_format": "cloudpickle"} if flavour == "sklearn" else {}
    importlib.import_module(f"mlflow.{flavour}").save_model(
        fitted.model, str(folder), pip_requirements=[f"{library}=={version(library)}"], **options
    )


def _write_figures(
    folder: Path,
    fitted: Fitted,
    validation: LabelledEncounters,
    y_proba: NDArray[np.float64],
    params: FigureParams,
) -> None:
    folder.mkdir()
    calibrated = cross_calibrated(y_proba, validation, params.calibration_folds)
    title = CANDIDATES[fitted.family].title
    figures = quality_figures(validation.outcomes, y_proba, calibrated, importance(fitted), title)
    for stem, figure in figures.items():
        figure.savefig(folder / f"{stem}.png", dpi=110)
