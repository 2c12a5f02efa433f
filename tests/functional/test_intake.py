"""A hospital's own stream: encounters and outcomes in files, through the loop, by the commands that people type."""

from collections.abc import Callable
from datetime import date
from threading import Thread

import polars as pl
import pytest

import factories
from health_predict.data.cohort import select_cohort
from health_predict.data.schema import OUTCOME
from health_predict.errors import DataError, StorageError
from health_predict.params import GateParams, IntakeParams, Params
from health_predict.steps.data.intake_encounters import intake_encounters
from health_predict.steps.data.intake_outcomes import intake_outcomes
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.promote import promote
from health_predict.store import layout
from health_predict.store.batches import arrived, matured, read_arrival, read_matured
from health_predict.store.intake import settle
from health_predict.store.manifests import unaltered
from health_predict.store.monitoring_reports import read_judged
from health_predict.store.storage import Folder, State
from stores import Trained

PARAMS = IntakeParams()
PASSES = GateParams(max_subgroup_auroc_loss=2, min_subgroup_auroc=0, observed_expected=(0, 1e9))


@pytest.fixture
def storage(tmp_path) -> Folder:
    return Folder(str(tmp_path / "root"))


@pytest.fixture
def month(tmp_path):
    """A month of encounters with what became of them; `encounters` and `outcomes` are its files."""

    def make(seed: int, rows: int = 300, first_id: int | None = None):
        table = factories.encounters(rows, seed=seed)
        table = table.with_columns(encounter_id=pl.int_range(pl.len(), dtype=pl.Int64) + (first_id or seed * 100_000))
        encounters, outcomes = tmp_path / f"{seed}.csv", tmp_path / f"{seed}-outcomes.csv"
        table.drop(OUTCOME).with_columns(pl.all().cast(pl.String).fill_null("?")).write_csv(encounters)
        table.select("encounter_id", OUTCOME).write_csv(outcomes)
        return table, encounters, outcomes

    return make


def everything(storage: Folder) -> dict[str, bytes]:
    return {key: storage.read(key) for key in storage.list()}


def test_every_row_of_a_file_is_accounted_for_and_the_rest_is_the_next_batch(storage, month):
    table, encounters, _ = month(1)
    report = intake_encounters(storage, PARAMS, "me", str(encounters))
    cohort = select_cohort(table)
    assert (report.batch, report.rows, report.accepted) == (1, table.height, cohort.height)
    assert report.accepted + report.known + report.left_out + report.quarantined == report.rows
    assert read_arrival(storage, 1)["encounter_id"].to_list() == cohort["encounter_id"].to_list()
    assert OUTCOME not in read_arrival(storage, 1).columns


def test_the_same_file_again_changes_nothing_and_what_is_new_in_a_longer_one_is_taken(storage, month):
    table, encounters, _ = month(1)
    intake_encounters(storage, PARAMS, "me", str(encounters))
    before = everything(storage)
    again = intake_encounters(storage, PARAMS, "me", str(encounters))
    assert (again.batch, again.accepted, again.quarantined) == (None, 0, 0)
    assert everything(storage) == before

    _, more, _ = month(2)
    longer = encounters.with_name("longer.csv")
    longer.write_text(encounters.read_text() + "".join(more.read_text().splitlines(keepends=True)[1:]))
    report = intake_encounters(storage, PARAMS, "me", str(longer))
    assert report.batch == 2
    assert not set(read_arrival(storage, 2)["encounter_id"]) & set(table["encounter_id"])


def test_rows_that_do_not_fit_are_set_aside_with_their_reasons_and_no_value_is_told(storage, month):
    _, encounters, _ = month(1)
    lines = encounters.read_text().splitlines()
    names = lines[0].split(",")
    row = lines[7].split(",")
    row[names.index("time_in_hospital")] = "7777"
    lines[7] = ",".join(row)
    encounters.write_text("\n".join(lines) + "\n")
    report = intake_encounters(storage, PARAMS, "me", str(encounters))
    assert report.quarantined == 1
    assert [one.column for one in report.findings] == ["time_in_hospital"]
    assert "7777" not in str(report)
    kept = storage.read(report.quarantine).decode()
    assert "7777" in kept
    assert kept.splitlines()[1].startswith("7,")  # the seventh row of the file


def test_a_file_of_which_too_much_does_not_fit_is_refused_as_a_whole(storage, month):
    _, encounters, _ = month(1)
    text = encounters.read_text()
    column = text.splitlines()[0].split(",").index("time_in_hospital")
    rows = [line.split(",") for line in text.splitlines()]
    for row in rows[1:20]:
        row[column] = "7777"
    encounters.write_text("\n".join(",".join(row) for row in rows) + "\n")
    with pytest.raises(DataError, match=r"19 of the 300 rows of .* do not fit") as refused:
        intake_encounters(storage, PARAMS, "me", str(encounters))
    assert "7777" not in str(refused.value)
    assert storage.list() == []


def test_encounters_without_identifiers_are_refused(storage, month):
    _, encounters, _ = month(1)
    pl.read_csv(encounters, infer_schema=False).drop("encounter_id").write_csv(encounters)
    with pytest.raises(DataError, match="has no encounter_id: without it an outcome finds no encounter"):
        intake_encounters(storage, PARAMS, "me", str(encounters))


@pytest.mark.parametrize("name", ["encounter_id", "patient_nbr"])
def test_a_row_without_an_identifier_is_set_aside(storage, month, name):
    _, encounters, _ = month(1)
    missing = pl.when(pl.int_range(pl.len()) == 4).then(pl.lit("")).otherwise(name).alias(name)
    pl.read_csv(encounters, infer_schema=False).with_columns(missing).write_csv(encounters)
    report = intake_encounters(storage, PARAMS, "me", str(encounters))
    assert (report.quarantined, report.known) == (1, 0)
    assert report.accepted + report.left_out == 299
    assert [(one.column, one.rows) for one in report.findings] == [(name, 1)]
    assert "is missing or not a whole number" in report.findings[0].reason
    assert storage.read(report.quarantine).decode().splitlines()[1].startswith("5,")
    assert read_arrival(storage, 1).select("encounter_id", "patient_nbr").null_count().row(0) == (0, 0)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_without_rows_is_nothing(storage, month, ending):
    _, encounters, _ = month(1)
    table = pl.read_csv(encounters, infer_schema=False).clear()
    source = encounters.with_name(f"empty.{ending}")
    table.write_csv(source) if ending == "csv" else table.write_parquet(source)
    report = intake_encounters(storage, PARAMS, "me", str(source))
    assert (report.batch, report.rows, report.quarantine) == (None, 0, None)
    assert storage.list() == []


def test_parts_in_another_order_of_columns_are_sifted_alike(storage, month, tmp_path):
    _, encounters, _ = month(1)
    table = pl.read_csv(encounters, infer_schema=False)
    table = table.with_columns(
        gender=pl.when(pl.int_range(pl.len()).is_in([3, 203])).then(pl.lit("X")).otherwise("gender")
    )
    (tmp_path / "parts").mkdir()
    table[:150].write_csv(tmp_path / "parts" / "1.csv")
    table[150:].select(reversed(table.columns)).write_csv(tmp_path / "parts" / "2.csv")
    report = intake_encounters(storage, PARAMS, "me", str(tmp_path / "parts"))
    assert (report.rows, report.quarantined) == (300, 2)
    kept = storage.read(report.quarantine).decode().splitlines()
    assert [line.split(",")[0] for line in kept[1:]] == ["4", "204"]


def test_a_row_that_contradicts_an_earlier_one_of_the_file_is_set_aside_and_one_that_repeats_it_is_known(
    storage, month
):
    _, encounters, _ = month(1)
    table = pl.read_csv(encounters, infer_schema=False)
    unfit = table.with_columns(gender=pl.when(pl.int_range(pl.len()) == 2).then(pl.lit("X")).otherwise("gender"))
    other = table[10].with_columns(num_medications=pl.lit("77"))
    pl.concat([unfit, table[20], other]).write_csv(encounters)
    report = intake_encounters(storage, PARAMS, "me", str(encounters))
    assert (report.rows, report.quarantined, report.known) == (302, 2, 1)
    assert report.accepted + report.left_out == 299
    assert ("encounter_id", "is in an earlier row too, with other values", 1) in [
        (one.column, one.reason, one.rows) for one in report.findings
    ]
    kept = storage.read(report.quarantine).decode().splitlines()
    assert [line.split(",")[0] for line in kept[1:]] == ["3", "302"]
    assert 77 not in read_arrival(storage, 1).filter(encounter_id=int(other["encounter_id"][0]))["num_medications"]


def test_a_batch_matures_once_enough_is_known_whatever_the_order(storage, month):
    table, encounters, outcomes = month(1)
    lines = outcomes.read_text().splitlines()
    early = outcomes.with_name("early.csv")
    early.write_text("\n".join(lines[:200]) + "\n")
    assert intake_outcomes(storage, PARAMS, "me", str(early)).unknown == 199  # before the encounters arrived
    intake_encounters(storage, PARAMS, "me", str(encounters))
    assert matured(storage) == []
    report = intake_outcomes(storage, PARAMS, "me", str(outcomes))
    assert [one.batch for one in report.batches] == matured(storage) == [1]
    assert report.repeated == 199
    cohort = select_cohort(table)
    assert read_matured(storage, 1)[OUTCOME].to_list() == cohort[OUTCOME].to_list()


def test_outcomes_that_stay_unknown_are_left_out_and_counted(storage, month):
    _, encounters, outcomes = month(1)
    intake_encounters(storage, PARAMS, "me", str(encounters))
    lines = outcomes.read_text().splitlines()
    outcomes.write_text("\n".join(lines[:-6]) + "\n")
    (settled,) = intake_outcomes(storage, PARAMS, "me", str(outcomes)).batches
    there = read_arrival(storage, 1).height
    assert settled.outcomes + settled.unknown == there
    assert 0 < settled.unknown <= 6
    assert read_matured(storage, 1).height == settled.outcomes


def test_a_correction_counts_and_is_recorded_and_an_old_file_that_comes_again_does_not_undo_it(storage, month):
    _, encounters, outcomes = month(1)
    intake_encounters(storage, PARAMS, "me", str(encounters))
    intake_outcomes(storage, PARAMS, "me", str(outcomes))
    who = read_arrival(storage, 1)["encounter_id"][0]
    was = read_matured(storage, 1)[OUTCOME][0]
    other = "<30" if was == "NO" else "NO"
    correction = outcomes.with_name("correction.csv")
    correction.write_text(f"encounter_id,readmitted\n{who},{other}\n")
    report = intake_outcomes(storage, PARAMS, "me", str(correction))
    assert report.changed == 1
    assert report.batches[0].corrected == 1
    assert read_matured(storage, 1)[OUTCOME][0] == other
    assert intake_outcomes(storage, PARAMS, "me", str(outcomes)).batches == ()
    assert read_matured(storage, 1)[OUTCOME][0] == other


def test_a_file_that_comes_again_after_a_correction_is_told_to_say_otherwise_than_what_counts(storage, month):
    _, _, outcomes = month(1)
    for said, changed, overruled in (("NO", 0, 0), ("<30", 1, 0), ("NO", 0, 1)):
        outcomes.write_text(f"encounter_id,readmitted\n100001,{said}\n")
        report = intake_outcomes(storage, PARAMS, "me", str(outcomes))
        assert (report.changed, report.repeated, report.overruled) == (changed, 0, overruled)
    report = intake_outcomes(storage, PARAMS, "me", str(outcomes), date(2026, 5, 31))
    assert (report.changed, report.overruled) == (1, 0)


def test_the_statement_of_the_latest_day_counts_whenever_it_comes(storage, month):
    _, encounters, outcomes = month(1)
    intake_encounters(storage, PARAMS, "me", str(encounters))
    who = read_arrival(storage, 1)["encounter_id"][0]
    for name, said, day in (("new", "<30", date(2026, 6, 30)), ("old", "NO", date(2026, 5, 31))):
        statement = outcomes.with_name(f"{name}.csv")
        statement.write_text(f"encounter_id,readmitted\n{who},{said}\n")
        intake_outcomes(storage, PARAMS, "me", str(statement), day)
    intake_outcomes(storage, PARAMS, "me", str(outcomes), date(2026, 1, 1))
    assert read_matured(storage, 1)[OUTCOME][0] == "<30"


class Dies(Folder):
    """A store whose process is killed at its n-th write."""

    def __init__(self, root: str, after: int):
        super().__init__(root)
        self.left = after

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def write(self, key: str, data: bytes) -> None:
        self._count()
        super().write(key, data)

    def write_if(self, key: str, data: bytes, state: str | None) -> None:
        self._count()
        super().write_if(key, data, state)


def test_killed_at_any_write_the_next_intake_completes_it(tmp_path, month):
    _, encounters, outcomes = month(1)
    whole = Folder(str(tmp_path / "whole"))
    intake_encounters(whole, PARAMS, "me", str(encounters))
    intake_outcomes(whole, PARAMS, "me", str(outcomes))
    for after in range(9):
        root = str(tmp_path / f"killed-{after}")
        for step, source in ((intake_encounters, encounters), (intake_outcomes, outcomes)):
            try:
                step(Dies(root, after), PARAMS, "me", str(source))
            except KeyboardInterrupt:
                step(Folder(root), PARAMS, "me", str(source))
        storage = Folder(root)
        assert arrived(storage) == matured(storage) == [1]
        assert read_matured(storage, 1).equals(read_matured(whole, 1))


def test_of_two_intakes_at_once_nothing_is_lost_and_nothing_is_there_twice(storage, month):
    files = [month(seed) for seed in (1, 2, 3, 4)]
    threads = [
        Thread(target=intake_encounters, args=(storage, PARAMS, "me", str(encounters))) for _, encounters, _ in files
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = arrived(storage)
    ids = [one for number in numbers for one in read_arrival(storage, number)["encounter_id"].to_list()]
    assert numbers == [1, 2, 3, 4]
    assert sorted(ids) == sorted(one for table, _, _ in files for one in select_cohort(table)["encounter_id"].to_list())


class Waits(Folder):
    """A store where, before a key is written for the first time, something else happens."""

    def __init__(self, root: str, key: str, meanwhile: Callable[[], object]):
        super().__init__(root)
        self.key, self.meanwhile = key, [meanwhile]

    def write(self, key: str, data: bytes) -> None:
        self._wait(key)
        super().write(key, data)

    def write_if(self, key: str, data: bytes, state: State | None) -> None:
        self._wait(key)
        super().write_if(key, data, state)

    def _wait(self, key: str) -> None:
        if key == self.key and self.meanwhile:
            self.meanwhile.pop()()


@pytest.mark.parametrize("key", [layout.outcomes(1), layout.manifest(layout.outcomes(1))])
def test_an_intake_that_is_slow_does_not_undo_what_another_has_taken_in_meanwhile(storage, month, key):
    _, encounters, outcomes = month(1)
    intake_encounters(storage, PARAMS, "me", str(encounters))
    who = read_arrival(storage, 1)["encounter_id"][0]
    correction = outcomes.with_name("correction.csv")
    correction.write_text(f"encounter_id,readmitted\n{who},{'<30'}\n")
    lines = outcomes.read_text().splitlines()
    outcomes.write_text("\n".join(f"{who},NO" if line.startswith(f"{who},") else line for line in lines) + "\n")

    def meanwhile() -> None:
        assert intake_outcomes(storage, PARAMS, "you", str(correction)).changed == 1

    slow = intake_outcomes(Waits(storage.root, key, meanwhile), PARAMS, "me", str(outcomes))
    assert (slow.changed, slow.repeated) == (0, 0)
    assert read_matured(storage, 1)[OUTCOME][0] == "<30"
    assert unaltered(storage, layout.manifest(layout.outcomes(1)))


def test_a_day_that_is_still_to_come_is_refused(storage, month):
    _, _, outcomes = month(1)
    with pytest.raises(DataError, match="2999-01-31 is still to come"):
        intake_outcomes(storage, PARAMS, "me", str(outcomes), date(2999, 1, 31))
    assert storage.list() == []


def test_a_damaged_arrival_is_made_again_from_the_log(storage, month):
    _, encounters, _ = month(1)
    intake_encounters(storage, PARAMS, "me", str(encounters))
    before = storage.read(layout.arrival(1))
    storage.delete(layout.arrival(1))
    settle(storage, PARAMS)
    assert storage.read(layout.arrival(1)) == before


def test_a_file_that_is_not_there_is_told(storage, tmp_path):
    with pytest.raises(StorageError):
        intake_encounters(storage, PARAMS, "me", str(tmp_path / "none.csv"))


@pytest.mark.slow
def test_two_months_go_through_the_loop_by_commands(store: Trained, month, health_predict):
    """As an orchestrator calls it: what arrives is watched and scored, and once outcomes are known it is judged."""
    root, winner = store.root, store.winner
    evaluate(store.workspace, Params(), "tester", winner)
    promote(store.workspace, PASSES, "tester", winner)
    assert health_predict(root, "loop", "next", "--json").json["action"] is None
    for number in (1, 2):
        _, encounters, outcomes = month(number, rows=1_500, first_id=900_000_000 + number * 10_000)
        taken = health_predict(root, "intake", "encounters", "--from", str(encounters), "--json")
        assert (taken.code, taken.json["batch"]) == (0, number), taken.err
        found = health_predict(root, "loop", "next", "--json").json
        assert (found["action"], found["batch"]) == ("monitor", number)
        assert "loop run" in health_predict(root, "status", "--json").json["advice"]
        ran = health_predict(root, "loop", "run", "--trials", "1", "--json")
        assert ran.code == 0, ran.err
        assert [one["action"] for one in ran.json] == ["monitor", "decide", "score"]
        assert health_predict(root, "loop", "run", "--json").json == []
        became = health_predict(root, "intake", "outcomes", "--from", str(outcomes), "--json")
        assert [one["batch"] for one in became.json["batches"]] == [number]
        assert health_predict(root, "loop", "next", "--json").json["action"] == "judge"
        judged = health_predict(root, "loop", "run", "--once", "--json")
        assert [one["action"] for one in judged.json] == ["judge"]
    found = [read_judged(store.storage, number) for number in (1, 2)]
    assert [(one.batch, one.version, one.seen) for one in found] == [(1, "1", 0), (2, "1", 0)]
    assert all(one.performance for one in found)


@pytest.mark.slow
def test_what_became_of_a_batch_is_judged_though_it_was_known_before_the_batch_was_scored(
    store: Trained, month, health_predict
):
    evaluate(store.workspace, Params(), "tester", store.winner)
    promote(store.workspace, PASSES, "tester", store.winner)
    _, encounters, outcomes = month(1, rows=1_500, first_id=900_000_000)
    for kind, source in (("outcomes", outcomes), ("encounters", encounters)):
        assert health_predict(store.root, "intake", kind, "--from", str(source)).code == 0
    ran = health_predict(store.root, "loop", "run", "--trials", "1", "--json")
    assert [one["action"] for one in ran.json] == ["monitor", "decide", "score", "judge"]
    assert health_predict(store.root, "loop", "next", "--json").json["action"] is None


@pytest.mark.slow
def test_a_small_batch_that_was_judged_with_a_later_one_by_hand_does_not_stop_the_loop(
    store: Trained, month, health_predict
):
    evaluate(store.workspace, Params(), "tester", store.winner)
    promote(store.workspace, PASSES, "tester", store.winner)
    for number, rows in ((1, 100), (2, 1_500)):
        _, encounters, _ = month(number, rows=rows, first_id=900_000_000 + number * 10_000)
        assert health_predict(store.root, "intake", "encounters", "--from", str(encounters)).code == 0
    assert health_predict(store.root, "monitor", "--batch", "2").code == 0
    ran = health_predict(store.root, "loop", "run", "--trials", "1", "--json")
    assert ran.code == 0, ran.err
    assert [(one["batch"], one["action"]) for one in ran.json] == [
        (1, "monitor"),
        (1, "score"),
        (2, "monitor"),
        (2, "decide"),
        (2, "score"),
    ]


def test_loop_next_changes_nothing(tmp_path, health_predict):
    ended = health_predict(tmp_path / "nothing", "loop", "next", "--json")
    assert (ended.json["action"], ended.json["batch"]) == ("train", 0)
    assert not (tmp_path / "nothing").exists()
