"""Scoring files where they are: a folder or S3, CSV or Parquet, by the step and by the command."""

import io
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import factories
from health_predict.bundle.model import load_bundle
from health_predict.data.cohort import select_cohort
from health_predict.errors import BundleError, DataError, StorageError
from health_predict.steps.model.predict import predict
from health_predict.store.bundle_copies import copy_bundle
from health_predict.store.storage import open_storage
from serving.support import Worker, export_bundle, free_port
from stores import environment_of


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory):
    return export_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return load_bundle(bundle_folder)


@pytest.fixture(scope="module")
def encounters():
    return select_cohort(factories.encounters(700, seed=77))


def contents(table: pl.DataFrame, suffix: str) -> bytes:
    if suffix == "csv":
        return factories.raw_csv(table)
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


def scores(storage, key: str) -> pl.DataFrame:
    read = pl.read_csv if key.endswith("csv") else pl.read_parquet
    return read(io.BytesIO(storage.read(key)))


def upload(folder, storage):
    for file in folder.iterdir():
        storage.write(file.name, file.read_bytes())


def silent(_done, _total):
    pass


@pytest.mark.parametrize("source", ["csv", "parquet"])
@pytest.mark.parametrize("target", ["csv", "parquet"])
def test_a_file_of_either_kind_is_scored_where_it_is(bundle, encounters, storage, s3_endpoint, source, target):
    storage.write(f"in.{source}", contents(encounters, source))
    seen = []
    report = predict(
        bundle,
        storage.path(f"in.{source}"),
        storage.path(f"deep/out.{target}"),
        lambda done, total: seen.append((done, total)),
        s3_endpoint,
    )
    found = scores(storage, f"deep/out.{target}")
    assert found["probability_score"].to_list() == bundle.predict_proba(encounters).tolist()
    kept = pl.String if (source, target) == ("csv", "parquet") else pl.Int64  # of CSV every value is text
    assert found["encounter_id"].equals(encounters["encounter_id"].cast(kept))
    assert report.target == storage.path(f"deep/out.{target}")
    assert seen[-1] == (encounters.height, encounters.height if source == "parquet" else None)


def test_a_failed_run_leaves_what_was_there(bundle, encounters, storage, s3_endpoint):
    storage.write("in.parquet", contents(encounters.with_columns(age=pl.lit("planted")), "parquet"))
    storage.write("out.parquet", b"old")
    with pytest.raises(DataError) as refused:
        predict(bundle, storage.path("in.parquet"), storage.path("out.parquet"), silent, s3_endpoint)
    assert "planted" not in str(refused.value)
    assert storage.read("out.parquet") == b"old"
    assert storage.list() == ["in.parquet", "out.parquet"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_that_is_not_there_is_named(bundle, storage, s3_endpoint, suffix):
    with pytest.raises(StorageError, match=rf"nowhere\.{suffix} does not exist"):
        predict(bundle, storage.path(f"nowhere.{suffix}"), storage.path("out.csv"), silent, s3_endpoint)


def test_a_bucket_that_is_not_there_is_named(bundle, encounters, tmp_path, s3_root, s3_endpoint):
    (tmp_path / "in.parquet").write_bytes(contents(encounters, "parquet"))
    with pytest.raises(StorageError, match=r"s3://none-such/out\.csv cannot be written"):
        predict(bundle, str(tmp_path / "in.parquet"), "s3://none-such/out.csv", silent, s3_endpoint)


@pytest.fixture(params=["folder", "s3"])
def bundle_root(request, bundle_folder):
    """Where a bundle lies, once of each kind."""
    if request.param == "folder":
        return str(bundle_folder)
    root = f"{request.getfixturevalue('s3_root')}/bundle"
    upload(bundle_folder, open_storage(root))
    return root


@pytest.fixture
def files(encounters, s3_root):
    storage = open_storage(s3_root)
    storage.write("in.parquet", contents(encounters.with_columns(race=pl.lit("Martian")), "parquet"))
    return storage


def test_the_command_scores_with_a_bundle_and_without_mlflow(
    bundle, encounters, files, bundle_root, tmp_path, health_predict
):
    arguments = ["predict", "--in", files.path("in.parquet"), "--out", files.path("out.csv"), "--bundle", bundle_root]
    ended = health_predict(tmp_path, *arguments, "--json", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) == 1
    assert ended.json == {
        "rows": encounters.height,
        "lines": encounters.height,
        "refused": 0,
        "blank_lines": 0,
        "version": bundle.sha256[:12],
        "bundle": bundle.sha256,
        "target": files.path("out.csv"),
        "synthetic": True,
        "unknown": {"race": encounters.height},
        "missing": {name: encounters[name].null_count() for name in ("payer_code", "medical_specialty")},
        "not_measured": {},
        "outside_cohort": 0,
        "warnings": [],
    }
    assert f"scored: {encounters.height} of {encounters.height} encounters" in ended.err
    assert scores(files, "out.csv").height == encounters.height
    read = health_predict(tmp_path, *arguments, MLFLOW_TRACKING_URI="http://127.0.0.1:9").out
    assert f"race {encounters.height}" in read
    assert "INVENTED DATA" in read


def test_scoring_with_a_bundle_does_not_import_mlflow(bundle_folder, encounters, tmp_path):
    (tmp_path / "in.csv").write_bytes(contents(encounters, "csv"))
    options = ["--in", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.csv"), "--bundle", str(bundle_folder)]
    script = (
        "import sys\nfrom health_predict.cli.app import app\n"
        f"app({['predict', *options]!r}, standalone_mode=False)\nassert 'mlflow' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_bundle_on_s3_is_copied_once(bundle, bundle_folder, s3_root, tmp_path):
    storage = open_storage(s3_root)
    upload(bundle_folder, storage)
    storage.write("evaluation.json", b"{}")
    place = copy_bundle(s3_root, tmp_path)
    assert place.name == bundle.sha256
    assert load_bundle(place).sha256 == bundle.sha256
    assert (place / "evaluation.json").exists()
    storage.delete("model.onnx")
    assert copy_bundle(s3_root, tmp_path) == place


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "encoder.json", "evaluation.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"damaged")], ids=["gone", "altered"])
def test_a_damaged_copy_is_made_again(bundle, bundle_folder, s3_root, tmp_path, name, damage):
    storage = open_storage(s3_root)
    upload(bundle_folder, storage)
    storage.write("evaluation.json", b"{}")
    place = copy_bundle(s3_root, tmp_path)
    sound = {path.name: path.read_bytes() for path in place.iterdir()}
    damage(place / name)
    assert copy_bundle(s3_root, tmp_path) == place
    assert {path.name: path.read_bytes() for path in place.iterdir()} == sound
    assert load_bundle(place).sha256 == bundle.sha256
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_copy_takes_over_an_evaluation_that_came_later(bundle_folder, s3_root, tmp_path):
    storage = open_storage(s3_root)
    upload(bundle_folder, storage)
    assert not (copy_bundle(s3_root, tmp_path) / "evaluation.json").exists()
    storage.write("evaluation.json", b"{}")
    assert (copy_bundle(s3_root, tmp_path) / "evaluation.json").read_bytes() == b"{}"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BundleError, match="there is no folder"):
        copy_bundle(str(tmp_path / "typo"), tmp_path)


def test_a_bundle_on_s3_that_is_not_whole_leaves_nothing(bundle_folder, s3_root, tmp_path):
    storage = open_storage(s3_root)
    with pytest.raises(StorageError, match=r"bundle\.json is not in s3://"):
        copy_bundle(s3_root, tmp_path)
    upload(bundle_folder, storage)
    storage.write("model.onnx", b"other")
    with pytest.raises(BundleError, match="was altered"):
        copy_bundle(s3_root, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_cache_that_cannot_be_written_is_named(bundle_folder, s3_root, tmp_path):
    upload(bundle_folder, open_storage(s3_root))
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(StorageError, match=r"the cache .*/cache cannot be written"):
        copy_bundle(s3_root, tmp_path / "cache")


def test_the_service_starts_with_a_bundle_and_without_mlflow(bundle, bundle_root, tmp_path):
    port, output = free_port(), tmp_path / "output"
    line = [sys.executable, "-c", "from health_predict.cli import main; main()", "serve", "--port", str(port)]
    environment = {**environment_of(tmp_path), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    with output.open("wb") as sink:
        process = subprocess.Popen([*line, "--bundle", bundle_root], env=environment, stdout=sink, stderr=sink)
    try:
        health = Worker(process, port, output).wait_for_status("ok")
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert health["sha256"] == bundle.sha256


def test_a_bundle_cannot_be_watched(bundle_folder, tmp_path, health_predict):
    ended = health_predict(tmp_path, "serve", "--bundle", str(bundle_folder), "--watch")
    assert ended.code == 2
    assert "--watch" in ended.err
