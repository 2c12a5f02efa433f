"""Steps of the loop in this process: batches, and files that are judged."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from factories import encounters
from health_predict.bundle.model import TableDigest
from health_predict.cli import tables
from health_predict.cli.app import app
from health_predict.data.cohort import select_cohort
from health_predict.data.schema import CLINICAL, EXCLUDED_DISPOSITIONS, OUTCOME
from health_predict.errors import BundleError, DataError, Declined, StorageError
from health_predict.evaluation.metrics import Interval
from health_predict.params import AssemblyParams, BootstrapParams, DriftParams, GateParams, Params
from health_predict.steps.loop.arrive import arrive
from health_predict.steps.loop.assemble import assemble
from health_predict.steps.loop.mature import mature
from health_predict.steps.loop.monitor import monitor, monitor_file, monitor_logged
from health_predict.steps.loop.recalibrate import recalibrate
from health_predict.steps.loop.score import score
from health_predict.store import layout
from health_predict.store.batches import next_assembly, read_arrival, read_matured
from health_predict.store.datasets import batches_in, retraining
from health_predict.store.manifests import publish
from health_predict.store.monitoring_reports import MonitoringReport, read_watched_days
from health_predict.store.prediction_log import PredictionLog, ScoredEncounter
from health_predict.store.reports import read_evaluation, write_evaluation
from health_predict.store.storage import Folder, State
from health_predict.store.tables import read_json, table_bytes
from loop import RUN, Registry, crown, export_champion, lay_out, put_into_production
from stores import workspace_of

TABLE = encounters(1_600)
PARAMS = Params(
    bootstrap=BootstrapParams(replicates=20),
    drift=DriftParams(min_rows=100, replicates=10, separation_trees=5),
    gate=GateParams(min_subgroup_outcomes=1_000),
)
EASY = replace(
    PARAMS, assembly=AssemblyParams(test_rows=150, validation_rows=90), gate=GateParams(min_rows=100, min_outcomes=5)
)


def split(storage: Folder) -> None:
    """Initial data and one batch."""
    lay_out(storage, TABLE, 500, 200, 300)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    storage = Folder(str(tmp_path_factory.mktemp("initial")))
    split(storage)
    with patch("health_predict.steps.loop.monitor.html", return_value=b""):
        yield export_champion(storage, tmp_path_factory.mktemp("champion") / "bundle", PARAMS)


@pytest.fixture
def storage(champion, tmp_path) -> Folder:
    """A store with a version in production."""
    storage = Folder(str(tmp_path / "store"))
    split(storage)
    crown(storage, champion, PARAMS)
    return storage


def judged(storage: Folder, champion: Path, current: Path, outcomes: Path | None = None) -> MonitoringReport:
    known = str(outcomes) if outcomes else None
    return monitor_file(workspace_of(storage, Registry(champion)), PARAMS, str(current), outcomes=known)


@pytest.fixture
def current(tmp_path) -> Path:
    """A file of encounters under the name of a batch of the replay."""
    file = tmp_path / "batch_01.parquet"
    TABLE.slice(1_000).drop(OUTCOME).write_parquet(file)
    return file


def test_a_file_is_judged_apart_from_the_batch_of_its_name_and_from_other_content(storage, champion, current):
    names = {judged(storage, champion, current).name}
    TABLE.slice(1_050).drop(OUTCOME).write_parquet(current)
    names |= {judged(storage, champion, current).name, judged(storage, champion, current).name}
    assert len(names) == 2
    assert all(storage.exists(layout.drift_numbers(name)) for name in names)
    assert not storage.exists(layout.drift_numbers(layout.batch(1)))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_outcomes_of_some_of_a_file_s_encounters_are_judged(storage, champion, current, tmp_path, suffix):
    outcomes, known = tmp_path / f"outcomes.{suffix}", TABLE.slice(1_000, 400).select("encounter_id", OUTCOME)
    (known.write_csv if suffix == "csv" else known.write_parquet)(outcomes)
    found = judged(storage, champion, current, outcomes)
    (judged_on,) = found.outcomes
    cohort = select_cohort(known.join(TABLE, on="encounter_id"))
    assert judged_on.performance.current.rows == judged_on.rows == cohort.height
    assert judged_on.left_out == 400 - cohort.height > 0
    assert judged_on.performance.current.outcomes == (cohort[OUTCOME] == "<30").sum()
    assert (judged_on.batch, judged_on.version, judged_on.seen) == (None, "1", 0)


def test_auroc_of_a_recalibrated_model_is_held_to_what_it_was_when_it_was_trained(storage, champion, current, tmp_path):
    known = tmp_path / "outcomes.parquet"
    TABLE.slice(1_000).select("encounter_id", OUTCOME).write_parquet(known)
    approved = read_evaluation(storage, RUN)
    better = replace(approved.comparison.challenger, auroc=Interval(0.9, 0.89, 0.91))
    write_evaluation(
        storage, replace(approved, run_id="trained", comparison=replace(approved.comparison, challenger=better))
    )
    assert not judged(storage, champion, current, known).outcomes[0].performance.discrimination
    result = {"run_id": RUN, "recalibrated": "trained"}
    publish(storage, layout.recalibration_manifest(1), inputs={}, files={}, result=result)
    found = judged(storage, champion, current, known).outcomes[0].performance
    assert found.discrimination
    assert found.reference == replace(approved.comparison.challenger, auroc=better.auroc)


def shown(report: RenderableType) -> str:
    """A report as a command prints it."""
    console = Console(file=io.StringIO(), width=200)
    console.print(report)
    return console.file.getvalue()


def with_deaths(table: pl.DataFrame, count: int) -> pl.DataFrame:
    """The table, and after it as many more encounters that ended in death or a hospice."""
    more = encounters(4_000, seed=7).filter(pl.col("discharge_disposition_id").is_in(EXCLUDED_DISPOSITIONS)).head(count)
    assert more.height == count
    return pl.concat([table, more.with_columns(encounter_id=1_500_000_000 + pl.int_range(count))])


def test_who_died_is_left_out_and_counted_at_every_door(storage, champion, tmp_path):
    living, dying = tmp_path / "living.parquet", tmp_path / "dying.parquet"
    alive = select_cohort(TABLE.slice(1_000))
    more = with_deaths(alive, 90)
    alive.write_parquet(living)
    more.write_parquet(dying)

    def compared(current: Path, reference: Path, outcomes: Path) -> MonitoringReport:
        registry, files = Registry(champion), (str(current), str(reference), str(outcomes))
        return monitor_file(workspace_of(storage, registry), PARAMS, *files)

    expected, found = compared(living, living, living), compared(dying, dying, dying)
    assert (expected.left_out, expected.reference_left_out, expected.outcomes[0].left_out) == (0, 0, 0)
    assert (found.left_out, found.reference_left_out, found.outcomes[0].left_out) == (90, 90, 90)
    for name in ("status", "reasons", "drift", "separation", "predictions"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.outcomes[0].performance == expected.outcomes[0].performance
    for line in (
        "90 encounters ended in death or a hospice and are left out",
        "90 encounters of the reference ended in death or a hospice and are left out",
        "90 of those who died or went to a hospice are left out",
    ):
        assert line in shown(tables.monitored(found))
        assert line not in shown(tables.monitored(expected))


def test_encounters_that_the_champion_was_trained_on_do_not_tell_how_good_it_is(storage, champion, tmp_path):
    alike, new = tmp_path / "alike.parquet", tmp_path / "new.parquet"
    cohort, unseen = select_cohort(TABLE), select_cohort(TABLE.slice(700))
    cohort.write_parquet(alike)
    unseen.write_parquet(new)
    found, expected = (judged(storage, champion, file, file).outcomes[0] for file in (alike, new))
    assert (found.seen, found.rows) == (cohort.height - unseen.height, unseen.height)
    assert expected.seen == 0
    assert found.performance == expected.performance
    assert f"{found.seen} encounters that version 1 was trained on are left out" in shown(tables.judged([found]))
    cohort.head(760).write_parquet(alike)
    with pytest.raises(DataError, match=r"version 1 was trained on .* too few to judge it"):
        judged(storage, champion, alike, alike)


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        (TABLE.head(10).select("encounter_id", OUTCOME), "the file of encounters has 0"),
        (TABLE.slice(1_000).select("encounter_id"), "no column readmitted"),
        (TABLE.slice(1_000).select("encounter_id", pl.lit("maybe").alias(OUTCOME)), "600 values"),
        (pl.concat([TABLE.tail(5).select("encounter_id", OUTCOME)] * 2), "5 duplicate encounter_ids"),
    ],
    ids=["of others", "no column", "no outcome", "twice"],
)
def test_outcomes_that_do_not_fit_the_encounters_are_an_error(storage, champion, current, tmp_path, outcomes, message):
    outcomes.write_csv(tmp_path / "outcomes.csv")
    with pytest.raises(DataError, match=message):
        judged(storage, champion, current, tmp_path / "outcomes.csv")


def test_what_the_service_scored_on_a_day_is_judged_as_the_same_encounters_from_a_file(storage, champion, current):
    table = with_deaths(TABLE.slice(1_000), 40)
    log = PredictionLog(storage, pytest.fail)
    for row in table.select(field.name for field in CLINICAL).iter_rows(named=True):
        log.put(ScoredEncounter("t", "r", "1", "0", 0.1, patient="p", encounter=row))
    log.close(timeout=10)
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    found = monitor_logged(workspace_of(storage, Registry(champion)), PARAMS, storage, day)
    expected = judged(storage, champion, current)
    assert found.left_out == expected.left_out + 40
    assert (found.status, found.drift, found.predictions) == (expected.status, expected.drift, expected.predictions)
    assert storage.exists(layout.drift_report(found.name))
    assert read_watched_days(storage, "9999-12-31") == [found]
    assert read_watched_days(storage, day) == []
    with pytest.raises(StorageError, match="no scored encounters of 1999-01-01"):
        monitor_logged(workspace_of(storage, Registry(champion)), PARAMS, storage, "1999-01-01")
    with pytest.raises(StorageError, match="no scored encounters"):
        monitor_logged(workspace_of(storage, Registry(champion)), PARAMS, storage, day[:6])


def test_a_finding_is_new_once_and_then_known_since_the_batch_that_told_of_it(storage, champion, tmp_path):
    arrive(storage, PARAMS.scenario, 1, "missing_feed", from_batch=1)
    registry = Registry(champion)
    first = monitor(workspace_of(storage, registry), PARAMS, 1)
    assert first.alarm.raised
    assert registry.logged[-1]["alarm_raised"] == 1
    assert "  new: diag_1 missing in 100% of encounters" in shown(tables.monitored(first))
    again, reference = tmp_path / "again.parquet", tmp_path / "reference.parquet"
    read_arrival(storage, 1).write_parquet(again)
    TABLE.head(500).write_parquet(reference)
    known = monitor_file(workspace_of(storage, registry), PARAMS, str(again))
    assert (known.status, known.reasons) == (first.status, first.reasons)
    assert (known.alarm.raised, known.alarm.new, known.alarm.worse) == (False, (), ())
    assert {item.since for item in known.alarm.known} == {"batch 1"}
    assert registry.logged[-1]["alarm_raised"] == registry.logged[-1]["findings_new"] == 0
    said = shown(tables.monitored(known))
    assert "no alarm" in said
    assert "known since batch 1: " in said
    assert said.rstrip().endswith("DRIFT_DETECTED")
    (missing,) = [item for item in known.alarm.known if item.kind == "missing"]
    worse = replace(known, alarm=replace(known.alarm, raised=True, worse=(replace(missing, before=0.5),)))
    assert "worse (0.50 to 1.00), known since batch 1: diag_1 missing in 100%" in shown(tables.monitored(worse))
    other = monitor_file(workspace_of(storage, registry), PARAMS, str(again), str(reference))
    assert other.alarm.raised  # against another reference, nothing is known


@pytest.mark.parametrize("day", ["2026-0", "2026-13-01", "2026-1-1", "", "2026-01-31/", "yesterday"])
def test_a_day_is_one_day(day):
    found = CliRunner().invoke(app, ["monitor", "--logged", day])
    assert found.exit_code == 2
    assert "YYYY-MM-DD" in found.output


def test_a_model_of_another_outcome_judges_and_scores_nothing(storage, champion, tmp_path, current):
    other = tmp_path / "bundle"
    shutil.copytree(champion, other)
    manifest = json.loads((other / "bundle.json").read_bytes())
    (other / "bundle.json").write_text(json.dumps({**manifest, "target": "any"}))
    arrive(storage, PARAMS.scenario, 1, "none", from_batch=1)
    registry = Registry(other)
    put_into_production(storage, other, "2")
    refusals = [
        lambda: monitor_file(workspace_of(storage, registry), PARAMS, str(current)),
        lambda: monitor(workspace_of(storage, registry), PARAMS, 1),
        lambda: score(workspace_of(storage, registry), 1, "1"),
    ]
    for refused in refusals:
        with pytest.raises(BundleError, match="readmission at any time"):
            refused()
    mature(storage, 1)
    with pytest.raises(BundleError, match="readmission at any time"):
        recalibrate(workspace_of(storage, registry), EASY, 2, "2")


def test_only_the_batch_that_is_taken_in_is_read_and_it_has_to_be_the_one_that_was_set_aside(storage):
    read: list[str] = []

    class Watched(Folder):
        def read_with_state(self, key: str) -> tuple[bytes, State] | None:
            read.append(key)
            return super().read_with_state(key)

    arrive(Watched(storage.root), PARAMS.scenario, 1, "none", from_batch=1)
    assert {key for key in read if key.endswith(".parquet")} == {layout.future_batch(1)}
    storage.write(layout.future_batch(1), table_bytes(TABLE.slice(1_001), "altered"))
    storage.delete(layout.manifest(layout.arrival(1)))
    with pytest.raises(StorageError, match=r"not what .* records"):
        arrive(storage, PARAMS.scenario, 1, "none", from_batch=1)


def test_an_arrival_is_its_cohort_and_so_is_what_matures_of_it(storage):
    arrived = arrive(storage, PARAMS.scenario, 1, "none", from_batch=1)
    batch = TABLE.slice(1_000)
    assert arrived.left_out == batch.height - select_cohort(batch).height > 0
    matured = mature(storage, 1)
    assert matured.rows == arrived.rows == read_arrival(storage, 1).height
    assert read_matured(storage, 1).equals(select_cohort(batch))


def test_what_was_refused_does_not_mature(storage):
    arrive(storage, PARAMS.scenario, 1, "schema_break", from_batch=1)
    with pytest.raises(DataError, match="refused"):
        mature(storage, 1)


def test_a_retraining_is_declined_before_it_is_trained_where_the_gate_could_not_decide(storage, champion):
    assert next_assembly(storage) == 1
    with pytest.raises(Declined, match="Only 0 matured"):
        assemble(storage, PARAMS, next_assembly(storage))
    arrive(storage, PARAMS.scenario, 1, "none", from_batch=1)
    mature(storage, 1)
    before = storage.list()
    assert next_assembly(storage) == 2
    with pytest.raises(Declined, match="new to the models to be compared"):
        assemble(storage, PARAMS, next_assembly(storage))
    assert storage.list() == before
    made = assemble(storage, EASY, next_assembly(storage))
    assert made.test >= EASY.gate.min_rows
    assert made.dataset == retraining(2)
    again = assemble(storage, EASY, next_assembly(storage))
    assert again == replace(made, skipped=True)
    manifest = read_json(storage, made.dataset.manifest)
    key, sha256 = made.dataset.train, manifest["files"][made.dataset.train]
    assert batches_in(storage, TableDigest(key, made.train, 0, sha256)) == (1,)
    assert batches_in(storage, TableDigest(key, made.train, 0, "of another store's table")) == ()
    assert batches_in(storage, TableDigest(layout.INITIAL_TRAIN, made.train, 0, sha256)) == ()
