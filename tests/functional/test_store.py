"""A store as commands meet it: empty, of another layout, or left by a process that was killed."""

import json
import stat
from pathlib import Path

import pytest

from health_predict.store import layout
from health_predict.store.storage import Folder


@pytest.mark.parametrize(
    "command", [("status",), ("predict", "--in", "a.csv", "--out", "b.csv"), ("monitor", "--batch", "1")]
)
def test_a_look_at_nothing_makes_nothing(tmp_path, health_predict, command):
    result = health_predict(tmp_path / "store", *command)
    assert result.code in (0, 11, 12)
    assert not (tmp_path / "store").exists()


def test_a_store_of_another_layout_is_told_in_one_sentence_and_left_alone(tmp_path, health_predict):
    root = tmp_path / "store"
    manifest = json.dumps({"inputs": {"origin": "file"}, "files": {}, "result": {}})
    Folder(str(root)).write(layout.RAW_MANIFEST, manifest.encode())
    for command in (("status",), ("train",), ("promote",), ("data", "split")):
        result = health_predict(root, *command)
        assert result.code == 11
        assert "has layout 1 of Health Predict's stores, and this version reads layout 2" in result.err
        assert "HEALTH_PREDICT_STORAGE" in result.err
    assert Folder(str(root)).list() == [layout.RAW_MANIFEST]


def test_a_study_is_asked_for_with_its_protocol(tmp_path, health_predict):
    result = health_predict(tmp_path, "evaluate", "--target", "any")
    assert result.code == 2
    assert "--protocol" in result.err


def test_files_are_for_their_owner_alone_and_what_a_killed_writer_left_is_gone_after_the_next(tmp_path):
    storage = Folder(str(tmp_path))
    left = tmp_path / "tables" / ".0123456789abcdef.tmp"
    left.parent.mkdir()
    left.write_bytes(b"rows of patients")
    storage.write("tables/new.parquet", b"rows")
    assert stat.S_IMODE(Path(storage.path("tables/new.parquet")).stat().st_mode) == 0o600
    assert not left.exists()
