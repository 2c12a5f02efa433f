"""No outcome is used before it has matured: whatever it is, everything written until then stays the same."""

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import encounters
from health_predict.data.schema import OUTCOME
from health_predict.io import layout
from health_predict.io.manifests import publish
from health_predict.io.replay import matured
from health_predict.io.storage import Folder
from health_predict.io.tables import table_bytes
from health_predict.params import AssemblyParams, ScenarioParams
from health_predict.steps.arrive import arrive
from health_predict.steps.assemble import assemble
from health_predict.steps.mature import mature

BATCHES = 4
TABLE = encounters(1_000)
PARAMS = AssemblyParams(test_rows=60, validation_rows=40)
# Label shift chooses who arrives by outcome: there the world itself depends on it.
SCENARIOS = st.sampled_from(["none", "abrupt_covariate_shift", "concept_shift", "coding_change", "missing_feed"])
UNUSED = (layout.FUTURE, layout.SPLIT_MANIFEST, "arrivals/")  # arrivals are compared by their tables


def store(root: Path, poisoned: int, shuffle: int) -> Folder:
    """Initial data and batches; the outcomes of one batch and of all later ones are dealt out anew."""
    size = len(TABLE) // (BATCHES + 1)
    parts = [TABLE.slice(position * size, size) for position in range(BATCHES + 1)]
    tables = dict(
        zip(
            (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST),
            (parts[0].head(100), parts[0].slice(100, 50), parts[0].slice(150)),
            strict=True,
        )
    )
    for number, part in enumerate(parts[1:], start=1):
        changed = part.with_columns(pl.col(OUTCOME).shuffle(seed=shuffle)) if number >= poisoned else part
        tables[layout.future_batch(number)] = changed
    storage = Folder(str(root))
    files = {key: table_bytes(table, key) for key, table in tables.items()}
    publish(storage, layout.SPLIT_MANIFEST, inputs={}, files=files, result={"synthetic": True, "parts": []})
    return storage


def walk(storage: Folder, scenario: str, upto: int) -> dict[str, bytes]:
    """Replay the batches up to one that has arrived and not matured; everything there is to see by then."""
    for number in range(1, upto + 1):
        arrive(storage, ScenarioParams(), number, scenario, from_batch=2)
        if number > 1:
            mature(storage, number - 1)
            assemble(storage, PARAMS, number)
        assert matured(storage, number + 1) == list(range(1, number))
    tables = [layout.arrival(number) for number in range(1, upto + 1)]
    others = [key for key in storage.list() if not key.startswith(UNUSED)]
    return {key: storage.read(key) for key in [*tables, *others]}


@given(scenario=SCENARIOS, poisoned=st.integers(2, BATCHES), shuffle=st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_no_outcome_is_used_before_it_has_matured(scenario, poisoned, shuffle):
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        untouched = walk(store(Path(one), BATCHES + 1, 0), scenario, poisoned)
        changed = walk(store(Path(two), poisoned, shuffle), scenario, poisoned)
        assert changed == untouched
        assert layout.retraining_data(poisoned, "train") in changed


def test_an_outcome_is_used_once_it_has_matured(tmp_path):
    found = [walk(store(tmp_path / str(seed), 1, seed), "none", 3) for seed in (1, 2)]
    keys = [layout.retraining_data(3, part) for part in ("train", "validation", "test")]
    assert all(found[0][key] != found[1][key] for key in keys)
