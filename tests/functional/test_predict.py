"""Batch scoring: the API's numbers, whole files only, and no guessing about columns or values."""

import polars as pl
import pytest

import factories
from health_predict.bundle.model import load_bundle
from health_predict.data.cohort import select_cohort
from health_predict.errors import DataError, StorageError
from health_predict.steps.model import predict as step
from health_predict.steps.model.predict import predict
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
        (lambda t: t.rename({"race": "Unnamed: 0"}), "race is missing; unknown column: `Unnamed: 0` (an index column?"),
        (lambda t: t.with_columns(age=pl.lit("planted")), "age is missing or not one of [0-10), [10-20),"),
        (
            lambda t: t.with_columns(time_in_hospital=pl.lit(-5)),
            "time_in_hospital is missing or not a whole number from 1",
        ),
        (lambda t: t.with_columns(num_procedures=pl.lit("planted")), "num_procedures is missing or not a whole"),
        (lambda t: t.with_columns(weight=pl.lit("planted")), "weight is not one of [0-25),"),
        (
            lambda t: t.with_columns(race=pl.lit("planted" * 10)),
            "race is not a text of at most 64 characters in 700 rows",
        ),
        (lambda t: t.with_columns(time_in_hospital=pl.lit(3.7)), "time_in_hospital is missing or not a whole number"),
        (lambda t: t.with_columns(num_procedures=pl.lit(float("nan"))), "num_procedures is missing or not a whole"),
        (lambda t: t.with_columns(encounter_id=pl.lit(2.0**60)), "encounter_id is not a whole number"),
        (lambda t: t.with_columns(num_procedures=pl.lit(True)), "num_procedures holds Boolean, not a whole number"),
        (
            lambda t: t.with_columns(time_in_hospital=pl.duration(days=3)),
            "time_in_hospital holds Duration, not a whole",
        ),
        (lambda t: t.with_columns(time_in_hospital=pl.date(2024, 1, 3)), "time_in_hospital holds Date, not a whole"),
        (lambda t: t.with_columns(race=pl.lit(7)), "race holds Int32, not a text"),
        (lambda t: t.with_columns(diag_1=pl.lit(428)), "diag_1 holds Int32, not a text"),
        (lambda t: t.with_columns(age=pl.lit(None)), "age is missing or not one of [0-10),"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_written(bundle, encounters, tmp_path, change, said):
    encounters = factories.encounters(700, seed=75)
    message = refused(bundle, tmp_path, change(encounters))
    assert said in message
    assert "planted" not in message


def test_the_first_row_that_does_not_fit_is_named_beyond_the_first_batch(bundle, encounters, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "BATCH", 100)
    wrong = pl.when(pl.int_range(pl.len()) == 411).then(-1).otherwise(pl.col("num_medications"))
    message = refused(bundle, tmp_path, encounters.with_columns(num_medications=wrong))
    assert "in 1 rows, the first is 412" in message


def scored(bundle, tmp_path, table):
    """Scores of a table that is stored as Parquet, and the report."""
    table.write_parquet(tmp_path / "in.parquet")
    report = score(bundle, tmp_path / "in.parquet", tmp_path / "out.parquet")
    return pl.read_parquet(tmp_path / "out.parquet"), report


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32, pl.Decimal(18, 0), pl.UInt16, pl.String])
def test_whole_numbers_are_read_however_they_are_stored(bundle, encounters, tmp_path, dtype):
    stored = encounters.with_columns(pl.col("time_in_hospital", "num_medications", "admission_type_id").cast(dtype))
    found, _ = scored(bundle, tmp_path, stored)
    assert found["probability_score"].to_list() == bundle.predict_proba(encounters).tolist()


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["?", "", "Caucasian"])])
def test_missing_is_missing_in_every_kind_of_text(bundle, encounters, tmp_path, dtype):
    races = pl.Series("race", (["?", "", "Caucasian", None] * encounters.height)[: encounters.height])
    found, report = scored(bundle, tmp_path, encounters.with_columns(races.cast(dtype)))
    meant = encounters.with_columns(races.replace(["?", ""], None))
    assert found["probability_score"].to_list() == bundle.predict_proba(meant).tolist()
    assert report.unknown == {}


def test_an_optional_identifier_may_be_empty(bundle, encounters, tmp_path):
    some = pl.when(pl.int_range(pl.len()) != 1).then(pl.col("patient_nbr"))
    for table in (
        encounters.with_columns(some),
        encounters.with_columns(some.cast(pl.Float64).fill_null(float("nan"))),
    ):
        assert scored(bundle, tmp_path, table)[0]["patient_nbr"].is_null().arg_true().to_list() == [1]
    encounters.with_columns(some).write_csv(tmp_path / "in.csv")
    score(bundle, tmp_path / "in.csv", tmp_path / "out.parquet")
    found = pl.read_parquet(tmp_path / "out.parquet")
    texts = pl.col("encounter_id", "patient_nbr").cast(pl.String)  # of CSV every value is text
    assert found.select("encounter_id", "patient_nbr").equals(encounters.select("encounter_id", some).select(texts))


def test_what_the_model_does_not_know_is_counted_by_field_as_the_api_names_it(bundle, encounters, tmp_path):
    changed = encounters.with_columns(
        pl.when(pl.int_range(pl.len()) < 5).then(pl.lit("Martian")).otherwise("race").alias("race"),
        pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("nonsense")).otherwise("diag_2").alias("diag_2"),
        pl.when(pl.int_range(pl.len()) < 2).then(99).otherwise("admission_source_id").alias("admission_source_id"),
    )
    _, report = scored(bundle, tmp_path, changed)
    named = [field for row in changed.to_dicts() for field in bundle.encoder.unknown_fields(row)]
    assert report.unknown == {field: named.count(field) for field in set(named)}
    assert {"race", "diag_2", "admission_source_id"} <= report.unknown.keys()


def test_those_the_model_was_not_made_for_are_counted(bundle, tmp_path):
    everyone = factories.encounters(700, seed=76)
    _, report = scored(bundle, tmp_path, everyone)
    assert report.outside_cohort == everyone.height - select_cohort(everyone).height > 0


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_rows_gives_a_table_without_rows(bundle, encounters, tmp_path, suffix):
    source, target = tmp_path / f"empty{suffix}", tmp_path / "out.parquet"
    empty = encounters.head(0)
    empty.write_csv(source) if suffix == ".csv" else empty.write_parquet(source)
    assert score(bundle, source, target).rows == 0
    full, _ = scored(bundle, tmp_path, encounters)
    score(bundle, source, target)
    identifiers = dict.fromkeys(("encounter_id", "patient_nbr"), pl.String if suffix == ".csv" else pl.Int64)
    assert pl.read_parquet(target).schema == full.schema | identifiers
    score(bundle, source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().strip() == ",".join(full.columns)


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
