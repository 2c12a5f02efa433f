"""Scoring files where they are: a folder or S3, CSV or Parquet, by the step and by the command."""

import io

import polars as pl
import pytest

import factories
from health_predict.data.cohort import select_cohort
from health_predict.errors import DataError, StorageError
from health_predict.io.bundle import load_bundle
from health_predict.steps.predict import predict
from serving.support import export_bundle


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
    assert found["encounter_id"].equals(encounters["encounter_id"])
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
    with pytest.raises(StorageError, match="s3://none-such/out.csv cannot be written"):
        predict(bundle, str(tmp_path / "in.parquet"), "s3://none-such/out.csv", silent, s3_endpoint)
