"""The ledger: append-only, compare-and-swap, the same in a folder and on S3."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from health_predict.errors import ConflictError, DataError
from health_predict.io import layout
from health_predict.io.ledger import append, entry, read_ledger


def promote(storage, version: str, run_id: str = "run"):
    ledger = read_ledger(storage)
    return append(
        storage, ledger, entry(ledger, "promoted", run_id, ["fine"], {"auroc": 0.68}, version, ledger.production)
    )


def test_no_ledger_is_an_empty_one(storage):
    ledger = read_ledger(storage)
    assert (ledger.entries, ledger.production, ledger.previous, ledger.first) == ([], None, None, None)


def test_entries_follow_each_other_and_the_last_one_counts(storage):
    promote(storage, "1", "one")
    promote(storage, "2", "two")
    ledger = read_ledger(storage)
    assert [(e.decision, e.production, e.previous, e.run_id) for e in ledger.entries] == [
        ("promoted", "1", None, "one"),
        ("promoted", "2", "1", "two"),
    ]
    assert (ledger.production, ledger.previous) == ("2", "1")
    assert ledger.first == ledger.entries[0]
    assert ledger.entries[0].at.endswith("+00:00")
    assert "@" in ledger.entries[0].who
    assert storage.read(layout.LEDGER).count(b"\n") == 2


def test_a_decline_moves_nothing_and_is_no_first_promotion(storage):
    ledger = read_ledger(storage)
    ledger = append(storage, ledger, entry(ledger, "declined", "one", ["too few encounters"], {}))
    assert (ledger.production, ledger.first) == (None, None)
    promote(storage, "1")
    ledger = read_ledger(storage)
    ledger = append(storage, ledger, entry(ledger, "declined", "two", ["worse"], {}))
    assert (ledger.production, ledger.previous) == ("1", None)
    assert ledger.entries[-1].reasons == ["worse"]


def test_a_decision_made_on_an_old_ledger_is_told_so_and_not_written(storage):
    old = read_ledger(storage)
    promote(storage, "1")
    with pytest.raises(ConflictError, match=r"promotions.jsonl .* changed by somebody else"):
        append(storage, old, entry(old, "promoted", "other", [], {}, "2"))
    assert [e.run_id for e in read_ledger(storage).entries] == ["run"]


def test_of_many_decisions_at_once_one_is_written_and_the_ledger_stays_whole(storage):
    ledger = promote(storage, "1")
    workers = 4
    together = Barrier(workers)

    def decide(number: int) -> bool:
        together.wait(10)
        try:
            append(storage, ledger, entry(ledger, "promoted", f"run {number}", [], {}, str(number), "1"))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(workers) as pool:
        won = list(pool.map(decide, range(2, 2 + workers)))
    assert sum(won) == 1
    entries = read_ledger(storage).entries
    assert [e.run_id for e in entries] == ["run", f"run {2 + won.index(True)}"]


@pytest.mark.parametrize("line", [b"not json", b'{"at": "2026-01-01"}', b"[]"])
def test_a_line_that_is_no_entry_is_named(storage, line):
    promote(storage, "1")
    storage.write(layout.LEDGER, storage.read(layout.LEDGER) + line + b"\n")
    with pytest.raises(DataError, match=r"line 2 of .*promotions.jsonl"):
        read_ledger(storage)
