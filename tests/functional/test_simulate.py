"""The replay as a command: what it leaves, stopped and gone on with, through the service and without."""

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from health_predict.adapters.registry import PRODUCTION
from health_predict.data.schema import OUTCOME
from health_predict.errors import BundleError, DataError
from health_predict.params import GateParams, Params, SplitParams
from health_predict.steps.loop.begin import begin
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.promote import promote
from health_predict.store import layout
from health_predict.store.batches import read_arrival, read_matured, read_predictions
from health_predict.store.ledger import read_ledger
from health_predict.store.replay import ReplayPlan
from health_predict.store.tables import read_json
from stores import Place, prepare

pytestmark = pytest.mark.slow

ROWS = 24_000
# A champion of little data and a large test part: a retraining brings much, and the gate can tell.
SPLIT = SplitParams(initial_share=0.35, train_share=0.35, validation_share=0.20, batches=3)
NAME = "replay"  # of the world, where nothing is injected
SIMULATE = ("simulate", "--trials", "1", "--json")
PASSES = GateParams(max_subgroup_auroc_loss=2, min_subgroup_auroc=0, observed_expected=(0, 1e9))
DECIDED = ("batch", "action", "reasons", "version", "promoted", "objections", "alarms")


def document(out: str) -> dict[str, Any]:
    return json.loads(out.splitlines()[-1])


def decisions(replay: dict[str, Any]) -> list[list[Any]]:
    return [[row[key] for key in DECIDED] for row in replay["rows"]]


def until(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def kill_once(place: Place, condition: Callable[[], bool], *arguments: str) -> None:
    """Start a replay, and kill it and all that it started as soon as something is there."""
    with place.command(*SIMULATE, *arguments, start_new_session=True) as process:
        until(lambda: condition() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        for child in children:
            if child.is_running():
                child.kill()
        process.communicate()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A store with a first model in production and one batch replayed. Nobody may write to it."""
    place = prepare(tmp_path_factory.mktemp("begun") / "store", ROWS, SPLIT)
    code, _, err = place.run(*SIMULATE, "--no-api", "--batches", "1")
    assert code == 0, err
    return place


def copied(begun: Place, root: Path, **environment: str) -> Place:
    shutil.copytree(begun.root, root, ignore=shutil.ignore_patterns("mlartifacts"))
    return Place(root, environment)


@pytest.fixture(scope="module")
def replayed(begun: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, Any]]:
    """The rest of the replay without a service, and its result. Nobody may write to the store."""
    place = copied(begun, tmp_path_factory.mktemp("replayed") / "store")
    code, out, err = place.run(*SIMULATE, "--no-api")
    assert code == 0, err
    return place, document(out)


def test_a_replay_retrains_and_reports_what_it_was_worth(replayed):
    place, found = replayed
    assert [row["batch"] for row in found["rows"]] == [1, 2, 3]
    assert found["retrainings"] >= 1
    assert found["promotions"] >= 1
    assert found["mean_auroc_retrained"] > found["mean_auroc_never_retrained"]
    assert found["synthetic"]
    first, *later = found["rows"]
    assert set(first["outcome"]["auroc_difference"].values()) == {0.0}
    promoted = [row["promoted"] for row in later if row["promoted"]]
    world = place.simulation(NAME)
    assert read_ledger(world.storage).production == promoted[-1]
    assert {entry.simulation for entry in read_ledger(world.storage).entries} == {NAME}
    assert world.registry.at(PRODUCTION).version == promoted[-1]
    assert found == read_json(world.storage, layout.REPLAY_NUMBERS)
    page = world.storage.read(layout.REPLAY_PAGE)
    assert b"Invented data" in page
    assert b"Simulation" in page
    for number in (1, 2, 3):
        assert world.storage.exists(layout.drift_report(layout.batch(number)))


def test_what_a_replay_promotes_is_its_own(replayed):
    place, found = replayed
    assert found["promotions"] >= 1
    assert read_ledger(place.storage).entries == []
    assert place.registry.holders() == {}
    assert place.registry.at(PRODUCTION) is None
    code, out, err = place.run("status", "--json")
    assert code == 0, err
    assert (document(out)["production"], document(out)["simulations"]) == (None, [NAME])
    code, out, err = place.run("status", "--simulation", NAME, "--json")
    assert code == 0, err
    assert (document(out)["simulation"], document(out)["problems"]) == (NAME, [])
    assert layout.REPLAY_PAGE in document(out)["advice"]
    winner = read_json(place.simulation(NAME).storage, layout.TRAINING)["winner"]
    assert place.registry.bundle(winner).manifest.simulation == NAME
    with pytest.raises(BundleError, match=f"was trained in the simulation {NAME}, and can be neither "):
        evaluate(place.workspace, Params(), "tester", winner)


def test_what_arrives_has_no_outcomes_and_what_was_said_stands_beside_what_became(replayed):
    place = replayed[0].simulation(NAME)
    for number in (1, 2, 3):
        arrived, said = read_arrival(place.storage, number), read_predictions(place.storage, number)
        assert OUTCOME not in arrived.columns
        assert said["encounter_id"].equals(arrived["encounter_id"])
        assert said["version"].n_unique() == 1
        assert read_matured(place.storage, number)[OUTCOME].null_count() == 0


def test_the_gate_compares_on_encounters_that_no_model_has_seen(replayed):
    place = replayed[0].simulation(NAME)
    test, train = (pl.read_parquet(place.root / layout.retraining_data(2, part)) for part in ("test", "train"))
    assert set(test["encounter_id"]) <= set(read_arrival(place.storage, 1)["encounter_id"])
    assert not set(test["patient_nbr"]) & set(train["patient_nbr"])


def test_a_replay_that_is_done_is_shown_at_once(replayed):
    place, found = replayed
    began = time.monotonic()
    code, out, err = place.run(*SIMULATE, "--no-api")
    assert (code, document(out)) == (0, found), err
    assert time.monotonic() - began < 60


def test_killed_again_and_again_it_ends_as_if_nothing_had_happened(begun, replayed, tmp_path):
    # A service of this environment would want keys, and serve another alias; the replay's own does neither.
    elsewhere = {"HEALTH_PREDICT_API_KEYS": f"ward:{'0' * 64}", "MODEL_ALIAS": "elsewhere"}
    place = copied(begun, tmp_path / "store", **elsewhere)
    world = place.simulation(NAME)
    storage = world.storage
    promoted = len(read_ledger(storage).entries)
    kill_once(place, lambda: storage.exists(layout.drift_manifest(layout.batch(2))))
    kill_once(place, lambda: storage.exists(layout.retraining_manifest(2)))
    kill_once(place, lambda: len(read_ledger(storage).entries) > promoted)
    kill_once(place, lambda: world.registry.at(PRODUCTION).version != "1")
    kill_once(place, lambda: storage.exists(layout.manifest(layout.predictions(2))))
    code, out, err = place.run(*SIMULATE, timeout=600)
    assert code == 0, err
    found = document(out)
    assert decisions(found) == decisions(replayed[1])
    assert found["mean_auroc_retrained"] == pytest.approx(replayed[1]["mean_auroc_retrained"], abs=1e-6)
    assert [one.decision for one in read_ledger(storage).entries] == [
        one.decision for one in read_ledger(replayed[0].simulation(NAME).storage).entries
    ]


def test_a_retrained_model_is_evaluated_on_its_own_data_set(replayed, tmp_path):
    place, found = replayed
    place = copied(place, tmp_path / "store").simulation(NAME)
    number = max(row["batch"] for row in found["rows"] if row["action"] != "none")
    key = layout.evaluation_report(read_json(place.storage, layout.TRAINING)["winner"])
    approved = place.storage.read(key)
    code, out, err = place.run("evaluate", "--json")
    assert (code, place.storage.read(key)) == (0, approved), err
    assert document(out)["simulation"] == NAME
    test = place.storage.read(layout.retraining_data(number, "test"))
    assert document(out)["comparison"]["fingerprints"]["test"] == hashlib.sha256(test).hexdigest()


def test_another_replay_under_the_same_name_needs_a_restart(begun, tmp_path):
    place = copied(begun, tmp_path / "store")
    other = (*SIMULATE, "--no-api", "--batches", "1", "--scenario", "schema_break", "--name", NAME)
    code, _, err = place.run(*other)
    assert code == 14
    assert "--restart" in err
    assert read_json(place.simulation(NAME).storage, layout.REPLAY)["scenario"] == "none"

    code, out, err = place.run(*other, "--restart")
    assert code == 0, err
    (row,) = document(out)["rows"]
    assert "time_in_hospital is missing" in row["refused"]
    storage = place.simulation(NAME).storage
    assert not storage.exists(layout.arrival(1))
    assert not storage.exists(layout.predictions(1))

    code, _, err = place.run("monitor", "--batch", "1", "--simulation", NAME)
    assert code == 10
    assert "refused" in err


def test_a_replay_begins_with_what_is_in_production_and_leaves_it_alone(store):
    evaluate(store.workspace, Params(), "tester", store.winner)
    promote(store.workspace, PASSES, "tester", store.winner)
    before = (store.storage.read(layout.LEDGER), store.registry.at(PRODUCTION), store.registry.holders())
    plan = ReplayPlan("none", 1, ("lightgbm",), 1, 1)
    begun = begin(store.workspace, "tester", "what-if", plan, restart=False)
    first = read_ledger(begun.workspace.storage)
    assert (first.production, first.entries[0].simulation) == ("1", "what-if")
    assert first.version("1").run_id == store.winner
    assert begun.workspace.registry.at(PRODUCTION).run_id == store.winner
    again = begin(store.workspace, "tester", "what-if", plan, restart=False)
    assert again.workspace.registry.model_name == begun.workspace.registry.model_name
    anew = begin(store.workspace, "tester", "what-if", plan, restart=True)
    assert anew.workspace.registry.model_name != begun.workspace.registry.model_name
    with pytest.raises(DataError, match="cannot begin with batch 99"):
        begin(store.workspace, "tester", "what-if", replace(plan, from_batch=99), restart=True)
    assert before == (store.storage.read(layout.LEDGER), store.registry.at(PRODUCTION), store.registry.holders())


def test_monitor_ends_with_the_status_and_says_why(replayed, tmp_path):
    place, found = replayed
    code, out, err = place.run("monitor", "--batch", "3", "--simulation", NAME)
    assert code == 0, err
    expected = "DRIFT_DETECTED" if found["rows"][2]["alarms"] else "NO_DRIFT"
    assert out.splitlines()[-1].strip() == expected

    current = tmp_path / "ill.parquet"
    read_arrival(place.simulation(NAME).storage, 3).with_columns(pl.lit(None, pl.String).alias("diag_1")).write_parquet(
        current
    )
    code, out, err = place.run("monitor", "--current", str(current), "--simulation", NAME)
    assert code == 0, err
    assert "diag_1 is missing in 100% of encounters" in out.replace("\n", " ")
    assert out.splitlines()[-1].strip() == "DRIFT_DETECTED"

    code, out, err = place.run("monitor", "--current", str(current), "--reference", str(current), "--simulation", NAME)
    assert code == 0, err
    assert out.splitlines()[-1].strip() == "NO_DRIFT"


def test_a_check_that_cannot_run_is_an_error_and_never_no_drift(replayed, tmp_path):
    place, _ = replayed
    few = tmp_path / "few.parquet"
    read_arrival(place.simulation(NAME).storage, 3).head(100).write_parquet(few)
    code, out, err = place.run("monitor", "--current", str(few), "--simulation", NAME)
    assert code == 10
    assert "too few" in err
    assert "NO_DRIFT" not in out

    code, out, err = place.run("monitor", "--batch", "9", "--simulation", NAME)
    assert code == 11
    assert "NO_DRIFT" not in out
