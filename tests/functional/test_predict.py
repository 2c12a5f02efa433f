"""Batch scoring: the API's numbers, whole files only, and no guessing about columns or values."""

import polars as pl
import pytest

import factories
from health_predict.data.cohort import select_cohort
from health_predict.errors import DataError, StorageError
from health_predict.io.bundle import load_bundle
from health_predict.steps import predict as step
from health_predict.steps.predict import predict
from serving.support import export_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(export_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def encounters():
    return select_cohort(factories.encounters(700, seed=74))


def silent(_done, _total):
    pass


def score(bundle, source, target, progress=silent):
    return predict(bundle, str(source), str(target), progress)


def refused(bundle, tmp_path, table):
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table.write_parquet(source)
    with pytest.raises(DataError) as error:
        score(bundle, source, target)
    assert not target.exists()
    return str(error.value)


def test_a_file_is_scored_as_the_bundle_scores_in_the_order_of_the_file(bundle, encounters, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "BATCH", 100)
    source, target, seen = tmp_path / "in.parquet", tmp_path / "out.parquet", []
    encounters.write_parquet(source, row_group_size=64)
    scored = score(bundle, source, target, lambda done, total: seen.append((done, total)))
    out = pl.read_parquet(target)
    assert out["probability_score"].to_list() == bundle.predict_proba(encounters).tolist()
    assert out["encounter_id"].equals(encounters["encounter_id"])
    assert out["risk_band"].to_list() == [bundle.band(p) for p in out["probability_score"]]
    assert scored.rows == encounters.height
    assert seen[-1] == (encounters.height, encounters.height)
    assert len(seen) > 1


def test_the_datasets_csv_and_underscored_names_give_the_same_scores(bundle, encounters, tmp_path):
    (tmp_path / "raw.csv").write_bytes(factories.raw_csv(encounters))
    encounters.drop("readmitted", "weight", "encounter_id", "patient_nbr").write_csv(tmp_path / "plain.csv")
    score(bundle, tmp_path / "raw.csv", tmp_path / "one.csv")
    score(bundle, tmp_path / "plain.csv", tmp_path / "two.csv")
    one, two = pl.read_csv(tmp_path / "one.csv"), pl.read_csv(tmp_path / "two.csv")
    assert one["probability_score"].to_list() == bundle.predict_proba(encounters).tolist()
    assert one.drop("encounter_id", "patient_nbr").equals(two)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop("age"), "age is missing"),
        (lambda t: t.rename({"race": "planted"}), "1 columns are no fields"),
        (lambda t: t.with_columns(age=pl.lit("planted")), "age is missing or not a known code in 700 rows"),
        (lambda t: t.with_columns(time_in_hospital=pl.lit(-5)), "time_in_hospital is not from 1 to 365"),
        (lambda t: t.with_columns(num_procedures=pl.lit("planted")), "num_procedures is missing or not a whole"),
        (lambda t: t.with_columns(weight=pl.lit("planted")), "weight is not a known code"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_written(bundle, encounters, tmp_path, change, said):
    encounters = factories.encounters(700, seed=75)
    message = refused(bundle, tmp_path, change(encounters))
    assert said in message
    assert "planted" not in message


def test_a_file_that_was_cut_short_is_refused(bundle, encounters, tmp_path):
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    encounters.write_parquet(source)
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a readable parquet"):
        score(bundle, source, target)
    with pytest.raises(StorageError, match="does not exist"):
        score(bundle, tmp_path / "nowhere.csv", target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet"]


def test_an_old_result_stays_when_the_new_one_fails(bundle, encounters, tmp_path):
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    target.write_text("old")
    pl.concat([encounters, encounters.with_columns(age=pl.lit("x"))]).write_parquet(source)
    with pytest.raises(DataError):
        score(bundle, source, target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]
