"""What the store says of how far the loop is."""

import polars as pl

import factories
from health_predict.data.schema import OUTCOME
from health_predict.monitoring.next_action import BatchRecord
from health_predict.store import layout
from health_predict.store.batches import arrival_bytes
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
