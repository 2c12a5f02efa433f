import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from health_predict.errors import ConflictError, StorageError
from health_predict.store.storage import Folder, open_storage


def test_what_was_written_is_read_listed_and_deleted(storage):
    assert storage.list() == []
    storage.write("b/two.json", b"2")
    storage.write("a.txt", b"")
    storage.write("b/two.json", b"22")
    assert storage.read("b/two.json") == b"22"
    assert storage.read("a.txt") == b""
    assert storage.list() == ["a.txt", "b/two.json"]
    storage.delete("a.txt")
    storage.delete("a.txt")
    assert storage.list() == ["b/two.json"]


def test_list_takes_a_prefix_that_may_end_inside_a_name(storage):
    for key in ("future/batch_02", "future/batch_10", "future/batch_01", "futures", "past/batch_01"):
        storage.write(key, b"x")
    assert storage.list("future/") == ["future/batch_01", "future/batch_02", "future/batch_10"]
    assert storage.list("future/batch_0") == ["future/batch_01", "future/batch_02"]
    assert storage.list("fut") == ["future/batch_01", "future/batch_02", "future/batch_10", "futures"]
    assert storage.list("none/at/all") == []


def test_exists_means_exactly_this_key(storage):
    storage.write("models/7/model.onnx", b"x")
    assert storage.exists("models/7/model.onnx")
    assert not storage.exists("models/7")
    assert not storage.exists("models/7/model.onn")
    assert not storage.exists("models/7/model.onnx/deeper")


def test_a_missing_key_is_an_error_that_names_key_and_root(storage):
    with pytest.raises(StorageError, match=r"nowhere\.json is not in ") as caught:
        storage.read("nowhere.json")
    assert storage.root in str(caught.value)
    assert caught.value.exit_code == 11
    assert storage.read_with_state("nowhere.json") is None


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a/.hidden", "a\\b", "a\nb"]
)
def test_no_key_leaves_the_root(storage, key):
    for use in (storage.read, storage.exists, storage.delete, storage.path, lambda key: storage.write(key, b"x")):
        with pytest.raises(StorageError, match="is not a storage key"):
            use(key)
    assert storage.list() == []


def test_paths_say_where_a_key_is(storage):
    assert storage.path("a/b.json") == f"{storage.root}/a/b.json"


def test_write_if_writes_over_the_version_that_was_read(storage):
    storage.write_if("ledger", b"1", None)
    content, version = storage.read_with_state("ledger")
    storage.write_if("ledger", content + b"2", version)
    assert storage.read("ledger") == b"12"
    assert storage.list() == ["ledger"]


def test_of_two_writers_one_wins_and_the_other_is_told(storage_root):
    first, second = open_storage(storage_root), open_storage(storage_root)
    first.write("ledger", b"start")
    (_, seen_by_first), (_, seen_by_second) = first.read_with_state("ledger"), second.read_with_state("ledger")
    first.write_if("ledger", b"first", seen_by_first)
    with pytest.raises(ConflictError, match=r"ledger in .* was changed by somebody else") as caught:
        second.write_if("ledger", b"second", seen_by_second)
    assert caught.value.exit_code == 14
    assert second.read("ledger") == b"first"


def test_write_if_sees_that_a_key_came_or_went(storage):
    storage.write("here", b"x")
    with pytest.raises(ConflictError):
        storage.write_if("here", b"y", None)
    _, version = storage.read_with_state("here")
    storage.delete("here")
    with pytest.raises(ConflictError):
        storage.write_if("here", b"y", version)
    assert storage.list() == []


def test_many_writers_at_once_lose_nothing(tmp_path):
    def append(line: int) -> None:
        store = Folder(str(tmp_path))
        while True:
            content, version = store.read_with_state("ledger") or (b"", None)
            try:
                return store.write_if("ledger", content + b"%d\n" % line, version)
            except ConflictError:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(24)))
    assert sorted(map(int, Folder(str(tmp_path)).read("ledger").split())) == list(range(24))


@pytest.mark.parametrize("root", ["", "gs://bucket/x", "s3://", "s3:///x", "s3://bucket/../x"])
def test_a_root_that_is_neither_folder_nor_bucket_is_refused(root):
    with pytest.raises(StorageError, match=r"is not a storage|names no bucket"):
        open_storage(root)


def test_a_bucket_that_does_not_exist_is_named_by_every_use(s3_root):
    store = open_storage("s3://no-such-bucket-here/x")
    uses = (store.read, store.exists, store.read_with_state, store.list, lambda key: store.write(key, b"x"))
    for use in uses:
        with pytest.raises(StorageError, match=r"no-such-bucket-here/x: the bucket does not exist"):
            use("key")
    with pytest.raises(StorageError, match="the bucket does not exist"):
        store.write_if("key", b"x", None)


def test_a_bucket_without_credentials_or_connection_is_an_error_that_says_so(s3_root, monkeypatch, tmp_path):
    with pytest.raises(StorageError, match=r"cannot write 'key' in .*: Could not connect to the endpoint URL"):
        open_storage(s3_root, "http://127.0.0.1:9").write_if("key", b"x", None)
    with pytest.raises(StorageError, match="is not the address of an S3 endpoint"):
        open_storage(s3_root, "not an address").read("key")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="Unable to locate credentials"):
        open_storage(s3_root).read("key")


def test_keys_outside_the_prefix_are_not_seen(s3_root):
    bucket = s3_root.removeprefix("s3://").split("/")[0]
    client = boto3.session.Session().client("s3")
    client.put_object(Bucket=bucket, Key="some/prefixed", Body=b"x")
    client.put_object(Bucket=bucket, Key="other", Body=b"x")
    client.close()
    assert open_storage(s3_root).list() == []


def test_a_root_below_a_file_refuses_writes(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    store = open_storage(str(tmp_path / "file" / "store"))
    with pytest.raises(StorageError, match=r"cannot write 'key' in .*: a part of the path is a file, not a folder"):
        store.write("key", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_refuses_writes(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match=r"cannot write 'key' in .*: permission denied"):
        open_storage(str(tmp_path)).write("key", b"x")


def _on_a_small_disk(folder: Path, options: str, script: str) -> str:
    """Output of a Python script that runs with a file system of 64 KiB at the folder."""
    mounted = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=64k tmpfs '{folder}'"
    if not shutil.which("unshare") or subprocess.run([*mounted, mount], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a small file system")
    command = f"{mount} && {options} '{sys.executable}' -c \"$SCRIPT\" '{folder}'"
    done = subprocess.run(
        [*mounted, command], capture_output=True, check=True, text=True, env={**os.environ, "SCRIPT": script}
    )
    return done.stdout


WRITE_TOO_MUCH = """
import sys
from health_predict.errors import StorageError
from health_predict.store.storage import open_storage

store = open_storage(sys.argv[1])
try:
    store.write("key", b"old")
    store.write("key", bytes(100_000))
except StorageError as error:
    print(error)
print(store.list(), [store.read(key) for key in store.list()])
"""


def test_a_full_disk_leaves_the_old_content_and_nothing_else(tmp_path):
    said, left = _on_a_small_disk(tmp_path, "", WRITE_TOO_MUCH).splitlines()
    assert said == f"cannot write 'key' in {tmp_path}: the disk is full"
    assert left == "['key'] [b'old']"


def test_a_read_only_disk_says_so(tmp_path):
    said, left = _on_a_small_disk(tmp_path, f"mount -o remount,ro '{tmp_path}' &&", WRITE_TOO_MUCH).splitlines()
    assert said == f"cannot write 'key' in {tmp_path}: the file system is read-only"
    assert left == "[] []"


WRITE_FOREVER = """
import sys
from health_predict.store.storage import open_storage

store = open_storage(sys.argv[1])
contents = [bytes([number]) * 20_000_000 for number in (1, 2)]
store.write("key", contents[0])
print("ready", flush=True)
while True:
    for content in contents:
        store.write("key", content)
"""


def test_a_killed_writer_leaves_one_whole_content(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        writer.send_signal(signal.SIGKILL)
    store = open_storage(str(tmp_path))
    assert store.list() == ["key"]
    content = store.read("key")
    assert len(content) == 20_000_000
    assert len(set(content)) == 1


def test_connecting_asks_the_store_nothing(s3_root):
    open_storage("s3://no-such-bucket/prefix", "http://127.0.0.1:9").connect()
    with pytest.raises(StorageError, match="endpoint"):
        open_storage(s3_root, "no address").connect()
