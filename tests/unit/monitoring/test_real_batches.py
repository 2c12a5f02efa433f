"""On the real dataset: quiet batches stay quiet, and every scenario is seen in the batch in which it begins."""

import io
import os
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from health_predict.data.batches import batches
from health_predict.data.cohort import label, select_cohort
from health_predict.data.decode import decode
from health_predict.data.splits import split
from health_predict.data.validation import validate
from health_predict.errors import DataError
from health_predict.evaluation.metrics import Metrics, evaluate
from health_predict.monitoring.drift import field_drift
from health_predict.monitoring.performance import performance, prediction_drift
from health_predict.monitoring.reference import Reference, profile, reliance, value_counts
from health_predict.monitoring.retraining import Evidence, Moved, Stock, decide
from health_predict.monitoring.separation import separation
from health_predict.params import Params
from health_predict.simulation.scenarios import SCENARIOS, inject
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import Fitted, fit, prepare

RAW = os.environ.get("HEALTH_PREDICT_RAW_DATA", "")
PARAMS = Params()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RAW.endswith(".zip"), reason="HEALTH_PREDICT_RAW_DATA does not name the dataset's zip"),
]


@dataclass(frozen=True)
class World:
    """A model, its reference, and encounters of patients that neither has seen, of the same months."""

    model: Fitted
    train: pl.DataFrame
    reference: Reference
    window: Metrics
    unseen: pl.DataFrame


@pytest.fixture(scope="module")
def cohort() -> pl.DataFrame:
    with zipfile.ZipFile(io.BytesIO(Path(RAW).read_bytes())) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("diabetic_data.csv"))
        return select_cohort(validate(decode(archive.read(name)), PARAMS.validation).encounters)


@pytest.fixture(scope="module")
def world(cohort) -> World:
    """Three neighbouring batches, divided by patient: the nearest that real data comes to no drift."""
    return _world(cohort, seed=5)


def _world(cohort: pl.DataFrame, seed: int) -> World:
    months = pl.concat(batches(split(cohort, PARAMS.split).future, PARAMS.split)[5:8])
    people = np.random.default_rng(seed).permutation(months["patient_nbr"].unique().sort().to_numpy())
    edges = (np.array([0, 0.40, 0.50, 0.66, 1]) * len(people)).astype(int)
    train, validation, window, unseen = (
        months.filter(pl.col("patient_nbr").is_in(people[start:end].tolist())) for start, end in pairwise(edges)
    )
    known, held_out, approved = (label(part, "lt30") for part in (train, validation, window))
    prepared = prepare("target", known, held_out, PARAMS.preprocessor)
    model = fit("lightgbm", CANDIDATES["lightgbm"].default(len(train)), prepared, PARAMS.search, PARAMS.bundle.capacity)
    scores = model.predict_proba(validation)
    importance = reliance(model.predict_proba, validation, PARAMS.drift.seed, rows=800)
    return World(
        model,
        train,
        profile(known, scores, importance, PARAMS.drift),
        evaluate(approved.outcomes, model.predict_proba(window), approved.patients, model.threshold, PARAMS.bootstrap),
        unseen,
    )


def _inputs(world: World, batch: pl.DataFrame) -> list[str]:
    scores = world.model.predict_proba(batch)
    checks = (
        field_drift(world.reference, value_counts(batch), PARAMS.drift),
        prediction_drift(
            world.reference, scores, world.model.threshold, PARAMS.bundle.capacity, PARAMS.performance, PARAMS.drift
        ),
        separation(world.train, batch, PARAMS.drift),
    )
    return [reason for check in checks for reason in check.reasons]


def _outcomes(world: World, batch: pl.DataFrame) -> list[str]:
    known = label(batch, "lt30")
    scores = world.model.predict_proba(batch)
    found = performance(known.outcomes, scores, known.patients, world.window, PARAMS.performance, PARAMS.bootstrap)
    return list(found.reasons)


def test_at_most_two_of_twenty_batches_without_drift_are_an_alarm(cohort):
    """Each time other patients and another model; the whole status: fields, scores, combinations and outcomes."""
    worlds = (_world(cohort, seed) for seed in range(100, 120))
    alarms = [bool(_inputs(world, world.unseen) + _outcomes(world, world.unseen)) for world in worlds]
    assert sum(alarms) <= 2


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, scenario in SCENARIOS.items()
        if name != "none" and not scenario.refused and not scenario.follow_up
    ],
)
def test_a_scenario_is_seen_in_the_batch_in_which_it_begins(world, name):
    batch = inject(name, world.unseen, 0, PARAMS.scenario)
    if SCENARIOS[name].needs_outcomes:
        assert _outcomes(world, batch)
    else:
        assert _inputs(world, batch)


def test_a_schema_break_cannot_be_judged(world):
    with pytest.raises(DataError, match="time_in_hospital"):
        value_counts(inject("schema_break", world.unseen, 0, PARAMS.scenario))


def test_new_payer_codes_alone_do_not_retrain(world, cohort):
    """The real change of payers, from the first fifth of the stream to the second, and nothing else."""
    early = split(cohort, PARAMS.split).train.head(len(world.unseen))
    batch = world.unseen.head(len(early)).with_columns(early["payer_code"])
    drift = field_drift(world.reference, value_counts(batch), PARAMS.drift)
    payer = next(field for field in drift.fields if field.field == "payer_code")
    assert payer.drifted
    assert payer.distance > 0.3
    assert not drift.detected
    evidence = Evidence(moved=(Moved(drift.importance_drifted, drift.administrative_drifted, False),) * 9)
    stock = Stock(
        world.reference.rows, 1_000, 1, fresh_rows=9_000, fresh_outcomes=900, needed_rows=0, needed_outcomes=0
    )
    assert decide(evidence, stock, PARAMS.retraining).action == "none"
