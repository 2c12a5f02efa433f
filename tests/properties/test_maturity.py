"""No outcome is used before it has matured, and each is used once: whatever it is, however late, in any order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import encounters
from health_predict.data.schema import OUTCOME
from health_predict.errors import Declined
from health_predict.params import AssemblyParams, BootstrapParams, DriftParams, FollowUpParams, GateParams, Params
from health_predict.simulation.scenarios import SCENARIOS
from health_predict.steps.loop.arrive import arrive
from health_predict.steps.loop.assemble import assemble
from health_predict.steps.loop.decide import decide
from health_predict.steps.loop.judge import judge
from health_predict.steps.loop.mature import mature
from health_predict.steps.loop.monitor import monitor
from health_predict.steps.loop.score import score
from health_predict.store import layout
from health_predict.store.batches import matured, read_arrival
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import publish
from health_predict.store.monitoring_reports import read_judgements, read_watched
from health_predict.store.storage import Folder
from health_predict.store.tables import json_bytes, read_json, table_bytes
from health_predict.workspace import Workspace
from loop import Registry, crown, decide_on, export_champion
from stores import workspace_of

pytestmark = pytest.mark.slow

BATCHES = 3
SIZE = 400
TABLE = encounters(SIZE * (BATCHES + 2))
PARAMS = Params(
    assembly=AssemblyParams(test_rows=90, validation_rows=60),
    bootstrap=BootstrapParams(replicates=20),
    drift=DriftParams(min_rows=100, replicates=10, separation_trees=5),
    gate=GateParams(min_rows=50, min_outcomes=3, min_subgroup_outcomes=1_000),  # so that outcomes do decide
    follow_up=FollowUpParams(min_rows=5),
)
JUDGED = [name for name, scenario in SCENARIOS.items() if not scenario.refused]
UNUSED = (layout.FUTURE, layout.SPLIT_MANIFEST, "arrivals/", layout.LEDGER)  # arrivals are compared by their tables


@dataclass(frozen=True)
class World:
    """A store, and the outcomes that its batches have where they are dealt out anew from one batch on."""

    storage: Folder
    poisoned: int = BATCHES + 1
    shuffle: int = 0

    def publish(self, poisoned: int) -> None:
        """Write the initial data and the batches, with the outcomes from `poisoned` on dealt out anew."""
        first = TABLE.head(2 * SIZE)
        keys = (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST)
        tables = dict(zip(keys, (first.head(400), first.slice(400, 150), first.slice(550)), strict=True))
        for number in range(1, BATCHES + 1):
            batch = TABLE.slice((number + 1) * SIZE, SIZE)
            dealt = batch.with_columns(pl.col(OUTCOME).shuffle(seed=self.shuffle))
            tables[layout.future_batch(number)] = dealt if number >= poisoned else batch
        files = {key: table_bytes(table, key) for key, table in tables.items()}
        publish(self.storage, layout.SPLIT_MANIFEST, inputs={}, files=files, result=RESULT)


RESULT = {
    "synthetic": True,
    "parts": [{"key": layout.INITIAL_TRAIN, "rows": 400}, {"key": layout.INITIAL_VALIDATION, "rows": 150}],
}


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundle of a model of the initial data; meanwhile no page is drawn for people."""
    world = World(Folder(str(tmp_path_factory.mktemp("initial"))))
    world.publish(world.poisoned)
    with patch("health_predict.steps.loop.monitor.html", return_value=b""):
        yield export_champion(world.storage, tmp_path_factory.mktemp("champion") / "bundle", PARAMS)


def walk(world: World, champion: Path, scenario: str, upto: int) -> dict[str, bytes]:
    """Replay the batches up to one that was judged and scored and has not matured; all there is to see by then.

    Outcomes are dealt out anew before the batch arrives; under label shift, which chooses who arrives by outcome,
    right after.
    """
    storage, registry = world.storage, Registry(champion)
    world.publish(BATCHES + 1 if scenario == "label_shift" else world.poisoned)
    crown(storage, champion, PARAMS)
    for number in range(1, upto + 1):
        arrive(storage, PARAMS.scenario, number, scenario, from_batch=2)
        if number == world.poisoned:
            world.publish(world.poisoned)
        if number > 1:
            mature(storage, number - 1)
            assemble(storage, PARAMS, number)
        judge(workspace_of(storage, registry), PARAMS)
        monitor(workspace_of(storage, registry), PARAMS, number)
        decide(storage, PARAMS, number)
        score(workspace_of(storage, registry), number, str(read_ledger(storage).production))
        assert matured(storage, number + 1) == list(range(1, number))
    tables = [layout.arrival(number) for number in range(1, upto + 1)]
    others = [key for key in storage.list() if not key.startswith(UNUSED)]
    return {key: storage.read(key) for key in [*tables, *others]} | {"logged": json_bytes(registry.logged)}


@given(scenario=st.sampled_from(JUDGED), poisoned=st.integers(2, BATCHES), shuffle=st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None)
def test_no_outcome_is_used_before_it_has_matured(champion, scenario, poisoned, shuffle):
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        untouched = walk(World(Folder(one)), champion, scenario, poisoned)
        changed = walk(World(Folder(two), poisoned, shuffle), champion, scenario, poisoned)
        assert changed == untouched
        name = layout.batch(poisoned)
        written = {
            layout.retraining_data(poisoned, "train"),
            layout.drift_numbers(name),
            layout.retraining_report(name),
            layout.performance(poisoned - 1),
        }
        assert written <= set(changed)


def test_an_outcome_is_used_once_it_has_matured(champion, tmp_path):
    worlds = [World(Folder(str(tmp_path / str(seed))), 1, seed) for seed in (1, 2)]
    found = [walk(world, champion, "none", 3) for world in worlds]
    keys = [layout.retraining_data(3, part) for part in ("train", "validation", "test")]
    keys += [layout.performance(2), layout.drift_numbers(layout.batch(3)), "logged"]
    assert all(found[0][key] != found[1][key] for key in keys)


def test_outcomes_of_a_concept_shift_reach_what_is_trained_on(champion, tmp_path):
    none, shifted = (walk(World(Folder(str(tmp_path / name))), champion, name, 3) for name in ("none", "concept_shift"))
    assert none[layout.arrival(2)] == shifted[layout.arrival(2)]
    assert none[layout.outcomes(1)] == shifted[layout.outcomes(1)]
    parts = [layout.retraining_data(3, part) for part in ("train", "validation", "test")]
    assert all(none[key] != shifted[key] for key in [layout.outcomes(2), *parts])


def test_a_judgement_that_was_stopped_before_it_was_written_is_logged_once(champion, tmp_path):
    world, registry = World(Folder(str(tmp_path))), Registry(champion)
    world.publish(world.poisoned)
    crown(world.storage, champion, PARAMS)
    arrive(world.storage, PARAMS.scenario, 1, "none", from_batch=1)
    with (
        patch("health_predict.steps.loop.monitor.publish", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        monitor(workspace_of(world.storage, registry), PARAMS, 1)
    found = monitor(workspace_of(world.storage, registry), PARAMS, 1)
    assert len(registry.logged) == 1
    assert replace(found, skipped=True) == monitor(workspace_of(world.storage, registry), PARAMS, 1)
    assert read_json(world.storage, layout.drift_numbers(found.name))["status"] == found.status


@dataclass
class History:
    """What happens to each of a few batches, some of them small: when its outcomes mature, and what it leads to."""

    sizes: list[int]
    lags: list[int]  # batches that arrive until outcomes mature; none left to arrive: at the end
    promotions: list[bool]  # another version takes over after the batch was judged, before it is scored

    def due(self, number: int) -> list[int]:
        """Batches whose outcomes mature when a batch has arrived; after the last, all that are left."""
        last = number > len(self.sizes)
        arrival = {one: one + self.lags[one - 1] for one in range(1, len(self.sizes) + 1)}
        return [one for one, when in arrival.items() if one < number and (when >= number if last else when == number)]


@st.composite
def histories(draw: st.DrawFn) -> History:
    count = draw(st.integers(2, 6))

    def each(strategy: st.SearchStrategy) -> list:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    return History(each(st.sampled_from([30, 80, 160])), each(st.integers(1, 4)), each(st.booleans()))


def set_aside(storage: Folder, sizes: list[int]) -> None:
    """Initial data, and batches of these sizes."""
    World(storage).publish(BATCHES + 1)
    files = {key: storage.read(key) for key in (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST)}
    start = 2 * SIZE
    for number, size in enumerate(sizes, start=1):
        files[layout.future_batch(number)] = table_bytes(TABLE.slice(start, size), "batch")
        start += size
    publish(storage, layout.SPLIT_MANIFEST, inputs={}, files=files, result=RESULT, replaces=layout.FUTURE)


def watch(workspace: Workspace, number: int) -> None:
    judge(workspace, PARAMS)
    try:
        monitor(workspace, PARAMS, number)
    except Declined:
        return
    decide(workspace.storage, PARAMS, number)


@given(history=histories(), data=st.data())
@settings(max_examples=8, deadline=None)
def test_each_matured_batch_is_judged_once_under_the_version_that_scored_it(champion, history, data):
    with TemporaryDirectory() as folder:
        storage, registry = Folder(folder), Registry(champion)
        set_aside(storage, history.sizes)
        crown(storage, champion, PARAMS)
        said: dict[int, str] = {}
        written: dict[int, bytes] = {}
        for number in range(1, len(history.sizes) + 2):
            if number <= len(history.sizes):
                arrive(storage, PARAMS.scenario, number, "none", from_batch=1)
            for one in data.draw(st.permutations(history.due(number))):
                mature(storage, one)
            if number > len(history.sizes):
                judge(workspace_of(storage, registry), PARAMS)
            else:
                watch(workspace_of(storage, registry), number)
                if history.promotions[number - 1]:
                    version = str(len(read_ledger(storage).entries) + 1)
                    decide_on(storage, "promoted", champion, version, moves=(version, "1"))
                said[number] = score(workspace_of(storage, registry), number, "1").version
            judged = {one.batch: one.version for one in read_judgements(storage)}
            assert judged == {one: said[one] for one in matured(storage)}
            for one in judged:
                content = storage.read(layout.performance(one))
                assert content == written.setdefault(one, content)
        assert set(judged) == set(said)
        reports = read_watched(storage)
        told = [one.batch for report in reports for one in report.outcomes]
        arrivals = [one for report in reports for one in report.batches]
        logged = [metrics["matured_batch"] for metrics in registry.logged if "outcomes_judged" in metrics]
        assert len(told) == len(set(told))
        assert len(arrivals) == len(set(arrivals))
        assert sorted(logged) == sorted(judged)


def test_small_batches_wait_and_are_judged_together(champion, tmp_path):
    storage, registry = Folder(str(tmp_path)), Registry(champion)
    set_aside(storage, [60, 70, 150])
    crown(storage, champion, PARAMS)
    for number in (1, 2, 3):
        arrive(storage, PARAMS.scenario, number, "none", from_batch=1)
    with pytest.raises(Declined, match=r"100 .* are needed"):
        monitor(workspace_of(storage, registry), PARAMS, 1)
    found = monitor(workspace_of(storage, registry), PARAMS, 2)
    assert found.batches == (1, 2)
    assert found.drift.rows == read_arrival(storage, 1).height + read_arrival(storage, 2).height
    assert monitor(workspace_of(storage, registry), PARAMS, 1) == replace(found, skipped=True)
    assert monitor(workspace_of(storage, registry), PARAMS, 3).batches == (3,)
