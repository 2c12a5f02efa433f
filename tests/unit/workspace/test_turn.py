"""One process at a time works on a loop."""

import time
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import msgspec
import pytest

from health_predict.adapters.processes import Process, this_process
from health_predict.errors import ConflictError, DataError, Declined, StorageError
from health_predict.steps.loop.begin import begin
from health_predict.store import layout
from health_predict.store.replay import ReplayPlan, write_plan
from health_predict.store.simulations import Simulation, read_simulation, world, write_simulation
from health_predict.store.storage import Folder
from health_predict.store.tables import write_json
from health_predict.workspace import Workspace
from health_predict.workspace import turn as turns
from health_predict.workspace.turn import PATIENCE, Turn, turn

ELSEWHERE = Process("another machine", 7, "")


@pytest.fixture
def storage(tmp_path):
    return Folder(str(tmp_path))


def at_work(storage, process, ago=timedelta(0)):
    storage.write(layout.LOOP_TURN, msgspec.json.encode(Turn("ana@ward", process, datetime.now(UTC) - ago)))


def test_a_turn_is_given_back(storage):
    for _ in range(2):
        with turn(storage, "me"):
            assert b"me" in storage.read(layout.LOOP_TURN)
        assert storage.read(layout.LOOP_TURN) == b"null\n"


def test_a_second_process_is_declined_and_told_who_is_at_work(storage):
    at_work(storage, ELSEWHERE)
    with pytest.raises(Declined, match="ana@ward does"), turn(storage, "me"):
        pass
    assert b"ana@ward" in storage.read(layout.LOOP_TURN)


def test_a_process_that_no_longer_renews_its_turn_holds_nobody_up(storage):
    at_work(storage, ELSEWHERE, PATIENCE + timedelta(minutes=1))
    with turn(storage, "me"):
        pass


def renewed(storage, than, seconds=30):
    """Whether the turn gets a later time than this."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if msgspec.json.decode(storage.read(layout.LOOP_TURN), type=Turn).at > than:
            return True
        time.sleep(0.01)
    return False


def test_a_turn_is_renewed_while_an_action_takes_long_and_also_after_the_store_has_failed(storage, monkeypatch):
    monkeypatch.setattr(turns, "BEAT", timedelta(seconds=0.01))
    write_if, failures = storage.write_if, []
    with turn(storage, "me"):
        began = datetime.now(UTC)
        assert renewed(storage, began)

        def fail_twice(*arguments):
            if len(failures) < 2:
                failures.append(arguments)
                raise StorageError("the disk is full")
            write_if(*arguments)

        monkeypatch.setattr(storage, "write_if", fail_twice)
        assert renewed(storage, datetime.now(UTC))
        assert len(failures) == 2
    assert storage.read(layout.LOOP_TURN) == b"null\n"


def test_a_process_that_is_gone_holds_nobody_up(storage):
    at_work(storage, msgspec.convert({"machine": this_process().machine, "pid": 2**22 + 1, "started": ""}, Process))
    with turn(storage, "me"):
        pass


def test_who_lost_the_turn_stops_and_leaves_it_to_the_other(storage, monkeypatch):
    monkeypatch.setattr(turns, "BEAT", timedelta(seconds=0.01))
    with pytest.raises(Declined), turn(storage, "me") as renew:
        at_work(storage, ELSEWHERE)
        time.sleep(0.02)
        renew()
    assert b"ana@ward" in storage.read(layout.LOOP_TURN)


def test_of_two_at_once_one_is_told(storage, monkeypatch):
    write_if = storage.write_if

    def overtaken(key, data, state):
        at_work(storage, ELSEWHERE)
        write_if(key, data, state)

    monkeypatch.setattr(storage, "write_if", overtaken)
    with pytest.raises(ConflictError), turn(storage, "me"):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"who": "me", "process": {"machine": "m", "pid": 7, "started": ""}, "at": "2026-01-31T10:00:00"}',
        b'{"who": "me", "process": {"machine": "m", "pid": -1, "started": ""}, "at": "2026-01-31T10:00:00Z"}',
        b'{"who": "me", "process": {"machine": "m", "pid": 4294967296, "started": ""}, "at": "2026-01-31T10:00:00Z"}',
    ],
)
def test_a_file_that_is_no_turn_is_an_error(storage, content):
    storage.write(layout.LOOP_TURN, content)
    with pytest.raises(DataError, match=layout.LOOP_TURN), turn(storage, "me"):
        pass


def test_a_replay_that_another_process_works_on_is_not_dropped(storage, tmp_path):
    write_json(storage, layout.SPLIT_MANIFEST, {"files": {layout.future_batch(1): "0"}})
    replay = world(storage, "what-if")
    at_work(replay, ELSEWHERE)
    replay.write(layout.loop_ended(1), b"{}")

    def registry():
        raise AssertionError("nothing is begun")

    plan = ReplayPlan("none", 1, ("lightgbm",), 1, 1)
    with pytest.raises(Declined, match="ana@ward does"):
        begin(Workspace(storage, registry, tmp_path), "me", "what-if", plan, restart=True)
    assert replay.list() == [layout.loop_ended(1), layout.LOOP_TURN]


def test_a_replay_that_another_process_has_begun_meanwhile_is_resumed(storage, tmp_path, monkeypatch):
    write_json(storage, layout.SPLIT_MANIFEST, {"files": {layout.future_batch(1): "0"}})
    plan, replay = ReplayPlan("none", 1, ("lightgbm",), 1, 1), world(storage, "what-if")
    take = turns._take

    def begun_meanwhile(*arguments):
        write_simulation(replay, Simulation("what-if", "Model_of_the_other"))
        write_plan(replay, plan)
        take(*arguments)

    monkeypatch.setattr(turns, "_take", begun_meanwhile)
    begun = begin(Workspace(storage, Mock(), tmp_path), "me", "what-if", plan, restart=False)
    assert begun.workspace.storage.root == replay.root
    assert read_simulation(replay).model == "Model_of_the_other"
