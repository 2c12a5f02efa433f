"""A prediction log on a store that is slow, full or broken: it never waits, and counts what it loses."""

import threading
from collections.abc import Iterator

import pytest

from health_predict.errors import StorageError
from health_predict.store import prediction_log as predictions
from health_predict.store.prediction_log import PredictionLog, ScoredEncounter, read_predictions
from health_predict.store.storage import Folder

SCORED = ScoredEncounter("t", "r", "1", "0", 0.5, None, {"age": "[70-80)"})


class Store(Folder):
    """A folder that waits for `free` before it writes, and then fails with `error`, if there is one."""

    def __init__(self, root: str, error: Exception | None = None):
        super().__init__(root)
        self.free, self.error, self.asked = threading.Event(), error, threading.Event()

    def write(self, key: str, data: bytes) -> None:
        self.asked.set()
        self.free.wait()
        if self.error:
            raise self.error
        super().write(key, data)


@pytest.fixture
def slow(tmp_path) -> Iterator[Store]:
    store = Store(str(tmp_path))
    yield store
    store.free.set()


def test_what_a_slow_store_could_not_take_counts_as_dropped_at_the_end(slow):
    log = PredictionLog(slow, lambda _reason: None, period=0.01)
    log.put(SCORED)
    assert slow.asked.wait(10)
    for _ in range(5):
        log.put(SCORED)
    log.close(timeout=0.1)
    assert (log.written, log.dropped) == (0, 6)


def test_a_full_queue_drops_and_counts_and_the_rest_is_written(slow, monkeypatch):
    monkeypatch.setattr(predictions, "CAPACITY", 10)
    log = PredictionLog(slow, lambda _reason: None, period=0.01)
    log.put(SCORED)
    assert slow.asked.wait(10)
    for _ in range(15):
        log.put(SCORED)
    slow.free.set()
    log.close(timeout=10)
    assert (log.written, log.dropped) == (11, 5)
    assert len(list(read_predictions(slow))) == 11


@pytest.mark.parametrize(
    ("error", "said"),
    [(StorageError("the disk is full"), "the disk is full"), (ValueError("planted-value"), "ValueError")],
    ids=["full", "bug"],
)
def test_a_store_that_fails_is_reported_and_asked_again(tmp_path, error, said):
    store, reasons = Store(str(tmp_path), error), []
    store.free.set()
    log = PredictionLog(store, reasons.append, period=0.01)
    log.put(SCORED)
    assert store.asked.wait(10)
    store.asked.clear()
    log.put(SCORED)
    assert store.asked.wait(10)
    log.close(timeout=10)
    assert reasons == [said, said]
    assert (log.written, log.dropped) == (0, 2)
