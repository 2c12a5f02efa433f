"""Steps of the loop in this process: how a replay begins and starts over, and files that are judged."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest

from factories import encounters
from health_predict.data.schema import CLINICAL, OUTCOME
from health_predict.errors import DataError, StorageError
from health_predict.evaluation.metrics import Interval
from health_predict.io import layout
from health_predict.io.ledger import append, entry, read_ledger
from health_predict.io.manifests import publish
from health_predict.io.monitoring_reports import MonitoringReport
from health_predict.io.predictions import PredictionLog, ScoredEncounter
from health_predict.io.replay import STATE, Plan
from health_predict.io.reports import read_evaluation, write_evaluation
from health_predict.io.storage import Folder
from health_predict.io.tables import table_bytes
from health_predict.params import BootstrapParams, DriftParams, GateParams, Params
from health_predict.steps.begin import begin
from health_predict.steps.monitor import monitor_file, monitor_logged
from loop import RUN, Registry, crown, export_champion

TABLE = encounters(1_600)
PARAMS = Params(
    bootstrap=BootstrapParams(replicates=20),
    drift=DriftParams(min_rows=100, replicates=10, separation_trees=5),
    gate=GateParams(min_subgroup_outcomes=1_000),
)


def split(storage: Folder) -> None:
    """Initial data and one batch."""
    keys = (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST, layout.future_batch(1))
    parts = (TABLE.head(500), TABLE.slice(500, 200), TABLE.slice(700, 300), TABLE.slice(1_000))
    files = {key: table_bytes(part, key) for key, part in zip(keys, parts, strict=True)}
    publish(storage, layout.SPLIT_MANIFEST, inputs={}, files=files, result={"synthetic": True, "parts": []})


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    storage = Folder(str(tmp_path_factory.mktemp("initial")))
    split(storage)
    with patch("health_predict.steps.monitor.html", return_value=b""):
        yield export_champion(storage, tmp_path_factory.mktemp("champion") / "bundle", PARAMS)


@pytest.fixture
def storage(champion, tmp_path) -> Folder:
    """A store with a version in production."""
    storage = Folder(str(tmp_path / "store"))
    split(storage)
    crown(storage, champion, PARAMS)
    return storage


def started(storage: Folder, registry: Registry, from_batch: int = 1, restart: bool = False) -> Plan:
    return begin(storage, registry, "none", from_batch, ("lightgbm",), 1, 1, restart)


def test_a_replay_that_starts_over_leaves_nothing_to_roll_back_to_that_it_removed(storage, champion):
    registry = Registry(champion)
    first = started(storage, registry)
    ledger = read_ledger(storage)
    append(storage, ledger, entry(ledger, "promoted", "another run", [], {}, "2", "1"))
    storage.write(layout.retraining_data(1, "train"), b"what version 2 was trained on")
    again = started(storage, registry, restart=True)
    ledger = read_ledger(storage)
    assert (ledger.production, ledger.previous) == ("1", None)
    assert registry.aliases == ("1", None)
    assert asdict(again) == {**asdict(first), "decisions": 3}
    assert [key for key in storage.list() if key.startswith(STATE)] == [layout.REPLAY]


def test_a_version_rolled_back_from_is_no_previous_one_after_a_restart(storage, champion):
    registry = Registry(champion)
    started(storage, registry)
    for decision, versions in (("promoted", ("2", "1")), ("rolled_back", ("1", "2"))):
        ledger = read_ledger(storage)
        append(storage, ledger, entry(ledger, decision, "another run", [], {}, *versions))
    started(storage, registry, restart=True)
    assert (read_ledger(storage).production, read_ledger(storage).previous) == ("1", None)


def test_a_scenario_cannot_begin_after_the_last_batch(storage, champion):
    with pytest.raises(DataError, match="cannot begin with batch 2: `data split` made 1"):
        started(storage, Registry(champion), from_batch=2)
    assert not storage.exists(layout.REPLAY)


def judged(storage: Folder, champion: Path, current: Path, outcomes: Path | None = None) -> MonitoringReport:
    known = str(outcomes) if outcomes else None
    return monitor_file(storage, Registry(champion), Path("unused"), PARAMS, str(current), outcomes=known)


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
    assert found.performance.current.rows == 400
    assert found.performance.current.outcomes == (known[OUTCOME] == "<30").sum()
    assert (found.matured_batch, found.matured_version) == (None, "1")


def test_auroc_of_a_recalibrated_model_is_held_to_what_it_was_when_it_was_trained(storage, champion, current, tmp_path):
    known = tmp_path / "outcomes.parquet"
    TABLE.slice(1_000).select("encounter_id", OUTCOME).write_parquet(known)
    approved = read_evaluation(storage, RUN)
    better = replace(approved.comparison.challenger, auroc=Interval(0.9, 0.89, 0.91))
    write_evaluation(
        storage, replace(approved, run_id="trained", comparison=replace(approved.comparison, challenger=better))
    )
    assert not judged(storage, champion, current, known).performance.discrimination
    result = {"run_id": RUN, "recalibrated": "trained"}
    publish(storage, layout.recalibration_manifest(1), inputs={}, files={}, result=result)
    found = judged(storage, champion, current, known).performance
    assert found.discrimination
    assert found.reference == replace(approved.comparison.challenger, auroc=better.auroc)


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
    table = TABLE.slice(1_000)
    log = PredictionLog(storage, pytest.fail)
    for row in table.select(field.name for field in CLINICAL).iter_rows(named=True):
        log.put(ScoredEncounter("t", "r", "1", "0", 0.1, patient="p", encounter=row))
    log.close(timeout=10)
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    found = monitor_logged(storage, Registry(champion), Path("unused"), PARAMS, storage, day)
    expected = judged(storage, champion, current)
    assert (found.status, found.drift, found.predictions) == (expected.status, expected.drift, expected.predictions)
    assert storage.exists(layout.drift_report(found.name))
    with pytest.raises(StorageError, match="no scored encounters of 1999-01-01"):
        monitor_logged(storage, Registry(champion), Path("unused"), PARAMS, storage, "1999-01-01")
