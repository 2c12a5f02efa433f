import json
import os
from dataclasses import asdict
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

import factories
from factories import zipped
from file_server import CONTENT, send, serving
from health_predict.data.cohort import select_cohort
from health_predict.data.decode import encode
from health_predict.errors import DataError, StorageError
from health_predict.params import GateParams, SplitParams, ValidationParams
from health_predict.steps.data.fetch import fetch
from health_predict.steps.data.split import plan_split, split
from health_predict.steps.data.validate import validate
from health_predict.store import layout
from health_predict.store.replay import future_batches
from health_predict.store.storage import Folder
from health_predict.store.tables import read_json, read_table, write_json

NO_NETWORK = "http://127.0.0.1:9/dataset.zip"
TABLE = factories.encounters(1_000)
CSV = factories.raw_csv(TABLE)


def _ignore(received: int, total: int | None) -> None:
    pass


def _fetch(storage, path: Path, content: bytes):
    path.write_bytes(content)
    return fetch(storage, str(path), NO_NETWORK, None, _ignore)


def _contents(storage) -> dict[str, bytes]:
    return {key: storage.read(key) for key in storage.list()}


def test_from_file_to_splits_and_again(storage, tmp_path):
    def run():
        return (
            _fetch(storage, tmp_path / "d.zip", zipped(folder__diabetic_data=CSV)),
            validate(storage, ValidationParams()),
            split(storage, SplitParams()),
        )

    fetched, validated, divided = first = run()
    assert (fetched.key, fetched.rows, fetched.published, fetched.synthetic) == (
        "raw_data/dataset.zip",
        1_000,
        False,
        False,
    )
    assert (validated.rows, validated.accepted, validated.quarantined) == (1_000, 1_000, 0)
    cohort = select_cohort(TABLE)
    assert divided.rows == cohort.height == 1_000 - divided.excluded
    assert sum(part.rows for part in divided.parts) == cohort.height
    assert read_table(storage, layout.VALIDATED).equals(TABLE)
    keys = [layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST]
    keys += [layout.future_batch(number) for number in range(1, 11)]
    assert [part.key for part in divided.parts] == keys
    together = pl.concat(read_table(storage, key) for key in keys)
    assert together.sort("encounter_id").equals(cohort)

    before = _contents(storage)
    again = run()
    assert [result.skipped for result in first] == [False] * 3
    assert [result.skipped for result in again] == [True] * 3
    assert [{**asdict(result), "skipped": False} for result in again] == [asdict(result) for result in first]
    assert _contents(storage) == before
    assert json.loads(json.dumps(asdict(divided)))["parts"][0]["key"] == layout.INITIAL_TRAIN


def test_the_same_data_give_the_same_bytes_in_another_store(tmp_path):
    stores = [Folder(str(tmp_path / name)) for name in ("one", "two")]
    for store in stores:
        _fetch(store, tmp_path / "d.csv", CSV)
        validate(store, ValidationParams())
        split(store, SplitParams())
    assert _contents(stores[0]) == _contents(stores[1])


def test_invented_data_are_marked_in_every_manifest(tmp_path):
    store = Folder(str(tmp_path))
    assert fetch(store, None, NO_NETWORK, 1_000, _ignore).synthetic
    assert validate(store, ValidationParams()).synthetic
    assert split(store, SplitParams()).synthetic
    assert fetch(store, None, NO_NETWORK, 1_000, _ignore).skipped
    for manifest in (layout.RAW_MANIFEST, layout.VALIDATION_MANIFEST, layout.SPLIT_MANIFEST):
        assert read_json(store, manifest)["result"]["synthetic"] is True


def test_real_data_after_invented_ones_lose_the_mark_though_the_rows_are_the_same(tmp_path):
    store = Folder(str(tmp_path / "store"))
    fetch(store, None, NO_NETWORK, 1_000, _ignore)
    validate(store, ValidationParams())
    split(store, SplitParams())
    assert not _fetch(store, tmp_path / "d.csv", store.read("raw_data/dataset.csv")).skipped
    assert not validate(store, ValidationParams()).synthetic
    assert not split(store, SplitParams()).synthetic


def test_a_download_is_not_repeated(tmp_path):
    store = Folder(str(tmp_path))
    content = zipped(diabetic_data=CSV)
    with serving(lambda handler, _: send(handler, 0, len(content), content=content)) as (url, asked):
        assert not fetch(store, None, url, None, _ignore).skipped
        assert fetch(store, None, url, None, _ignore).skipped
        store.write("raw_data/dataset.zip", b"altered")
        assert not fetch(store, None, url, None, _ignore).skipped
    assert len(asked) == 2


def test_another_file_than_the_published_one_is_refused_from_uci_only(tmp_path, monkeypatch):
    store = Folder(str(tmp_path))
    content = zipped(diabetic_data=CSV)
    with serving(lambda handler, _: send(handler, 0, len(content), content=content)) as (url, _):
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with pytest.raises(DataError, match="another file than the one published: SHA-256 "):
            fetch(store, None, "http://archive.ics.uci.edu/dataset.zip", None, _ignore)
        assert store.list() == []
        assert not fetch(store, None, "http://mirror.invalid/dataset.zip", None, _ignore).published


def test_without_network_or_file_both_ways_out_are_named(tmp_path):
    store = Folder(str(tmp_path))
    with pytest.raises(StorageError, match=r"--from FILE.*HEALTH_PREDICT_RAW_DATA.*demo --synthetic") as caught:
        fetch(store, None, "no address", None, _ignore)
    assert caught.value.exit_code == 11
    assert store.list() == []


ZIP = zipped(diabetic_data=CSV)
BROKEN = {
    "truncated zip": ZIP[:-500],
    "foreign zip": zipped(other=b"x"),
    "empty file": b"",
    "not a dataset": CONTENT,
    "missing column": CSV.replace(b"race,", b"", 1),
    "renamed column": CSV.replace(b"gender,", b"sex,", 1),
    "cut line": CSV[:-60],
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_is_not_the_dataset_leaves_what_was_there(tmp_path, content):
    store = Folder(str(tmp_path / "store"))
    with pytest.raises(DataError) as caught:
        _fetch(store, tmp_path / "bad", content)
    assert caught.value.exit_code == 10
    assert store.list() == []
    _fetch(store, tmp_path / "good", CSV)
    before = _contents(store)
    with pytest.raises(DataError):
        _fetch(store, tmp_path / "bad", content)
    assert _contents(store) == before


def test_a_wrong_type_in_every_row_is_refused_and_nothing_is_written(tmp_path):
    store = Folder(str(tmp_path / "store"))
    wrong = TABLE.with_columns(time_in_hospital=pl.lit("long"))
    _fetch(store, tmp_path / "d.csv", factories.raw_csv(wrong))
    before = store.list()
    with pytest.raises(DataError, match="time_in_hospital is not a whole number from 1 to 365 in 1000 rows"):
        validate(store, ValidationParams())
    assert store.list() == before


def test_a_bad_row_is_in_the_quarantine_and_not_in_the_splits(tmp_path):
    store = Folder(str(tmp_path / "store"))
    _fetch(store, tmp_path / "d.csv", CSV + CSV.splitlines()[1])
    report = validate(store, ValidationParams())
    assert (report.accepted, report.quarantined) == (1_000, 1)
    quarantine = pl.read_csv(store.read(layout.QUARANTINE))
    assert quarantine.select("line", "reason").row(0) == (1002, "encounter_id is in an earlier line too")
    assert validate(store, ValidationParams()).findings == report.findings


def test_a_step_before_its_turn_names_the_command_that_is_missing(storage):
    with pytest.raises(StorageError, match="run `health-predict data fetch` first"):
        validate(storage, ValidationParams())
    with pytest.raises(StorageError, match="run `health-predict data validate` first"):
        split(storage, SplitParams())
    assert storage.list() == []


def test_other_parameters_make_other_files_and_leave_no_old_batch(tmp_path):
    store = Folder(str(tmp_path))
    fetch(store, None, NO_NETWORK, 1_000, _ignore)
    validate(store, ValidationParams())
    split(store, SplitParams(batches=10))
    assert not split(store, SplitParams(batches=4)).skipped
    assert store.list(layout.FUTURE) == [layout.future_batch(number) for number in range(1, 5)]


def test_an_altered_or_lost_file_is_made_again_and_never_read(tmp_path):
    store = Folder(str(tmp_path))
    fetch(store, None, NO_NETWORK, 1_000, _ignore)
    validate(store, ValidationParams())
    split(store, SplitParams())
    whole = _contents(store)
    store.delete(layout.future_batch(3))
    assert not split(store, SplitParams()).skipped
    store.write(layout.VALIDATED, b"altered")
    with pytest.raises(StorageError, match=r"not what .* records; run `health-predict data validate` again"):
        split(store, SplitParams())
    assert not validate(store, ValidationParams()).skipped
    assert _contents(store) == whole


def test_a_store_that_refuses_writes_in_the_middle_leaves_no_finished_split(tmp_path):
    store = Folder(str(tmp_path))
    fetch(store, None, NO_NETWORK, 1_000, _ignore)
    validate(store, ValidationParams())
    (tmp_path / "processed_data" / "future").write_bytes(b"in the way")
    with pytest.raises(StorageError, match="a part of the path is a file, not a folder"):
        split(store, SplitParams())
    assert not store.exists(layout.SPLIT_MANIFEST)
    (tmp_path / "processed_data" / "future").unlink()
    assert not split(store, SplitParams()).skipped


RAW_DATA = os.environ.get("HEALTH_PREDICT_RAW_DATA")


@pytest.mark.skipif(not RAW_DATA, reason="HEALTH_PREDICT_RAW_DATA names no copy of the dataset")
def test_the_published_dataset_has_no_bad_row_and_the_known_cohort(tmp_path):
    store = Folder(str(tmp_path))
    fetched = fetch(store, RAW_DATA, NO_NETWORK, None, _ignore)
    assert fetched.published
    assert fetched.rows == 101_766
    assert validate(store, ValidationParams()).quarantined == 0
    divided = split(store, SplitParams())
    assert (divided.rows, divided.excluded) == (99_343, 2_423)
    rows = [part.rows for part in divided.parts]
    assert sum(rows[:3]) == 19_868
    assert rows[-1] == 11_201  # the block whose order is not known
    assert divided.parts[0].readmitted_within_30_days == pytest.approx(0.114, abs=0.001)
    assert (divided.by_date, divided.warnings) == (None, ())


@pytest.fixture
def validated(tmp_path) -> Folder:
    store = Folder(str(tmp_path / "store"))
    fetch(store, None, NO_NETWORK, 1_000, _ignore)
    validate(store, ValidationParams())
    return store


def test_a_plan_says_what_a_split_leads_to_and_writes_nothing(validated):
    before = {key: validated.read(key) for key in validated.list()}
    planned = plan_split(validated, SplitParams(batches=3))
    assert {key: validated.read(key) for key in validated.list()} == before
    assert split(validated, SplitParams(batches=3)) == planned
    assert sum(part.rows for part in planned.parts) == planned.rows
    assert not plan_split(validated, SplitParams(), GateParams(min_rows=10**9)).gate_can_decide


def test_without_batches_everything_is_labelled_history(validated):
    divided = split(validated, SplitParams(batches=0))
    assert [part.key for part in divided.parts] == [
        layout.INITIAL_TRAIN,
        layout.INITIAL_VALIDATION,
        layout.INITIAL_TEST,
    ]
    assert sum(part.rows for part in divided.parts) == divided.rows
    assert future_batches(validated) == {}


def test_a_result_that_another_version_recorded_is_made_again(validated):
    split(validated, SplitParams())
    record = read_json(validated, layout.SPLIT_MANIFEST)
    del record["result"]["gate_can_decide"]
    write_json(validated, layout.SPLIT_MANIFEST, record)
    assert not split(validated, SplitParams()).skipped
    assert split(validated, SplitParams()).skipped


def dated(rows: int = 1_000, column: str = "discharged_on") -> tuple[pl.DataFrame, bytes]:
    """Encounters with ids in the order of their days of discharge, four a day, in a file that is not in that order;
    and the file."""
    table = factories.encounters(rows)
    day = pl.lit(date(2024, 1, 1)) + pl.duration(days=pl.int_range(pl.len()) // 4)
    mixed = table.with_columns(day.dt.strftime("%Y-%m-%d").alias(column)).sample(fraction=1, shuffle=True, seed=1)
    raw = pl.read_csv(encode(mixed.drop(column)), infer_schema=False).with_columns(mixed[column])
    return mixed, raw.write_csv().encode()


def made(store, path: Path, content: bytes, column: str = "discharged_on"):
    path.write_bytes(content)
    fetch(store, str(path), NO_NETWORK, None, _ignore, column)
    return validate(store, ValidationParams(), clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))


def test_a_dataset_is_divided_by_its_days_of_discharge(tmp_path):
    store, (table, content) = Folder(str(tmp_path / "store")), dated(column="dt_alta")
    report = made(store, tmp_path / "d.csv", content, "dt_alta")
    assert (report.accepted, report.dated, report.discharge_column) == (1_000, 1_000, "dt_alta")
    divided = split(store, SplitParams(batches=4), by_date="dt_alta")
    parts = [read_table(store, part.key) for part in divided.parts]
    assert [part.columns == table.drop("dt_alta").columns for part in parts] == [True] * 7
    day = dict(table.select("encounter_id", "dt_alta").iter_rows())
    days = [sorted(day[one] for one in part["encounter_id"]) for part in parts]
    assert [(one[0], one[-1]) for one in days] == [(part.first_day, part.last_day) for part in divided.parts]
    assert all(early[-1] <= late[0] for early, late in pairwise(days[2:]))
    assert max(one[-1] for one in days[:3]) <= days[3][0]
    assert split(store, SplitParams(batches=4), by_date="dt_alta").skipped
    assert plan_split(store, SplitParams(batches=4), by_date="dt_alta") == divided
    (warning,) = divided.warnings
    assert "in the last 90 days" in warning


def test_an_order_of_the_file_that_its_days_contradict_is_refused_with_what_to_say(tmp_path):
    store, (_, content) = Folder(str(tmp_path / "store")), dated()
    made(store, tmp_path / "d.csv", content)
    before = _contents(store)
    for do in (split, plan_split):
        with pytest.raises(
            DataError, match=r"not that of time: .* `health-predict data split --by-date discharged_on`"
        ):
            do(store, SplitParams())
    assert _contents(store) == before


def test_ids_that_do_not_follow_the_days_are_a_warning(tmp_path):
    store, (table, _) = Folder(str(tmp_path / "store")), dated()
    shuffled = table.with_columns(pl.col("encounter_id").shuffle(seed=2))
    raw = pl.read_csv(encode(shuffled.drop("discharged_on")), infer_schema=False).with_columns(table["discharged_on"])
    made(store, tmp_path / "d.csv", raw.write_csv().encode())
    planned = plan_split(store, SplitParams(), by_date="discharged_on")
    assert "encounter_id does not increase with discharged_on" in planned.warnings[0]


def test_encounters_without_a_day_are_left_out_while_they_are_few(tmp_path):
    store, (_, content) = Folder(str(tmp_path / "store")), dated()
    lines = content.decode().splitlines()
    for count, path in ((8, "few.csv"), (60, "many.csv")):
        cut = [line.rpartition(",")[0] + ",?" for line in lines[1 : count + 1]]
        report = made(store, tmp_path / path, "\n".join([lines[0], *cut, *lines[count + 1 :], ""]).encode())
        assert report.dated == 1_000 - count
        if count == 60:
            with pytest.raises(DataError, match=r"encounters have no discharged_on, more than 1.0%"):
                split(store, SplitParams(), by_date="discharged_on")
        else:
            divided = split(store, SplitParams(), by_date="discharged_on")
            assert 0 < divided.undated <= 8
            assert sum(part.rows for part in divided.parts) == divided.rows - divided.undated


@pytest.mark.parametrize(
    ("day", "said"), [("31/01/2024", "format it as yyyy-mm-dd"), ("2026-01-05", "discharged_on is still to come")]
)
def test_days_that_cannot_be_are_refused_and_no_value_is_told(tmp_path, day, said):
    store, (_, content) = Folder(str(tmp_path / "store")), dated()
    lines = content.decode().splitlines()
    bad = [line.rpartition(",")[0] + f",{day}" for line in lines[1:]]
    with pytest.raises(DataError, match=said) as refused:
        made(store, tmp_path / "d.csv", "\n".join([lines[0], *bad, ""]).encode())
    assert day not in str(refused.value)


def test_a_column_that_was_not_read_as_days_cannot_order(tmp_path, validated):
    with pytest.raises(DataError, match="no column dt_alta that was read as days of discharge"):
        split(validated, SplitParams(), by_date="dt_alta")


def test_ids_that_decrease_in_a_file_without_days_are_a_warning(tmp_path):
    store = Folder(str(tmp_path / "store"))
    _fetch(store, tmp_path / "d.csv", factories.raw_csv(TABLE.sample(fraction=1, shuffle=True, seed=1)))
    validate(store, ValidationParams())
    (warning,) = split(store, SplitParams()).warnings
    assert "encounter_id does not increase in the file" in warning


def test_days_of_an_earlier_file_are_gone_with_it(tmp_path):
    store, (_, content) = Folder(str(tmp_path / "store")), dated()
    made(store, tmp_path / "d.csv", content)
    assert made(store, tmp_path / "other.csv", CSV).discharge_column is None
    assert layout.DISCHARGES not in store.list()
    assert split(store, SplitParams()).parts[0].first_day is None


def test_another_bound_of_the_gate_makes_the_split_anew(validated):
    assert not split(validated, SplitParams(), GateParams(min_rows=10**9)).gate_can_decide
    divided = split(validated, SplitParams(), GateParams(min_rows=1, min_outcomes=1))
    assert (divided.gate_can_decide, divided.skipped) == (True, False)
