"""The command line: what people type, what they read, and how each command ends."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from health_predict.cli.app import app
from health_predict.store import layout

COMMAND = typer.main.get_command(app)
UNREACHABLE = "http://127.0.0.1:9"


def commands(group: Any = COMMAND, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(group, "commands"):
        yield path, group
        return
    for name, command in group.commands.items():
        yield from commands(command, (*path, name))


ALL = dict(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_of_every_command_has_an_example_that_can_be_typed(path, tmp_path, health_predict):
    help_ = ALL[path].help or ""
    examples = re.findall(r"`(health-predict [^`]+)`", help_.partition("Example:")[2])
    assert examples
    for example in re.split(r"\s*&&\s*", examples[0]):
        command, arguments = COMMAND, shlex.split(example)[1:]
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_context(command.name, arguments)
    shown = health_predict(tmp_path, *path, "--help")
    assert shown.code == 0
    assert "Example" in shown.out


def test_help_names_the_exit_codes(tmp_path, health_predict):
    shown = health_predict(tmp_path, "--help").out
    for code in ("10", "11", "12", "13", "14", "15", "99"):
        assert re.search(rf"\b{code}\b", shown)


@pytest.mark.parametrize("families", ["nonsense", "lightgbm,nonsense", ""])
def test_an_unknown_family_is_told_the_known_ones(tmp_path, health_predict, families):
    ended = health_predict(tmp_path, "train", "--families", families)
    assert ended.code == 2
    assert "--families" in ended.err
    assert ("nonsense" if families else "nothing") in ended.err
    assert "lightgbm" in ended.err
    assert "catboost" in ended.err


@pytest.mark.parametrize(
    "arguments", [["trian"], ["train", "--trials", "0"], ["evaluate", "--protocol", "luck"], ["predict"]]
)
def test_what_cannot_be_understood_ends_with_2(tmp_path, health_predict, arguments):
    ended = health_predict(tmp_path, *arguments)
    assert ended.code == 2
    assert ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["data", "validate"], "data fetch"),
        (["data", "split"], "data validate"),
        (["train"], "data split"),
        (["evaluate"], "train"),
        (["evaluate", "--protocol", "grouped-cv"], "data validate"),
        (["promote"], "train"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_commands_out_of_order_say_which_comes_first(tmp_path, health_predict, arguments, first):
    ended = health_predict(tmp_path, *arguments, "--json")
    assert ended.code == 11
    assert f"run `health-predict {first}` first" in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_nothing_in_production_is_told_to_whoever_scores(tmp_path, health_predict):
    ended = health_predict(tmp_path, "serve")
    assert ended.code == 12
    assert "run `health-predict promote` first" in ended.err


def test_status_advises_the_next_step_from_the_beginning(tmp_path, health_predict):
    found = health_predict(tmp_path, "status", "--json")
    assert found.code == 0
    assert found.json["advice"] == "run `health-predict data fetch`"
    assert "data fetch" in health_predict(tmp_path, "status").out


@pytest.mark.parametrize(
    "arguments",
    [["train", "--families", "lightgbm"], ["evaluate"], ["promote"], ["rollback"], ["status"], ["serve"]],
    ids=lambda arguments: arguments[0],
)
def test_a_dead_tracking_server_ends_with_12_and_writes_nothing(trained, health_predict, arguments):
    before = digests(trained)
    ended = health_predict(trained.root, *arguments, MLFLOW_TRACKING_URI=UNREACHABLE)
    assert ended.code == 12
    assert UNREACHABLE in ended.err
    assert "Is the server running" in ended.err
    assert ended.out == ""
    assert digests(trained) == before


def digests(place) -> dict[str, str]:
    """Every file's SHA-256. Without the artifacts of runs: tests beside this one add to those."""
    keys = [key for key in place.storage.list() if not key.startswith("mlartifacts")]
    return {key: hashlib.sha256(place.storage.read(key)).hexdigest() for key in keys}


def test_from_a_trained_model_to_production_and_a_decline(store, health_predict):
    def run(*arguments: str):
        ended = health_predict(store.root, *arguments, "--json")
        if ended.code == 0:
            assert len(ended.out.splitlines()) == 1
        return ended

    evaluated = run("evaluate")
    assert evaluated.code == 0
    assert evaluated.json["run_id"] == store.winner
    assert evaluated.json["synthetic"] is True
    assert {check["passed"] for check in evaluated.json["checks"]} == {True}
    assert evaluated.json["operating_point"].startswith("Of 100 discharges")
    compared = evaluated.json["comparison"]
    assert 0 < compared["eligible"]["rows"] < compared["challenger"]["rows"]
    shown = health_predict(store.root, "evaluate").out
    for text in (
        "challenger, eligible index stays",
        "sensitivity (95%)",
        "too few readmissions to judge",
        "race Asian",
    ):
        assert text in shown

    promoted = run("promote")
    assert promoted.code == 0, promoted.err
    assert promoted.json["version"]["version"] == "1"
    assert run("promote").json["skipped"] is True

    assert run("evaluate", store.other).code == 0
    declined = run("promote", store.other)
    assert declined.code == 99
    assert declined.out == ""
    assert declined.err.startswith("the gate declines")
    assert "\n- " in declined.err

    found = run("status").json
    assert found["production"]["version"] == "1"
    assert [entry["decision"] for entry in found["decisions"]] == ["declined", "evaluated", "promoted", "evaluated"]
    assert run("rollback").code == 14

    read = health_predict(store.root, "status").out
    assert store.winner in read


def test_training_again_is_skipped_and_says_so(trained, health_predict):
    arguments = ["train", "--families", "lightgbm,logistic_regression", "--trials", "2"]
    again = health_predict(trained.root, *arguments, "--json")
    assert again.json == {**trained.output, "skipped": True}
    read = health_predict(trained.root, *arguments)
    assert "was done already" in read.out
    assert "INVENTED DATA" in read.out


def test_an_altered_split_is_noticed_before_training(store, health_predict):
    (store.root / layout.INITIAL_TRAIN).write_bytes(b"other")
    ended = health_predict(store.root, "train")
    assert ended.code == 11
    assert layout.INITIAL_TRAIN in ended.err
    assert "data split` again" in ended.err


def test_a_ledger_that_was_edited_is_a_data_error(store, health_predict):
    store.storage.write(layout.LEDGER, b"{}\n")
    ended = health_predict(store.root, "promote")
    assert ended.code in (10, 11)
    assert health_predict(store.root, "status").code == 10


def test_everything_but_the_result_goes_to_stderr(trained):
    code, out, err = trained.run("evaluate", "--protocol", "chronological", "--family", "logistic_regression", "--json")
    assert code == 0, err
    (line,) = out.splitlines()
    found = json.loads(line)
    for name in ("auroc", "average_precision", "brier", "ece"):
        interval = found["metrics"][name]
        assert interval["lower"] <= interval["estimate"] <= interval["upper"]
    assert found["synthetic"] is True
    assert found["eligible"]["rows"] < found["metrics"]["rows"]
    assert 0.19 < found["metrics"]["flag_rate"]["estimate"] <= 0.20
    assert 0.55 < found["metrics"]["auroc"]["estimate"] < 0.8  # above: something leaks
    assert "readmitted within 30 days" in found["operating_point"]


def test_a_study_of_readmission_at_any_time_says_so(trained):
    study = ("evaluate", "--protocol", "chronological", "--family", "logistic_regression", "--target", "any", "--json")
    code, out, err = trained.run(*study)
    assert code == 0, err
    assert "readmitted at any time" in json.loads(out)["operating_point"]


def test_a_share_of_what_is_all_initial_is_refused_and_not_left_unread(tmp_path, health_predict):
    ended = health_predict(tmp_path, "data", "split", "--initial-share", "0.3", "--replay-batches", "0")
    assert ended.code == 2
    assert "all of the cohort is initial" in ended.err
