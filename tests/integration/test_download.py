import gzip
import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import factories
from factories import zipped
from file_server import CONTENT, send, serving
from health_predict.adapters.download import extract_csv, fetch_dataset, fingerprint, read_source
from health_predict.errors import DataError, StorageError


def _ignore(received: int, total: int | None) -> None:
    pass


def _start(handler: BaseHTTPRequestHandler) -> int:
    return int((handler.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def test_a_download_reports_its_progress():
    seen = []
    with serving(lambda handler, _: send(handler, 0, len(CONTENT))) as (url, _):
        assert fetch_dataset(url, lambda received, total: seen.append((received, total))) == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_broken_download_is_taken_up_where_it_broke():
    def cut_twice(handler, request):
        start = _start(handler)
        send(handler, start, len(CONTENT) if request == 3 else start + 100_000)

    with serving(cut_twice) as (url, asked):
        assert fetch_dataset(url, _ignore, pause=0) == CONTENT
    assert asked == [None, "bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_a_server_that_cannot_promise_the_same_file_is_asked_from_the_start(etag):
    def cut_once(handler, request):
        send(handler, 0, 100_000 if request == 1 else len(CONTENT), etag)

    with serving(cut_once) as (url, asked):
        assert fetch_dataset(url, _ignore, pause=0) == CONTENT
    assert asked == [None, None]


def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one():
    new = b"new" * 50_000

    def change(handler, request):
        if request == 1:
            send(handler, 0, 100_000)
        else:
            send(handler, 0, len(new), '"two"', new)

    with serving(change) as (url, _):
        assert fetch_dataset(url, _ignore, pause=0) == new


def test_a_download_that_keeps_breaking_says_what_else_can_be_done():
    says = r"cannot download .*--from FILE.*demo --synthetic"
    breaking = serving(lambda handler, _: send(handler, 0, 10, ""))
    with breaking as (url, asked), pytest.raises(StorageError, match=says):
        fetch_dataset(url, _ignore, attempts=3, pause=0)
    assert len(asked) == 3


def test_a_server_in_trouble_is_asked_again_and_a_refusal_is_not():
    def recover(handler, request):
        if request == 1:
            handler.send_error(503)
        else:
            send(handler, 0, len(CONTENT))

    with serving(recover) as (url, _):
        assert fetch_dataset(url, _ignore, pause=0) == CONTENT
    refusing = serving(lambda handler, _: handler.send_error(404))
    with refusing as (url, asked), pytest.raises(StorageError, match="404"):
        fetch_dataset(url, _ignore, pause=0)
    assert len(asked) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.zip", "ftp://example.invalid/x.zip", "no address"])
def test_no_network_says_both_ways_out(url):
    with pytest.raises(StorageError, match=r"--from FILE.*HEALTH_PREDICT_RAW_DATA.*demo --synthetic"):
        fetch_dataset(url, _ignore, pause=0)


CSV = factories.raw_csv()


@pytest.mark.parametrize("content", [CSV, zipped(diabetic_data=CSV), zipped(a__b__diabetic_data=CSV, IDs_mapping=b"x")])
def test_the_csv_is_found_at_any_depth(content):
    assert extract_csv(content) == CSV


ZIP = zipped(diabetic_data=CSV)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (ZIP[:-1], "cut short or damaged"),
        (ZIP[: len(ZIP) // 2], "cut short or damaged"),
        (ZIP[:200] + bytes(50) + ZIP[250:], "cut short or damaged"),
        (zipped(other=b"x"), "0 files named diabetic_data.csv"),
        (zipped(a__diabetic_data=CSV, b__diabetic_data=CSV), "2 files named diabetic_data.csv"),
    ],
    ids=["last byte missing", "half", "damaged inside", "another dataset", "two datasets"],
)
def test_a_zip_that_is_damaged_or_another_one_is_refused(content, says):
    with pytest.raises(DataError, match=says):
        extract_csv(content)


def test_a_name_with_brackets_is_that_file(storage):
    for name in ("data[1].csv", "data1.csv", "data?.csv", "data*.csv", "data%20.csv"):
        storage.write(name, name.encode())
    assert read_source(storage.path("data[1].csv")) == b"data[1].csv"
    assert read_source(storage.path("data?.csv")) == b"data?.csv"
    assert read_source(storage.path("data*.csv")) == b"data*.csv"
    assert read_source(storage.path("data%20.csv")) == b"data%20.csv"


def test_a_local_name_that_is_not_utf8_is_read_and_shown(tmp_path):
    name = os.fsdecode(os.fsencode(str(tmp_path)) + b"/donn\xe9es.csv")
    with pytest.raises(StorageError, match="donn\ufffdes"):
        read_source(name)
    Path(name).write_bytes(CSV)
    assert read_source(name) == CSV


def test_a_gzipped_csv_is_unpacked_and_a_damaged_one_refused():
    packed = gzip.compress(CSV)
    assert extract_csv(packed) == CSV
    with pytest.raises(DataError, match="cut short or damaged"):
        extract_csv(packed[:-20])


def test_line_ends_do_not_change_the_fingerprint():
    assert fingerprint(CSV.replace(b"\n", b"\r\n")) == fingerprint(CSV) != fingerprint(CSV[:-1])


def test_a_source_is_a_local_file_or_in_a_bucket(storage, tmp_path, monkeypatch):
    storage.write("their/data.csv", CSV)
    assert read_source(storage.path("their/data.csv")) == CSV
    (tmp_path / "here.csv").write_bytes(CSV)
    monkeypatch.chdir(tmp_path)
    assert read_source("here.csv") == CSV
    with pytest.raises(StorageError, match=r"nowhere\.csv cannot be read: No such file"):
        read_source("nowhere.csv")
    with pytest.raises(StorageError, match="it is a folder"):
        read_source(str(tmp_path))
