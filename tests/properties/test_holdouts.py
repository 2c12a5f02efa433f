"""No encounter that models are compared on was seen by one of them, or asked about before; and the loop still promotes.

The whole loop over small batches, with a trainer that gives out the same model again and says what it was trained on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from unittest.mock import patch

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import encounters
from health_predict.adapters.registry import BUNDLE
from health_predict.bundle.model import ENCODER, MODEL, REFERENCE, load_bundle, write_bundle
from health_predict.data.cohort import label, select_cohort
from health_predict.data.schema import OUTCOME
from health_predict.data.splits import Supply, pool, retraining, supply
from health_predict.errors import Declined
from health_predict.params import (
    AssemblyParams,
    BootstrapParams,
    DriftParams,
    GateParams,
    Params,
    PreprocessorParams,
    RetrainingParams,
)
from health_predict.steps.loop.arrive import arrive
from health_predict.steps.loop.assemble import assemble
from health_predict.steps.loop.decide import decide
from health_predict.steps.loop.judge import judge
from health_predict.steps.loop.mature import mature
from health_predict.steps.loop.monitor import monitor
from health_predict.steps.loop.recalibrate import recalibrate
from health_predict.steps.loop.score import score
from health_predict.store import layout
from health_predict.store.datasets import Dataset, read_part, vouch
from health_predict.store.holdouts import seen
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import publish
from health_predict.store.reports import read_evaluation, write_evaluation
from health_predict.store.storage import Folder
from health_predict.store.tables import keep_table, read_table, table_bytes
from health_predict.training.fit import prepare
from loop import RUN, Registry, crown, decide_on, export_champion, put_into_production
from stores import workspace_of

pytestmark = pytest.mark.slow

INITIAL_ROWS = 700
TABLE = encounters(4_000)
PARAMS = Params(
    assembly=AssemblyParams(test_rows=150, validation_rows=90),
    bootstrap=BootstrapParams(replicates=20),
    drift=DriftParams(min_rows=100, replicates=10, separation_trees=5),
    gate=GateParams(min_rows=80, min_outcomes=5, min_subgroup_outcomes=1_000),
    retraining=RetrainingParams(growth=0.5),
)
ENOUGH = Supply(PARAMS.gate.min_rows, PARAMS.gate.min_outcomes)


@dataclass
class Versions(Registry):
    """As `Registry`, with as many versions as runs were registered: their bundles lie beside the first one."""

    runs: list[str] = field(default_factory=lambda: [RUN])
    begun: int = 0

    def bundle(self, run_id: str) -> Path:
        return self.folder if run_id == RUN else self.folder.with_name(run_id)

    def register(self, run_id: str) -> str:
        self.runs.append(run_id)
        return str(len(self.runs))

    @contextmanager
    def run(self, _experiment: str, _name: str, tags) -> Iterator[str]:
        self.begun += 1
        yield f"run-{self.begun}"
        self.tags.append(tags)

    def download(self, _run_id: str, _path: str, folder: Path) -> Path:
        return folder

    def log_folder(self, run_id: str, folder: Path) -> None:
        copytree(folder / BUNDLE, self.bundle(run_id))

    def log(self, _run_id: str, metrics, **_: object) -> None:
        self.logged.append(metrics)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    storage = Folder(str(tmp_path_factory.mktemp("initial")))
    set_aside(storage, 400)
    with patch("health_predict.steps.loop.monitor.html", return_value=b""):
        yield export_champion(storage, tmp_path_factory.mktemp("champion") / "bundle", PARAMS)


def set_aside(storage: Folder, size: int) -> None:
    """Initial data, and the rest in batches of a size."""
    first, rest = TABLE.head(INITIAL_ROWS), TABLE.slice(INITIAL_ROWS)
    keys = (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST)
    cohort = select_cohort(first)
    tables = dict(zip(keys, (cohort.head(400), cohort.slice(400, 150), cohort.slice(550)), strict=True))
    starts = range(0, rest.height, size)
    tables |= {layout.future_batch(number): rest.slice(start, size) for number, start in enumerate(starts, start=1)}
    files = {key: table_bytes(table, key) for key, table in tables.items()}
    publish(storage, layout.SPLIT_MANIFEST, inputs={}, files=files, result={"synthetic": True, "parts": []})


@dataclass
class Loop:
    """A store, what its hold-outs had, and what was promoted; `train` gives out the same model again."""

    storage: Folder
    registry: Versions
    held_out: list[int] = field(default_factory=list)
    declined: int = 0
    promoted: int = 0

    def arrive(self, number: int, refused: bool = False) -> None:
        arrive(self.storage, PARAMS.scenario, number, "schema_break" if refused else "none", from_batch=number)

    def watch(self, number: int) -> str:
        """What the policy decides; "none" while too few have arrived to judge."""
        judge(workspace_of(self.storage, self.registry), PARAMS)
        try:
            monitor(workspace_of(self.storage, self.registry), PARAMS, number)
        except Declined:
            return "none"
        return decide(self.storage, PARAMS, number).action

    def remedy(self, action: str, number: int, accepted: bool) -> None:
        """Do what was decided, and let the gate, were it to accept, decide. Declined as the steps do."""
        storage, registry, champion = self.storage, self.registry, str(read_ledger(self.storage).production)
        if action == "recalibrate":
            made = recalibrate(workspace_of(storage, registry), PARAMS, number, champion)
            run_id, dataset = made.run_id, made.dataset
        else:
            dataset = assemble(storage, PARAMS, number).dataset
            run_id = self.train(dataset, champion)
        self.check(run_id, dataset, champion)
        approved = read_evaluation(storage, RUN)
        write_evaluation(storage, replace(approved, run_id=run_id))
        if not accepted:
            self.declined += 1
            decide_on(storage, "declined", registry.bundle(run_id))
            return
        self.promoted += 1
        put_into_production(storage, registry.bundle(run_id), registry.register(run_id))

    def train(self, dataset: Dataset, champion: str) -> str:
        vouched = vouch(self.storage, dataset)
        tables = [read_part(self.storage, vouched, key, "lt30")[1] for key in (dataset.train, dataset.validation)]
        for key in (dataset.train, dataset.validation):
            keep_table(self.storage, self.storage.read(key))
        before = self.registry.bundle(read_ledger(self.storage).version(champion).run_id)
        bundle = load_bundle(before)
        with self.registry.run("experiment", "train", {}) as run_id:
            manifest = msgspec.structs.replace(bundle.manifest, run_id=run_id, trained_on=tables, dataset=dataset.name)
            model, reference = ((before / name).read_bytes() for name in (MODEL, REFERENCE))
            write_bundle(self.registry.bundle(run_id), manifest, bundle.encoder, model, reference)
        assert (before / ENCODER).read_bytes() == (self.registry.bundle(run_id) / ENCODER).read_bytes()
        return run_id

    def check(self, run_id: str, dataset: Dataset, champion: str) -> None:
        """The comparison is on enough encounters that none of its models has seen and nobody asked about before."""
        test = read_table(self.storage, dataset.test)
        first = str(read_ledger(self.storage).first.production)
        runs = [run_id, *(read_ledger(self.storage).version(version).run_id for version in (champion, first))]
        known = set(seen(self.storage, [load_bundle(self.registry.bundle(one)).manifest for one in runs]))
        asked = test["encounter_id"].to_list()
        assert not set(asked) & known
        assert not set(asked) & set(self.held_out)
        assert supply(test).covers(ENOUGH)
        self.held_out += asked

    def roll_back(self) -> None:
        ledger = read_ledger(self.storage)
        left = ledger.version(str(ledger.production))
        moves = (ledger.previous, ledger.before(str(ledger.previous)))
        decide_on(self.storage, "rolled_back", self.registry.bundle(left.run_id), left.version, moves=moves)


@contextmanager
def started(champion: Path, size: int) -> Iterator[Loop]:
    with TemporaryDirectory() as folder:
        first = Path(folder) / "bundles" / "first"
        copytree(champion, first)
        storage = Folder(f"{folder}/store")
        set_aside(storage, size)
        crown(storage, first, PARAMS)
        yield Loop(storage, Versions(first))


Event = st.sampled_from(["quiet", "retrain", "retrain, declined", "recalibrate", "recalibrate, declined", "refused",
                         "rolled back"])  # fmt: skip


@given(size=st.sampled_from([60, 150, 400]), events=st.lists(Event, min_size=3, max_size=7))
@settings(max_examples=3, deadline=None)
def test_nothing_is_compared_on_what_a_model_has_seen_or_what_was_asked_before(champion, size, events):
    with started(champion, size) as loop:
        known: list[int] = []
        for number, event in enumerate(events, start=1):
            loop.arrive(number, refused=event == "refused")
            for one in known:
                mature(loop.storage, one)
            if event == "refused":
                continue
            loop.watch(number)
            if event == "rolled back" and read_ledger(loop.storage).previous:
                loop.roll_back()
            action, _, no = event.partition(", ")
            if action in ("retrain", "recalibrate") and known:
                try:
                    loop.remedy(action, number, accepted=not no)
                except Declined as declined:
                    assert "are needed" in str(declined)
            score(workspace_of(loop.storage, loop.registry), number, "1")
            known.append(number)


@pytest.mark.parametrize("size", [40, 100, 300])
def test_a_loop_over_small_batches_promotes_again_and_again(champion, size):
    with started(champion, size) as loop:
        last = (TABLE.height - INITIAL_ROWS) // size
        for number in range(1, min(last, 30) + 1):
            loop.arrive(number)
            if number > 1:
                mature(loop.storage, number - 1)
            action = loop.watch(number)
            if action != "none":
                loop.remedy(action, number, accepted=True)
            score(workspace_of(loop.storage, loop.registry), number, "1")
        assert loop.promoted >= 2


def test_a_declined_training_leaves_its_data_new_and_does_not_train_again_before_there_is_a_fresh_hold_out(champion):
    size = 100
    with started(champion, size) as loop:
        tried = []
        for number in range(1, 26):
            loop.arrive(number)
            if number > 1:
                mature(loop.storage, number - 1)
            action = loop.watch(number)
            if action != "none":
                loop.remedy(action, number, accepted=False)
                tried.append(number)
            score(workspace_of(loop.storage, loop.registry), number, "1")
        assert loop.declined >= 2
        least = PARAMS.gate.min_rows / (size * PARAMS.assembly.max_share)
        assert all(later - earlier > least for earlier, later in pairwise(tried))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=2, deadline=None)
def test_no_outcome_of_an_encounter_under_evaluation_reaches_an_encoding(seed):
    """Of the test part none does, and of validation none either: patients in both are nowhere in what is fitted on."""
    cohort = select_cohort(TABLE)
    batches = [cohort.head(1_500), cohort.slice(1_500)]
    params, gate = PARAMS.assembly, replace(PARAMS.gate, min_outcomes=0)  # outcomes have no say in the division
    parts = retraining(batches, pool(batches, cohort["encounter_id"].head(0), params, gate), params, gate)
    patients = set(parts.test["patient_nbr"]) | set(parts.validation["patient_nbr"])
    held_out = pl.col("patient_nbr").is_in(list(patients))
    rng = np.random.default_rng(seed)
    dealt = pl.Series(rng.choice(["<30", ">30", "NO"], cohort.height), dtype=cohort.schema[OUTCOME])
    changed = cohort.with_columns(pl.when(held_out).then(dealt).otherwise(pl.col(OUTCOME)).alias(OUTCOME))
    others = [changed.head(1_500), changed.slice(1_500)]
    again = retraining(others, pool(others, cohort["encounter_id"].head(0), params, gate), params, gate)
    found = [encoding(parts), encoding(again)]
    assert again.test["encounter_id"].equals(parts.test["encounter_id"])
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])
    assert np.array_equal(found[0][2], found[1][2])


def encoding(parts) -> tuple[bytes, np.ndarray, np.ndarray]:
    """The encoder that is fitted for trees, and what it makes of the training and of the validation encounters."""
    made = prepare("target", label(parts.train, "lt30"), label(parts.validation, "lt30"), PreprocessorParams())
    return made.preprocessor.to_encoder().to_json(), made.fold.X_train, made.fold.X_validation
