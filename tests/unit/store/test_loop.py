"""What the store says of how far the loop is."""

from dataclasses import replace

import polars as pl
import pytest

import factories
from health_predict.data.schema import OUTCOME
from health_predict.errors import StorageError
from health_predict.monitoring.next_action import BatchRecord, first_model, next_action
from health_predict.store import layout
from health_predict.store.batches import arrival_bytes, read_arrival, read_matured, read_predictions
from health_predict.store.datasets import named, vouch
from health_predict.store.ledger import Subject, append, entry, read_ledger
from health_predict.store.loop import read_ended, read_state, write_record
from health_predict.store.storage import Folder
from health_predict.store.tables import write_json


def arrive(storage: Folder, number: int) -> None:
    table = factories.encounters(20, seed=number).with_columns(pl.lit("NO").alias(OUTCOME))
    storage.write(layout.arrival(number), arrival_bytes(table, "batch"))
    write_json(storage, layout.manifest(layout.arrival(number)), {})


def test_batches_that_ended_under_an_earlier_version_have_ended(tmp_path):
    storage = Folder(str(tmp_path))
    for number in (1, 2, 3):
        arrive(storage, number)
    earlier = {"answered_meanwhile": 17, "objections": [], "refused": False, "run_id": "r"}
    write_json(storage, "reports/replay/batch_01.json", {**earlier, "batch": 1, "action": "retrain", "promoted": "2"})
    write_json(
        storage,
        "reports/replay/batch_02.json",
        {**earlier, "batch": 2, "action": "none", "promoted": None, "refused": True, "run_id": None},
    )
    assert [one.batch for one in read_state(storage).open] == [3]
    ended = read_ended(storage, 1)
    assert ended == BatchRecord(1, action="retrain", run_id="r", promoted="2", answered_meanwhile=17, scored=True)
    refused = read_ended(storage, 2)
    assert refused is not None
    assert (refused.refused, refused.scored) == (True, False)
    write_record(storage, BatchRecord(3, scored=True))
    assert read_state(storage).open == []


@pytest.mark.parametrize(
    ("read", "command"),
    [(read_arrival, "intake encounters"), (read_predictions, "loop score"), (read_matured, "intake outcomes")],
)
def test_what_is_not_there_yet_comes_by_a_command_of_ones_own_data(tmp_path, read, command):
    with pytest.raises(StorageError, match=f"run `health-predict {command}`"):
        read(Folder(str(tmp_path)), 1)


@pytest.mark.parametrize(
    ("name", "command"), [("retraining_03", "loop assemble"), ("recalibration_03", "loop recalibrate")]
)
def test_a_data_set_that_is_not_there_names_the_command_that_makes_it(tmp_path, name, command):
    with pytest.raises(StorageError, match=f"run `health-predict {command}` first"):
        vouch(Folder(str(tmp_path)), named(name))


def test_a_first_promotion_that_was_stopped_before_it_was_noted_is_due(tmp_path):
    storage = Folder(str(tmp_path))
    write_record(storage, replace(first_model("initial"), run_id="r", evaluated=True))
    model = Subject("r", "lt30", "of the bundle", "of the model", [], "1")
    told = {"who": "me", "registry": "http://mlflow.invalid", "model": "Invented", "simulation": None}
    ledger = read_ledger(storage)
    append(storage, ledger, entry(ledger, "promoted", model, moves=("1", None), **told))
    assert next_action(read_state(storage)).action == "promote"
    write_record(storage, replace(first_model("initial"), run_id="r", evaluated=True, promoted="1"))
    assert next_action(read_state(storage)).action is None


def test_outcomes_that_are_known_before_a_batch_is_scored_are_early(tmp_path):
    storage = Folder(str(tmp_path))
    arrive(storage, 1)
    write_json(storage, layout.manifest(layout.outcomes(1)), {})
    state = read_state(storage)
    assert (state.early, state.unjudged) == ([1], [])
    write_json(storage, layout.manifest(layout.predictions(1)), {})
    state = read_state(storage)
    assert (state.early, state.unjudged) == ([], [1])
