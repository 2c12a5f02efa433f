"""What the loop does next, walked over all that can happen to a batch."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from health_predict.monitoring.next_action import FIRST, BatchRecord, Due, LoopState, first_model, next_action

INITIAL = first_model("initial")


def due(record: BatchRecord, production: str | None = "1", unjudged: tuple[int, ...] = ()) -> Due:
    return next_action(LoopState(production, unjudged, [record], INITIAL))


def test_a_retraining_goes_from_the_data_to_the_gate_and_then_the_batch_is_scored():
    record, walked = BatchRecord(4), []
    effects = {
        "monitor": {"monitored": True},
        "decide": {"action": "retrain", "version": "1"},
        "assemble": {"dataset": "retraining_04"},
        "train": {"run_id": "run"},
        "evaluate": {"evaluated": True},
        "promote": {"promoted": "2"},
        "score": {"scored": True},
    }
    while (found := due(record)).action:
        walked.append(found.action)
        assert found.batch == 4
        record = replace(record, **effects[found.action])
    assert walked == list(effects)


def test_a_recalibration_brings_its_data_set_along():
    record = BatchRecord(4, monitored=True, action="recalibrate", version="1")
    assert due(record).action == "recalibrate"
    assert due(replace(record, dataset="recalibration_04", run_id="run")).action == "evaluate"


@pytest.mark.parametrize(
    "record",
    [
        BatchRecord(4, waits=True),
        BatchRecord(4, monitored=True, action="none"),
        BatchRecord(4, monitored=True, action="retrain", objections=("too few encounters",)),
        BatchRecord(4, monitored=True, action="retrain", run_id="run", objections=("AUROC is lower",)),
    ],
)
def test_a_batch_with_nothing_left_to_do_is_scored(record):
    assert due(record) == Due("score", 4, "Batch 4 is to be scored by what is in production now.")


def test_matured_outcomes_are_judged_before_a_batch_is_looked_at():
    found = due(BatchRecord(4), unjudged=(2, 3))
    assert (found.action, found.batch) == ("judge", 2)
    assert "batches 2, 3" in found.reason


def test_an_older_batch_is_finished_before_a_newer_one_begins():
    state = LoopState("1", (), [BatchRecord(4, monitored=True), BatchRecord(5)], INITIAL)
    assert (next_action(state).action, next_action(state).batch) == ("decide", 4)


def test_without_production_the_first_model_is_trained_and_one_that_is_declined_is_told():
    assert (due(BatchRecord(1), None).action, due(BatchRecord(1), None).batch) == ("train", FIRST)
    declined = replace(INITIAL, run_id="run", evaluated=True, objections=("It is no better than LACE.",))
    found = next_action(LoopState(None, (), [BatchRecord(1)], declined))
    assert found.action is None
    assert "It is no better than LACE." in found.reason


RECORDS = st.builds(
    BatchRecord,
    batch=st.integers(1, 99),
    refused=st.booleans(),
    monitored=st.booleans(),
    waits=st.booleans(),
    action=st.sampled_from([None, "none", "retrain", "recalibrate"]),
    dataset=st.sampled_from([None, "retraining_01"]),
    run_id=st.sampled_from([None, "run"]),
    evaluated=st.booleans(),
    promoted=st.sampled_from([None, "2"]),
    objections=st.sampled_from([(), ("no",)]),
    scored=st.booleans(),
)


def test_answers_of_the_service_are_judged_after_batches_and_before_a_batch_is_looked_at():
    state = LoopState("1", (2,), [BatchRecord(4)], INITIAL, unjudged_answers=1_200, judged_answers=1_000)
    assert next_action(state).action == "judge"
    found = next_action(replace(state, unjudged=()))
    assert (found.action, found.batch) == ("judge answers", None)
    assert "1,200 answers" in found.reason
    assert "1,000" in found.reason
    assert next_action(replace(state, unjudged=(), unjudged_answers=0)).action == "monitor"
    assert next_action(LoopState("1", (), [], INITIAL, hint="Set the key.")).reason.endswith("judged. Set the key.")


@given(
    st.lists(RECORDS, max_size=4), st.sampled_from([None, "1"]), st.lists(st.integers(1, 9), max_size=2),
    st.integers(0, 2),
)  # fmt: skip
def test_something_is_due_exactly_while_something_is_open_and_it_always_has_a_reason(
    records, production, unjudged, answers
):
    found = next_action(LoopState(production, unjudged, records, INITIAL, answers))
    idle = production is not None and not unjudged and not answers and all(record.has_ended for record in records)
    assert (found.action is None) == idle
    assert found.reason.endswith(".")
