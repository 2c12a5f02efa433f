"""A step asks the store for each document once, and sees what it has written itself."""

from collections import Counter

import pytest

from health_predict.errors import ConflictError, StorageError
from health_predict.store.read_once import ReadOnce
from health_predict.store.storage import Folder


class Counted(Folder):
    """A folder that counts what it is asked."""

    def __init__(self, root: str):
        super().__init__(root)
        self.asked: Counter[str] = Counter()

    def read_with_state(self, key):
        self.asked[key] += 1
        return super().read_with_state(key)

    def list(self, prefix=""):
        self.asked[f"{prefix}*"] += 1
        return super().list(prefix)


@pytest.fixture
def store(tmp_path) -> Counted:
    found = Counted(str(tmp_path / "store"))
    found.write("a/one", b"1")
    return found


def test_what_was_looked_for_read_or_listed_is_not_asked_for_again(store):
    once = ReadOnce(store)
    for _ in range(3):
        assert once.exists("a/one")
        assert not once.exists("a/two")
        assert once.read("a/one") == b"1"
        assert once.list("a/") == ["a/one"]
        with pytest.raises(StorageError, match="a/two is not in "):
            once.read("a/two")
    assert store.asked == {"a/one": 1, "a/two": 1, "a/*": 1}


def test_a_step_sees_what_it_has_written_and_deleted(store):
    once = ReadOnce(store)
    assert not once.exists("a/two")
    assert once.list() == once.list("a/") == ["a/one"]
    once.write("a/two", b"2")
    assert once.read("a/two") == b"2"
    assert once.list("a/") == once.list() == ["a/one", "a/two"]
    once.delete("a/one")
    assert not once.exists("a/one")
    assert once.list("a/") == ["a/two"]


def test_a_conditional_write_is_refused_where_somebody_wrote_since_it_was_read(store):
    once = ReadOnce(store)
    _, state = once.read_with_state("a/one")
    store.write("a/one", b"of another")
    assert once.read("a/one") == b"1"  # one moment for the whole step
    with pytest.raises(ConflictError):
        once.write_if("a/one", b"2", state)
    assert once.read("a/one") == b"of another"  # and the refusal begins another


def test_a_list_that_was_given_belongs_to_who_asked(store):
    once = ReadOnce(store)
    once.list("a/").clear()
    assert once.list("a/") == ["a/one"]


def test_below_prefixes_what_is_there_is_remembered_and_what_is_not_is_looked_for_again(store):
    kept = ReadOnce(store, ("a/",))
    for _ in range(2):
        assert kept.exists("a/one")
        assert kept.read("a/one") == b"1"
        with pytest.raises(StorageError):
            kept.read("a/two")
    assert store.asked == {"a/one": 1, "a/two": 2}
    store.write("a/two", b"2")
    store.write("b", b"3")
    assert kept.read("a/two") == b"2"
    assert kept.read("b") == b"3"
    store.write("b", b"4")
    assert kept.read("b") == b"4"
    assert kept.list() == ["a/one", "a/two", "b"]
    store.delete("b")
    assert not kept.exists("b")
    assert kept.list() == ["a/one", "a/two"]
