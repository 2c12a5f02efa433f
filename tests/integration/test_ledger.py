"""The ledger: append-only, compare-and-swap, the same in a folder and on S3."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from health_predict.errors import ConflictError, DataError
from health_predict.store import layout
from health_predict.store.ledger import Ledger, Question, Subject, append, entry, read_ledger

WHO = "tester@here"


def subject(run_id: str = "run", version: str | None = None, content: str | None = None, lineage=()) -> Subject:
    return Subject(run_id, "lt30", f"bundle of {run_id}", content or f"content of {run_id}", list(lineage), version)


def written(ledger: Ledger, decision, about: Subject, **rest):
    told = {"registry": "http://mlflow", "model": "Invented", "simulation": None}
    return entry(ledger, decision, about, who=WHO, **told, **rest)


def promote(storage, version: str, run_id: str = "run", **rest) -> Ledger:
    ledger = read_ledger(storage)
    moves = (version, ledger.production)
    about = subject(run_id, version)
    return append(storage, ledger, written(ledger, "promoted", about, reasons=["fine"], moves=moves, **rest))


def roll_back(storage, to: str, **rest) -> Ledger:
    ledger = read_ledger(storage)
    left = ledger.subject(ledger.production)
    return append(storage, ledger, written(ledger, "rolled_back", left, moves=(to, ledger.before(to)), **rest))


def test_no_ledger_is_an_empty_one(storage):
    ledger = read_ledger(storage)
    assert (ledger.entries, ledger.production, ledger.previous, ledger.first) == ([], None, None, None)
    assert (ledger.id, ledger.model, ledger.moved, ledger.newest_move) == (None, None, False, None)


def test_entries_follow_each_other_and_the_last_one_counts(storage):
    promote(storage, "1", "one")
    promote(storage, "2", "two")
    ledger = read_ledger(storage)
    assert [(e.decision, e.production, e.previous, e.subject.run_id) for e in ledger.entries] == [
        ("promoted", "1", None, "one"),
        ("promoted", "2", "1", "two"),
    ]
    assert (ledger.production, ledger.previous) == ("2", "1")
    assert ledger.first == ledger.entries[0]
    assert ledger.newest_move == ledger.entries[1]
    assert ledger.entries[0].at.endswith("+00:00")
    assert ledger.entries[0].who == WHO
    assert storage.read(layout.LEDGER).count(b"\n") == 2


def test_every_entry_names_the_same_ledger_and_what_it_speaks_for(storage):
    promote(storage, "1", "one")
    ledger = promote(storage, "2", "two")
    assert {(e.ledger, e.registry, e.model) for e in ledger.entries} == {(ledger.id, "http://mlflow", "Invented")}
    assert len(str(ledger.id)) == 16
    assert ledger.model == "Invented"


def test_versions_are_found_by_number_and_no_other(storage):
    promote(storage, "1", "one")
    ledger = promote(storage, "2", "two")
    found = ledger.version("1")
    assert (found.name, found.version, found.run_id, found.sha256) == ("Invented", "1", "one", "bundle of one")
    assert ledger.numbers == ["1", "2"]
    with pytest.raises(ConflictError, match=r"version 3 was never in production.* these were: 1, 2"):
        ledger.version("3")


def test_what_moves_nothing_is_no_first_promotion(storage):
    ledger = read_ledger(storage)
    for decision in ("evaluated", "declined"):
        ledger = append(storage, ledger, written(ledger, decision, subject("one"), reasons=["too few encounters"]))
    assert (ledger.production, ledger.first, ledger.moved, ledger.newest_move) == (None, None, False, None)
    promote(storage, "1")
    ledger = read_ledger(storage)
    ledger = append(storage, ledger, written(ledger, "declined", subject("two"), reasons=["worse"]))
    assert (ledger.production, ledger.previous, ledger.moved) == ("1", None, True)
    assert ledger.entries[-1].reasons == ["worse"]
    assert ledger.newest_move.decision == "promoted"


def test_what_was_rolled_back_stays_out_with_all_that_is_the_same(storage):
    promote(storage, "1", "one")
    promote(storage, "2", "two")
    ledger = roll_back(storage, "1")
    out = ledger.entries[-1]
    assert (ledger.production, ledger.previous) == ("1", None)
    assert ledger.barred(subject("two")) == out
    assert ledger.barred(subject("calibrated", lineage=["two"])) == out
    assert ledger.barred(subject("trained again", content="content of two")) == out
    assert ledger.barred(subject("one")) is None
    assert ledger.barred(subject("three", lineage=["one"])) is None


def test_a_person_lets_a_version_return_until_it_is_rolled_back_again(storage):
    promote(storage, "1", "one")
    promote(storage, "2", "two")
    roll_back(storage, "1")
    ledger = promote(storage, "2", "two", allowed="it was the data")
    assert ledger.barred(subject("two")) is None
    ledger = roll_back(storage, "1")
    assert ledger.barred(subject("two")) == ledger.entries[-1]
    ledger = roll_back(storage, "2", allowed="it was the data after all")
    assert ledger.barred(subject("two")) is None
    assert ledger.barred(subject("one")) == ledger.entries[-1]


def test_going_back_skips_what_was_rolled_back(storage):
    for number, run_id in enumerate(("one", "two"), start=1):
        promote(storage, str(number), run_id)
    roll_back(storage, "1")
    ledger = promote(storage, "3", "three")
    assert (ledger.before("3"), ledger.before("2"), ledger.before("1")) == ("1", "1", None)


def test_a_question_is_the_same_for_an_equal_model_against_the_same_version(storage):
    ledger = read_ledger(storage)
    question = Question("table", None, 1)
    ledger = append(storage, ledger, written(ledger, "evaluated", subject("one"), question=question))
    assert ledger.asked(subject("one"), "table", None) == question
    assert ledger.asked(subject("again", content="content of one"), "table", None) == question
    assert ledger.asked(subject("two"), "table", None) is None
    assert ledger.asked(subject("one"), "other table", None) is None
    assert ledger.asked(subject("one"), "table", "1") is None
    ledger = append(storage, ledger, written(ledger, "declined", subject("one"), question=question))
    assert ledger.questions() == [question]


def test_an_adoption_brings_a_version_and_what_the_other_ledger_kept_out_and_asked(storage):
    promote(storage, "1", "one")
    promote(storage, "2", "two")
    left = roll_back(storage, "1").entries[-1]
    asked = Question("table", "1", 2)
    storage.delete(layout.LEDGER)
    empty = read_ledger(storage)
    adopted = written(empty, "adopted", subject("one", "1"), moves=("1", None), kept_out=[left], asked=[asked])
    ledger = append(storage, empty, adopted)
    assert (ledger.production, ledger.numbers, ledger.first, ledger.moved) == ("1", ["1"], adopted, True)
    assert (ledger.kept_out, ledger.questions()) == ([left], [asked])
    assert ledger.barred(subject("two")) == left
    assert ledger.barred(subject("one")) is None


def test_a_ledger_of_a_simulation_says_so_in_every_line(storage):
    ledger = read_ledger(storage)
    told = {"who": WHO, "registry": "http://mlflow", "model": "Invented", "simulation": "what-if"}
    ledger = append(storage, ledger, entry(ledger, "declined", subject("one"), **told))
    assert ledger.entries[0].simulation == "what-if"


def test_a_version_of_a_ledger_that_never_had_one_is_told_so(storage):
    with pytest.raises(ConflictError, match=r"these were: none$"):
        read_ledger(storage).version("1")


def test_the_digest_of_earlier_decisions_stays_what_it_was(storage):
    before = promote(storage, "1", "one")
    after = promote(storage, "2", "two")
    assert after.digest(1) == before.digest(1)
    assert after.digest(2) != before.digest(1)


def test_what_was_written_stays_as_it_was_written(storage):
    promote(storage, "1", "one")
    spaced = storage.read(layout.LEDGER).replace(b'":', b'": ')  # as another version may write the same
    storage.write(layout.LEDGER, spaced)
    before = read_ledger(storage).digest(1)
    assert promote(storage, "2", "two").digest(1) == before
    assert storage.read(layout.LEDGER).startswith(spaced)


def test_a_decision_made_on_an_old_ledger_is_told_so_and_not_written(storage):
    old = read_ledger(storage)
    promote(storage, "1")
    with pytest.raises(ConflictError, match=r"promotions.jsonl .* changed by somebody else"):
        append(storage, old, written(old, "promoted", subject("other", "2"), moves=("2", None)))
    assert [e.subject.run_id for e in read_ledger(storage).entries] == ["run"]


def test_of_many_decisions_at_once_one_is_written_and_the_ledger_stays_whole(storage):
    ledger = promote(storage, "1")
    workers = 4
    together = Barrier(workers)

    def decide(number: int) -> bool:
        together.wait(10)
        about = subject(f"run {number}", str(number))
        try:
            append(storage, ledger, written(ledger, "promoted", about, moves=(str(number), "1")))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(workers) as pool:
        won = list(pool.map(decide, range(2, 2 + workers)))
    assert sum(won) == 1
    entries = read_ledger(storage).entries
    assert [e.subject.run_id for e in entries] == ["run", f"run {2 + won.index(True)}"]


@pytest.mark.parametrize("line", [b"not json", b'{"at": "2026-01-01"}', b"[]"])
def test_a_line_that_is_no_entry_is_named(storage, line):
    promote(storage, "1")
    storage.write(layout.LEDGER, storage.read(layout.LEDGER) + line + b"\n")
    with pytest.raises(DataError, match=r"line 2 of .*promotions.jsonl"):
        read_ledger(storage)
