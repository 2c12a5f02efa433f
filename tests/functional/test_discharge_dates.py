"""Encounters with days of discharge: when what is said of them counts, through the commands that people type."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

import factories
from health_predict.data.cohort import select_cohort
from health_predict.data.schema import OUTCOME
from health_predict.errors import DataError
from health_predict.params import IntakeParams
from health_predict.steps.data.intake_encounters import intake_encounters
from health_predict.steps.data.intake_outcomes import intake_outcomes
from health_predict.store import layout
from health_predict.store.batches import ARRIVAL, matured, read_arrival, read_matured
from health_predict.store.encounter_files import open_encounters
from health_predict.store.intake import read_discharges, read_intake
from health_predict.store.storage import Folder

PARAMS = IntakeParams(reporting_lag=60)
NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
LAST = date(2026, 3, 31)  # day of discharge of the last patient
DUE = LAST + timedelta(days=90)
ROWS = 120


@pytest.fixture
def storage(tmp_path) -> Folder:
    return Folder(str(tmp_path / "root"))


def month(rows: int = ROWS) -> pl.DataFrame:
    """Encounters discharged on the days of March 2026, with what became of them."""
    table = factories.encounters(rows, seed=5)
    day = pl.lit(date(2026, 3, 1)) + pl.duration(days=pl.int_range(pl.len()) * 31 // rows)
    return table.with_columns(
        encounter_id=pl.int_range(pl.len(), dtype=pl.Int64) + 900_000_001, discharged_on=day.dt.strftime("%Y-%m-%d")
    )


def written(table: pl.DataFrame, place, name: str = "march.csv") -> str:
    raw = table.drop(OUTCOME).with_columns(pl.all().cast(pl.String).fill_null("?"))
    raw.write_parquet(place / name) if name.endswith("parquet") else raw.write_csv(place / name)
    return str(place / name)


def arrive(storage: Folder, source: str, **how):
    return intake_encounters(storage, PARAMS, "me", source, clock=lambda: NOW, **how)


def say(storage: Folder, table: pl.DataFrame, place, as_of: date | None = None, name: str = "said.csv"):
    columns = ["encounter_id", OUTCOME, *(["as_of"] if "as_of" in table.columns else [])]
    table.select(columns).write_csv(place / name)
    return intake_outcomes(storage, PARAMS, "me", str(place / name), as_of, clock=lambda: NOW)


def test_a_day_of_discharge_is_kept_apart_from_what_a_model_can_read(storage, tmp_path):
    report = arrive(storage, written(month(), tmp_path))
    cohort = select_cohort(month())
    assert (report.batch, report.accepted, report.final_from) == (1, cohort.height, DUE)
    assert read_arrival(storage, 1).columns == list(ARRIVAL)
    kept = read_discharges(storage, read_intake(storage))
    assert kept["encounter_id"].to_list() == cohort["encounter_id"].to_list()
    assert kept["discharged_on"].cast(pl.String).to_list() == cohort["discharged_on"].to_list()


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (pl.col("discharged_on") + "T23:30:00-05:00", "march.csv"),
        (pl.col("discharged_on") + " 08:15", "march.tsv"),
        (pl.col("discharged_on").str.to_date(), "march.parquet"),
        (pl.col("discharged_on").str.to_datetime(time_unit="ms", time_zone="UTC"), "march.parquet"),
    ],
    ids=["offset", "time", "date", "datetime"],
)
def test_days_are_read_with_times_and_as_types(storage, tmp_path, made, name):
    table = month().with_columns(made.alias("discharged_on"))
    source = tmp_path / name
    raw = table.drop(OUTCOME).with_columns(pl.exclude("discharged_on").cast(pl.String).fill_null("?"))
    raw.write_parquet(source) if name.endswith("parquet") else raw.write_csv(
        source, separator="\t" if name.endswith("tsv") else ","
    )
    assert arrive(storage, str(source)).quarantined == 0
    kept = read_discharges(storage, read_intake(storage))
    assert kept["discharged_on"].cast(pl.String).to_list() == select_cohort(month())["discharged_on"].to_list()


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%y", "%d.%m.%Y", "%Y%m%d", "%d-%b-%Y"])
def test_a_spreadsheets_own_form_is_refused_with_what_to_write_and_no_value(storage, tmp_path, form):
    table = month().with_columns(pl.col("discharged_on").str.to_date().dt.strftime(form))
    with pytest.raises(DataError, match=r"a day as 2026-01-31 .* format it as yyyy-mm-dd") as refused:
        arrive(storage, written(table, tmp_path))
    assert table["discharged_on"][0] not in str(refused.value)
    assert storage.list() == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [("", "is missing or not"), ("2026-02-30", "is missing or not"), ("2026-09-03", "still to come")],
)
def test_a_row_without_a_day_that_can_be_is_set_aside(storage, tmp_path, value, reason):
    table = month(200)
    other = pl.when(pl.int_range(pl.len()) == 7).then(pl.lit(value)).otherwise("discharged_on")
    report = arrive(storage, written(table.with_columns(discharged_on=other), tmp_path))
    assert report.quarantined == 1
    assert [one.column for one in report.findings] == ["discharged_on"]
    assert reason in report.findings[0].reason
    kept = storage.read(report.quarantine).decode().splitlines()
    assert kept[0].endswith("discharged_on")
    assert kept[1].startswith("8,")


def test_the_column_has_the_name_that_the_hospital_says_and_only_that(storage, tmp_path):
    source = written(month().rename({"discharged_on": "dt alta"}), tmp_path)
    with pytest.raises(DataError, match="unknown column: `dt alta`"):
        arrive(storage, source)
    assert arrive(storage, source, discharge_column="dt alta").final_from == DUE


def test_the_same_file_is_scored_without_its_day_of_discharge(tmp_path):
    (batch,) = open_encounters(written(month(), tmp_path)).batches(1_000)
    assert "discharged_on" not in batch.encounters.columns


def test_a_batch_matures_on_the_day_from_which_its_outcomes_are_final_and_not_before(storage, tmp_path):
    arrive(storage, written(month(), tmp_path))
    early = say(storage, month(), tmp_path, DUE - timedelta(days=10))
    assert (early.batches, matured(storage)) == ((), [])
    assert early.early > 0
    said = say(storage, month(), tmp_path, DUE)
    assert (said.early, matured(storage)) == (0, [1])
    assert read_matured(storage, 1)[OUTCOME].to_list() == select_cohort(month())[OUTCOME].to_list()


def test_an_early_no_is_not_a_no_and_an_early_readmission_counts_once_its_day_has_come(storage, tmp_path):
    arrive(storage, written(month(), tmp_path))
    ids = read_arrival(storage, 1)["encounter_id"]
    first, second = ids[0], ids[-1]
    table = month().with_columns(
        pl.when(encounter_id=first).then(pl.lit("<30")).when(encounter_id=second).then(pl.lit("NO"))
        .otherwise(OUTCOME).alias(OUTCOME)
    )  # fmt: skip
    say(storage, table.filter(pl.col("encounter_id").is_in([first, second])), tmp_path, LAST + timedelta(days=5))
    say(storage, table.filter(~pl.col("encounter_id").is_in([first, second])), tmp_path, DUE)
    known = dict(read_matured(storage, 1).select("encounter_id", OUTCOME).iter_rows())
    assert known[first] == "<30"
    assert second not in known
    say(storage, table.filter(encounter_id=second), tmp_path, DUE + timedelta(days=1))
    assert dict(read_matured(storage, 1).select("encounter_id", OUTCOME).iter_rows())[second] == "NO"


def test_readmissions_that_are_known_early_do_not_count_without_the_others(storage, tmp_path):
    """Else a batch would begin with a readmission rate of 100%."""
    arrive(storage, written(month(), tmp_path))
    everyone = month().with_columns(pl.lit("<30").alias(OUTCOME))
    report = say(storage, everyone, tmp_path, LAST + timedelta(days=1))
    assert (report.early, matured(storage)) == (read_arrival(storage, 1).height, [])


def test_an_outcome_of_no_known_day_is_none_where_the_day_of_discharge_is_known(storage, tmp_path):
    arrive(storage, written(month(), tmp_path))
    report = say(storage, month(), tmp_path)
    assert report.early == report.without_day == read_arrival(storage, 1).height
    assert matured(storage) == []


def test_a_readmission_that_is_withdrawn_is_unknown_until_that_is_final(storage, tmp_path):
    arrive(storage, written(month(), tmp_path))
    who = read_arrival(storage, 1)["encounter_id"][-1]
    everyone = month().with_columns(pl.when(encounter_id=who).then(pl.lit("<30")).otherwise(OUTCOME).alias(OUTCOME))
    say(storage, everyone.filter(encounter_id=who), tmp_path, LAST + timedelta(days=10))
    say(storage, everyone.filter(pl.col("encounter_id") != who), tmp_path, DUE)
    assert who in read_matured(storage, 1)["encounter_id"]
    withdrawn = everyone.filter(encounter_id=who).with_columns(pl.lit("NO").alias(OUTCOME))
    say(storage, withdrawn, tmp_path, LAST + timedelta(days=20))
    assert who not in read_matured(storage, 1)["encounter_id"]
    say(storage, withdrawn, tmp_path, DUE)
    assert read_matured(storage, 1).filter(encounter_id=who)[OUTCOME].to_list() == ["NO"]


def test_a_row_speaks_of_its_own_day_and_the_others_of_the_day_of_the_file(storage, tmp_path):
    arrive(storage, written(month(), tmp_path))
    late = pl.when(pl.int_range(pl.len()) < 60).then(pl.lit(str(DUE))).otherwise(pl.lit("")).alias("as_of")
    report = say(storage, month().with_columns(late), tmp_path, LAST)
    assert 0 < report.early <= 60
    both = pl.concat([month().with_columns(as_of=pl.lit(str(day))) for day in (DUE, DUE - timedelta(days=40))])
    assert say(storage, both, tmp_path).early == 0
    assert read_matured(storage, 1).height == read_arrival(storage, 1).height


@pytest.mark.parametrize(
    ("value", "said"), [("2026-12-31", "1 rows whose as_of is still to come"), ("31/05/2026", "1 values of as_of")]
)
def test_a_days_column_of_outcomes_that_cannot_be_is_refused(storage, tmp_path, value, said):
    table = month().with_columns(as_of=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit(value)).otherwise(pl.lit("")))
    with pytest.raises(DataError, match=said) as refused:
        say(storage, table, tmp_path)
    assert value not in str(refused.value)
    assert storage.list() == []


@pytest.mark.parametrize("name", ["As_Of", "AS-OF", "as of"])
def test_a_days_column_of_outcomes_that_is_spelt_otherwise_is_refused_and_not_left_unread(storage, tmp_path, name):
    month().select("encounter_id", OUTCOME, pl.lit("2026-06-29").alias(name)).write_csv(tmp_path / "said.csv")
    with pytest.raises(DataError, match=f"`{name}` is to be called as_of"):
        intake_outcomes(storage, PARAMS, "me", str(tmp_path / "said.csv"), clock=lambda: NOW)
    assert storage.list() == []


@pytest.mark.parametrize("text", ["NA", "NULL"])
def test_missing_values_of_r_and_sql_get_a_hint(storage, tmp_path, text):
    with pytest.raises(DataError, match=f"`{text}` is a text here: write `[?]`"):
        say(storage, month().with_columns(pl.lit(text).alias(OUTCOME)), tmp_path)
    source = written(month().with_columns(gender=pl.lit(text)), tmp_path)
    with pytest.raises(DataError, match=f"`{text}` is a text here: write `[?]`"):
        arrive(storage, source)
    with pytest.raises(DataError, match=f"`{text}` is a text here: write `[?]`"):
        list(open_encounters(source).batches(1_000))


def test_an_encounter_that_comes_again_with_other_values_is_told_and_what_arrived_first_stays(storage, tmp_path):
    arrive(storage, written(month(), tmp_path))
    before = read_arrival(storage, 1)
    who = before["encounter_id"].head(3).to_list()
    other = pl.when(pl.col("encounter_id").is_in(who)).then(77).otherwise("num_medications").alias("num_medications")
    report = arrive(storage, written(month().with_columns(other.cast(pl.Int32)), tmp_path))
    assert (report.batch, report.accepted, report.amended) == (None, 0, 3)
    assert read_arrival(storage, 1).equals(before)
    again = arrive(storage, written(month(), tmp_path))
    assert again.amended == 0


def test_a_day_of_discharge_that_comes_later_or_otherwise_is_told_and_what_arrived_first_stays(storage, tmp_path):
    table = month()
    arrive(storage, written(table.filter(pl.int_range(pl.len()) < 5).drop("discharged_on"), tmp_path))
    arrive(storage, written(table, tmp_path))
    before = read_discharges(storage, read_intake(storage))
    undated = read_arrival(storage, 1).height
    assert arrive(storage, written(table, tmp_path)).amended == undated
    later = table.with_columns(discharged_on=pl.lit("2026-04-15"))
    assert arrive(storage, written(later, tmp_path)).amended == undated + before.height
    assert arrive(storage, written(table.drop("discharged_on"), tmp_path)).amended == 0
    assert read_discharges(storage, read_intake(storage)).equals(before)


def test_a_damaged_index_of_known_encounters_is_made_again(storage, tmp_path):
    arrive(storage, written(month(), tmp_path))
    good = storage.read("intake/known.parquet")
    for content in (b"PAR1 and then nothing", pl.DataFrame({"other": [1]}).write_csv().encode()):
        storage.write("intake/known.parquet", content)
        assert arrive(storage, written(month(), tmp_path)).batch is None
        assert storage.read("intake/known.parquet") == good
    storage.delete("intake/known.parquet")
    assert arrive(storage, written(month(), tmp_path)).batch is None


class Counts(Folder):
    """A store that counts which kept tables are read."""

    read_tables = 0

    def read(self, key: str) -> bytes:
        self.read_tables += key.startswith("tables/")
        return super().read(key)


def test_an_intake_reads_no_table_that_arrived_long_before(storage, tmp_path):
    """Else each month would take longer than the last."""
    for number in range(4):
        table = month(60).with_columns(pl.col("encounter_id") + 1_000 * number)
        counting = Counts(storage.root)
        assert arrive(counting, written(table, tmp_path, f"{number}.csv")).batch == number + 1
        assert counting.read_tables <= 2  # its own: kept, and made a batch
    counting = Counts(storage.root)
    assert arrive(counting, written(month(60), tmp_path)).known == select_cohort(month(60)).height
    assert counting.read_tables == 2  # with what its encounters were when they arrived, and their days


def test_a_file_without_days_after_files_with_days_is_refused_whole(storage, tmp_path):
    arrive(storage, written(month(), tmp_path))
    later = month().with_columns(encounter_id=pl.col("encounter_id") + 10_000).drop("discharged_on")
    source = written(later, tmp_path, "april.csv")
    with pytest.raises(DataError, match=r"april\.csv has no column 'discharged_on', and earlier files had days"):
        arrive(storage, source)
    assert len(read_intake(storage).received) == 1
    assert not storage.exists(layout.arrival(2))
