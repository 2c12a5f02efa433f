"""What a training leaves in MLflow."""

from pathlib import Path

import joblib
import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

import factories
from health_predict.adapters.registry import BUNDLE, PREPROCESSOR, REQUIRED
from health_predict.adapters.training_runs import experiment
from health_predict.bundle.model import load_bundle
from health_predict.features.encounters import columns, engineer
from health_predict.params import Params, SearchParams
from health_predict.steps.model.evaluate import evaluate
from health_predict.store import layout
from health_predict.training.candidates import TITLES

METRICS = ("val_f1_score", "val_roc_auc", "val_average_precision", "val_brier_score", "val_calibration_slope")


@pytest.fixture(scope="module")
def client(trained) -> MlflowClient:
    return MlflowClient(trained.settings.resolved_tracking_uri)


@pytest.fixture(scope="module")
def runs(trained, client) -> list[Run]:
    name = experiment(trained.settings.model_name)
    return client.search_runs([client.get_experiment_by_name(name).experiment_id])


def named(runs: list[Run], part: str) -> list[Run]:
    return [run for run in runs if part in run.info.run_name]


def files(client: MlflowClient, run: Run, path: str) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id, path)}


def test_a_parent_a_run_for_each_trial_and_one_for_each_best_model(trained, runs):
    (parent,) = named(runs, "Training")
    assert parent.info.run_id == trained.output["run_id"]
    assert len(named(runs, "trial")) == trained.output["trials"] == 4
    best = {run.info.run_name for run in named(runs, "Best_")}
    assert best == {"Best_LightGBM_Model", "Best_LogisticRegression_Model"}
    assert len(runs) == 1 + 4 + 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    nested = {run.data.tags.get("mlflow.parentRunId") for run in runs if run is not parent}
    assert nested == {parent.info.run_id}
    assert parent.data.tags["health_predict.winner_run_id"] == trained.winner


def test_trials_that_were_stopped_have_fewer_steps_and_the_share_is_logged(trained, client, runs):
    steps = SearchParams().reports
    stopped = 0
    for run in named(runs, "trial"):
        history = client.get_metric_history(run.info.run_id, "val_roc_auc")
        assert [point.step for point in history] == list(range(1, len(history) + 1))
        early = run.data.tags.get("health_predict.stopped_at_step")
        assert early == (str(len(history)) if len(history) < steps else None)
        stopped += early is not None
    assert 0 < stopped == trained.output["stopped"] == sum(trained.output["stopped_at"].values())
    (parent,) = named(runs, "Training")
    shares = [parent.data.metrics[f"{family}_stopped_share"] for family in ("lightgbm", "logistic_regression")]
    assert sum(shares) == pytest.approx(stopped / 2)


def test_the_best_models_run_holds_all_that_is_needed_to_judge_and_serve_it(trained, client, runs):
    for run in named(runs, "Best_"):
        assert set(METRICS) <= set(run.data.metrics)
        assert run.data.metrics["onnx_max_difference"] <= 1e-6
        assert TITLES[run.data.params["family"]] in run.info.run_name
        assert 0 < float(run.data.params["threshold"]) < 1
        assert len(run.data.tags["health_predict.data.initial_train"]) == 64
        assert "health_predict.git_revision" in run.data.tags
        held = files(client, run, BUNDLE) | files(client, run, Path(PREPROCESSOR).parent.as_posix())
        assert set(REQUIRED) <= held
        assert "model/MLmodel" in files(client, run, "model")
        assert len([name for name in files(client, run, "figures") if name.endswith(".png")]) >= 4


def test_a_model_says_how_far_it_is_behind_the_winner(trained):
    winner, other = trained.output["models"]
    assert winner["brier_behind"] is None
    behind, briers = other["brier_behind"], [model["metrics"]["brier"]["estimate"] for model in (winner, other)]
    assert behind["estimate"] == pytest.approx(briers[1] - briers[0], abs=1e-12)
    assert behind["lower"] <= behind["estimate"] <= behind["upper"]


def test_an_evaluation_is_logged_for_all_stays_and_for_eligible_index_stays(store):
    report = evaluate(store.workspace, Params(), "tester@here", store.winner)
    logged = MlflowClient(store.settings.resolved_tracking_uri).get_run(store.winner).data.metrics
    found = report.comparison
    assert logged["test_roc_auc"] == found.challenger.auroc.estimate
    assert logged["test_flag_rate"] == found.challenger.flag_rate.estimate
    assert logged["test_eligible_roc_auc"] == found.eligible.challenger.auroc.estimate


def test_the_preprocessor_beside_a_bundle_encodes_as_the_bundle_does(trained, client):
    table = factories.encounters(100, seed=61)
    for model in trained.output["models"]:
        preprocessor = joblib.load(client.download_artifacts(model["run_id"], PREPROCESSOR))
        bundle = load_bundle(Path(client.download_artifacts(model["run_id"], BUNDLE)))
        expected = preprocessor.transform(engineer(table))
        expected = expected if isinstance(expected, np.ndarray) else expected.toarray()
        encoded = bundle.encoder.encode_table(columns(table, bundle.encoder))
        np.testing.assert_allclose(encoded, expected, rtol=0, atol=1e-6)


def test_a_bundle_says_what_it_was_trained_on_and_that_it_was_invented(trained, client):
    for model in trained.output["models"]:
        bundle = load_bundle(Path(client.download_artifacts(model["run_id"], BUNDLE)))
        assert bundle.manifest.synthetic
        assert bundle.manifest.run_id == model["run_id"]
        assert bundle.sha256 == model["bundle_sha256"]
        assert [table.key for table in bundle.manifest.trained_on] == [layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION]
