"""The loop in any order of what a hospital hands over, with real steps and a small real model: two examples, slowly.

`test_seeds.py` has thousands of hospitals, with the arithmetic stood for."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from factories import encounters
from health_predict.cli import run_loop
from health_predict.cli.run_loop import Loop
from health_predict.data.cohort import select_cohort
from health_predict.data.schema import OUTCOME
from health_predict.errors import Declined, StorageError
from health_predict.monitoring.next_action import next_action
from health_predict.params import (
    AssemblyParams,
    BootstrapParams,
    DriftParams,
    GateParams,
    IntakeParams,
    Params,
    RetrainingParams,
)
from health_predict.settings import Settings
from health_predict.steps.data.intake_encounters import intake_encounters
from health_predict.steps.data.intake_outcomes import intake_outcomes
from health_predict.store import layout
from health_predict.store.batches import arrived, matured, read_arrival, read_matured, scored
from health_predict.store.ledger import read_ledger
from health_predict.store.loop import read_ended, read_state
from health_predict.store.manifests import publish
from health_predict.store.monitoring_reports import read_judgements, read_watched
from health_predict.store.storage import Folder
from health_predict.store.tables import read_table, table_bytes
from loop import Registry, crown, decide_on, export_champion
from stores import workspace_of

pytestmark = pytest.mark.slow

TABLE = encounters(6_000, seed=3)
FIRST = 800  # encounters of the initial data
SIZES = (1, 40, 120, 300)
PARAMS = Params(
    assembly=AssemblyParams(test_rows=90, validation_rows=60),
    bootstrap=BootstrapParams(replicates=10),
    drift=DriftParams(min_rows=100, replicates=5, separation_trees=3),
    gate=GateParams(min_rows=50, min_outcomes=3, min_subgroup_outcomes=1_000),
    retraining=RetrainingParams(growth=0.1),
    intake=IntakeParams(min_known=0.9),
)
RESULT = {
    "synthetic": True,
    "parts": [{"key": layout.INITIAL_TRAIN, "rows": 400}, {"key": layout.INITIAL_VALIDATION, "rows": 150}],
}


class Flaky(Folder):
    """A store that fails now and then, before or after it has done what it was asked; `failing` is the chance."""

    def __init__(self, root: str, seed: int):
        super().__init__(root)
        self.failing, self._random = 0.0, random.Random(seed)  # noqa: S311

    def _perhaps(self, do: Callable[[], Any]) -> Any:
        if self._random.random() < self.failing:
            if self._random.random() < 0.5:
                do()
            raise StorageError("the store does not answer")
        return do()

    def write(self, key: str, data: bytes) -> None:
        self._perhaps(lambda: super(Flaky, self).write(key, data))

    def write_if(self, key: str, data: bytes, state: str | None) -> None:
        self._perhaps(lambda: super(Flaky, self).write_if(key, data, state))

    def delete(self, key: str) -> None:
        self._perhaps(lambda: super(Flaky, self).delete(key))


def begun(storage: Folder) -> None:
    """Initial data, as `data split --replay-batches 0` leaves them."""
    keys = (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST)
    tables = (TABLE.head(400), TABLE.slice(400, 150), TABLE.slice(550, FIRST - 550))
    files = {key: table_bytes(table, key) for key, table in zip(keys, tables, strict=True)}
    publish(storage, layout.SPLIT_MANIFEST, inputs={}, files=files, result=RESULT)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = Folder(str(tmp_path_factory.mktemp("initial")))
    begun(storage)
    return export_champion(storage, tmp_path_factory.mktemp("champion") / "bundle", PARAMS)


def machine(champion: Path) -> type[RuleBasedStateMachine]:
    class Hospital(RuleBasedStateMachine):
        """What is handed over, and the loop after it; training and gate are stood for, all else is the product's."""

        @initialize(seed=st.integers(0, 2**32 - 1), better=st.booleans())
        def begin(self, seed: int, better: bool) -> None:
            self.folder = TemporaryDirectory()
            self.place = Path(self.folder.name)
            self.storage = Flaky(str(self.place / "store"), seed)
            self.registry, self.better, self.next, self.files = Registry(champion), better, FIRST, 0
            self.handed: dict[int, str] = {}  # encounter -> outcome that was said last
            self.versions: dict[str, str] = {}  # of runs that the gate let in
            self.said: set[str] = set()  # contents of the files of outcomes
            begun(self.storage)
            crown(self.storage, champion, PARAMS)
            silent: Any = SimpleNamespace(say=lambda _text: None)
            self.loop = Loop(Settings(), PARAMS, silent, workspace_of(self.storage, self.registry))

        def teardown(self) -> None:
            if hasattr(self, "folder"):
                self.folder.cleanup()

        @rule(size=st.sampled_from(SIZES), again=st.integers(0, 60), failing=st.sampled_from([0.0, 0.0, 0.3]))
        def encounters_arrive(self, size: int, again: int, failing: float) -> None:
            """New encounters, and some that were handed over before."""
            start = max(FIRST, self.next - again)
            table = TABLE.slice(start, self.next - start + size)
            self.next += size
            source = self._file(table.drop(OUTCOME).with_columns(pl.all().cast(pl.String).fill_null("?")))
            self._surely(lambda: intake_encounters(self.storage, PARAMS.intake, "me", source), failing)

        @precondition(lambda self: self.next > FIRST)
        @rule(data=st.data(), failing=st.sampled_from([0.0, 0.0, 0.3]))
        def outcomes_come(self, data: st.DataObject, failing: float) -> None:
            """Of any encounters, some not arrived yet, some said before, a few of these corrected."""
            start = data.draw(st.integers(FIRST, self.next - 1))
            table = TABLE.slice(start, data.draw(st.sampled_from([50, 300, 2_000]))).select("encounter_id", OUTCOME)
            if data.draw(st.booleans()):
                corrected = data.draw(st.integers(0, table.height - 1))
                other = pl.when(pl.int_range(pl.len()) == corrected).then(pl.lit("<30")).otherwise(pl.col(OUTCOME))
                table = table.with_columns(other.alias(OUTCOME))
            source = self._file(table)
            if self._is_new(table):
                self.handed |= dict(table.iter_rows())
            self._surely(lambda: intake_outcomes(self.storage, PARAMS.intake, "me", source), failing)

        @rule(failing=st.sampled_from([0.0, 0.0, 0.2]))
        def loop_runs(self, failing: float) -> None:
            self._surely(self._run, failing)
            assert next_action(read_state(self.storage)).action is None

        @invariant()
        def nothing_is_lost_and_nothing_is_used_before_its_time(self) -> None:
            if not hasattr(self, "storage"):
                return
            ids = [
                one for number in arrived(self.storage) for one in read_arrival(self.storage, number)["encounter_id"]
            ]
            assert ids == select_cohort(TABLE.slice(FIRST, self.next - FIRST))["encounter_id"].to_list()
            for number in matured(self.storage):
                known = read_matured(self.storage, number)
                arrival = read_arrival(self.storage, number)
                assert known.height >= PARAMS.intake.min_known * arrival.height
                assert dict(known.select("encounter_id", OUTCOME).iter_rows()).items() <= self.handed.items()

        @invariant()
        def every_batch_ends_once_and_each_finding_is_told_once(self) -> None:
            if not hasattr(self, "storage"):
                return
            judged = [one.batch for one in read_judgements(self.storage)]
            assert len(judged) == len(set(judged))
            assert set(judged) <= set(matured(self.storage)) & set(scored(self.storage))
            reports = read_watched(self.storage)
            watched = [one for report in reports for one in report.batches]
            told = [one.batch for report in reports for one in report.outcomes]
            assert len(watched) == len(set(watched))
            assert len(told) == len(set(told))
            ended = [read_ended(self.storage, number) for number in arrived(self.storage)]
            retrained = [one for one in ended if one and one.run_id]
            assert [bool(one.promoted) for one in retrained] == [self.better] * len(retrained)

        def _run(self) -> None:
            with (
                patch.object(run_loop, "evaluate", lambda *_: None),
                patch.object(run_loop, "promote", self._promote),
                patch.object(Loop, "_train", lambda _loop, dataset: self._train(dataset)),
                patch("health_predict.steps.loop.monitor.html", return_value=b""),
            ):
                for _ in self.loop.run():
                    pass

        def _train(self, dataset: str) -> str:
            test = read_table(self.storage, layout.retraining_data(int(dataset.partition("_")[2]), "test"))
            assert test.height >= PARAMS.gate.min_rows
            assert (test[OUTCOME] == "<30").sum() >= PARAMS.gate.min_outcomes
            return f"run-{dataset}"

        def _promote(self, storage: Folder, _registry: Any, _gate: Any, _who: str, run_id: str) -> Any:
            if not self.better:
                raise Declined("the gate declined the model:", ["It is no better."])
            if run_id not in self.versions:  # a promotion that is asked for again is done already
                version = str(len(self.versions) + 2)
                decide_on(storage, "promoted", champion, version, moves=(version, read_ledger(storage).production))
                self.versions[run_id] = version
            return SimpleNamespace(version=SimpleNamespace(version=self.versions[run_id]))

        def _surely(self, do: Callable[[], Any], failing: float) -> None:
            """Once with a store that fails, which may lose nothing, and then with one that answers."""
            self.storage.failing = failing
            if failing:
                with suppress(StorageError):
                    do()
            self.storage.failing = 0.0
            do()

        def _is_new(self, table: pl.DataFrame) -> bool:
            """A file that came before changes nothing, whatever was said since."""
            content = table.write_csv()
            is_new = content not in self.said
            self.said.add(content)
            return is_new

        def _file(self, table: pl.DataFrame) -> str:
            self.files += 1
            source = self.place / f"{self.files}.csv"
            table.write_csv(source)
            return str(source)

    return Hospital


def test_whatever_a_hospital_hands_over_the_loop_does_each_thing_once(champion):
    few = settings(
        max_examples=2,
        stateful_step_count=8,
        deadline=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),  # shrinking takes minutes
    )
    run_state_machine_as_test(machine(champion), settings=few)
