"""What stands for the arithmetic of the loop, so that a seed takes milliseconds and all else is the product's own.

A model is what it has learnt: the newest era of the encounters that it was fitted on, and that of those it was
calibrated on. Eras are the world's: encounters of a later one are not as they were. A model gives every encounter the
same risk, by which the arithmetic knows it again. So what is measured follows from what the product handed over: the
probabilities that it kept, the tables that it divided.

Stood for are: the search and fit of a training, ONNX (loading and writing a bundle), metrics and their bootstrap, the
statistics of drift, the pages; reading a CSV; the check of tables value by value. A table has four columns of the
fifty. Rules of the gate, policy, alarms, division into train, validation and test, ledger, aliases, manifests,
intake and loop are the product's.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import polars as pl
from hospital import World
from mlflow.tracking import MlflowClient

from health_predict.adapters import processes
from health_predict.adapters.registry import BUNDLE, PREPROCESSOR, Registry
from health_predict.adapters.training_runs import experiment
from health_predict.bundle import export, model, profile, reference_encounter
from health_predict.bundle.model import ENCODER, MANIFEST, MODEL, REFERENCE, Bundle, Manifest, ReferenceEncounter
from health_predict.data.schema import OUTCOME
from health_predict.data.validation import DTYPES
from health_predict.errors import DataError
from health_predict.evaluation import gate, metrics
from health_predict.evaluation.gate import Comparison, Opponent, Scores
from health_predict.evaluation.metrics import AurocComparison, Differences, Interval, Measurement, Metrics
from health_predict.features.calibration import Calibration
from health_predict.monitoring import drift, performance, reference, separation
from health_predict.monitoring.drift import Drift
from health_predict.monitoring.performance import Performance, PredictionDrift
from health_predict.monitoring.separation import Separation
from health_predict.params import Params
from health_predict.reports import drift_page
from health_predict.steps.data import intake_outcomes
from health_predict.steps.model import train
from health_predict.store import (
    batches,
    encounter_files,
    intake,
    known_encounters,
    received,
    received_follow_up,
    tables,
)
from health_predict.store.reports import BestModel
from health_predict.training import fit

COLUMNS = ("encounter_id", "patient_nbr", "discharge_disposition_id", OUTCOME)
GOOD, POOR = Measurement(0.030, 0.024, 0.036, 0.003), Measurement(-0.050, -0.056, -0.044, 0.003)
NOTHING = Measurement(0.0, -0.001, 0.001, 0.001)
SAME = Interval(1.0, 0.95, 1.05)

# Functions of the product that are asked for the same of the same tables again and again.
PURE = (
    intake._newest,
    intake._of_outcomes,
    intake._known,
    intake.that_count,
    intake_outcomes._changed,
    known_encounters._each_once,
    known_encounters._of,
)


class _Reference(msgspec.Struct):
    fields: dict[str, dict[str, int]] = {}
    scores: list[float] = []
    scored: int = 0
    importance: dict[str, float] = {}


@dataclass(frozen=True)
class _Model(Bundle):
    """A bundle whose every risk says whose it is."""

    def predict_proba(self, encounters: pl.DataFrame) -> Any:
        return np.full(len(encounters), risk(self.manifest.run_id))


def risk(run_id: str) -> float:
    """The probability that the model of a run gives."""
    return int(run_id.removeprefix("run")) / 1e6


def model_of(probability: Any) -> str:
    """The run whose model gave these probabilities, all of them."""
    found = {round(one * 1e6) for one in np.unique(np.asarray(probability))}
    assert len(found) == 1, "probabilities of several models in one batch"
    return f"run{found.pop():04d}"


def _metrics(rows: int, outcomes: int, threshold: float = 0.5) -> Metrics:
    some = Interval(0.65, 0.63, 0.67)
    return Metrics(
        rows, outcomes, rows, threshold, some, some, some, some, some, SAME, SAME, some, some, some, some, some
    )


class StandIns:
    """The doubles, for the world that is there at the moment."""

    world: World

    # Bundles

    def write_bundle(self, folder: Path, manifest: Manifest, _encoder: Any, content: bytes, profile: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        contents = {ENCODER: b"{}", MODEL: content, REFERENCE: profile}
        for name, data in contents.items():
            (folder / name).write_bytes(data)
        files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        (folder / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=files)))
        if manifest.lineage:  # recalibrated: the newest table is what it was calibrated on
            learnt, _ = self.world.models[manifest.lineage[-1]]
            self.world.models[manifest.run_id] = (
                learnt,
                self.world.era(self.world.table(manifest.trained_on[-1].sha256)),
            )

    def load_bundle(self, folder: Path, threads: int = 1) -> Bundle:
        document = model._read(folder, MANIFEST)
        manifest = msgspec.json.decode(document, type=Manifest)
        for name in (ENCODER, MODEL, REFERENCE):
            if hashlib.sha256(model._read(folder, name)).hexdigest() != manifest.files[name]:
                raise model.BundleError(f"{name} in {folder} was altered")
        return _Model(manifest, None, None, hashlib.sha256(document).hexdigest())  # type: ignore[arg-type]

    def read_reference(self, folder: Path) -> _Reference:
        return msgspec.json.decode((folder / REFERENCE).read_bytes(), type=_Reference)

    # Training

    def search_and_fit(
        self, registry: Registry, parent: str, data: Any, params: Params, _address: Any, _progress: Any
    ) -> tuple[list[Any], list[BestModel]]:
        """One model, that knows what its data have to teach."""
        self.world.train(data)
        provenance = data.provenance
        with (
            registry.run(experiment(registry.model_name), "Best_LightGBM_Model", {}, parent=parent) as run_id,
            tempfile.TemporaryDirectory() as scratch,
        ):
            content = f"{sorted(table.sha256 for table in provenance.trained_on)} {params.search.seed}".encode()
            manifest = Manifest(
                format=model.FORMAT,
                family="lightgbm",
                config={},
                dataset=provenance.dataset,
                target=provenance.target,
                capacity=params.bundle.capacity,
                threshold=0.5,
                calibration=Calibration(),
                bands=[],
                percentiles=[],
                reference_encounter=ReferenceEncounter({}, []),
                fields=[],
                excluded=[],
                trained_on=list(provenance.trained_on),
                synthetic=True,
                simulation=provenance.simulation,
                lineage=[],
                metrics={},
                versions={},
                git_revision="simulated",
                run_id=run_id,
                trained_at="",
                golden=[],
                files={},
            )
            self.write_bundle(Path(scratch) / BUNDLE, manifest, None, content, msgspec.json.encode(_Reference()))
            for part in (PREPROCESSOR, "model/MLmodel"):
                (Path(scratch) / part).parent.mkdir()
                (Path(scratch) / part).write_bytes(b"stands for the research copy")
            registry.log_folder(run_id, Path(scratch))
            registry.log(run_id, tags={"health_predict.bundle_sha256": self.load_bundle(Path(scratch) / BUNDLE).sha256})
        learnt = self.world.era(data.train.encounters)
        self.world.models[run_id] = (learnt, max(learnt, self.world.era(data.validation.encounters)))
        rows = len(data.validation.outcomes)
        found = _metrics(rows, int(data.validation.outcomes.sum()))
        return [], [BestModel("lightgbm", run_id, {}, 0.5, found, 0.0, "")]

    def calibrate(self, before: Any, outcomes: Any, patients: Any, params: Any, represents: Any = None) -> Calibration:
        return Calibration(round(len(outcomes) / 1e6 + float(np.mean(outcomes)), 9))

    def evaluate(self, y_true: Any, y_proba: Any, patients: Any, threshold: float, params: Any) -> Metrics:
        return _metrics(len(y_true), int(np.sum(y_true)), threshold)

    # The gate's figures

    def compare_models(
        self,
        encounters: pl.DataFrame,
        y_true: Any,
        challenger: Scores,
        *,
        champion: Scores | None,
        first: Scores | None,
        trained_on: pl.Series,
        fingerprints: Mapping[str, str],
        capacity: float,
        gate: Any,
        bootstrap: Any,
        represents: Any,
    ) -> Comparison:
        found = _metrics(len(y_true), int(y_true.sum()))

        def oppose(other: Scores | None, better: bool) -> Opponent | None:
            difference = GOOD if better else POOR
            return other and Opponent(other.version, found, Differences(difference, difference, NOTHING))

        run_id = model_of(challenger.y_proba)
        assert run_id == challenger.version, "the challenger's risks are another model's"
        passes = champion is None or self.world.passes(run_id, model_of(champion.y_proba))
        return Comparison(
            challenger_version=challenger.version,
            challenger=found,
            champion=oppose(champion, passes),
            first=oppose(first, better=True),
            clinical={"score": AurocComparison(GOOD, GOOD, GOOD)},
            subgroups=(),
            seen=int(encounters["encounter_id"].is_in(trained_on.implode()).sum()),
            fingerprints=dict(fingerprints),
        )

    # What monitoring measures

    def performance_of(self, became: pl.DataFrame, before: Metrics, params: Params) -> Performance:
        """A model does worse on an era that it has not learnt from, beyond doubt where there are many encounters."""
        outcomes = int((became[OUTCOME] == "<30").sum())
        if outcomes == 0:
            raise DataError("all outcomes are the same")
        learnt, calibrated = self.world.models[model_of(became["probability"])]
        era, certain = self.world.era(became), became.height >= 2_000
        fell, off = learnt < era and self.world.kind == "concept", calibrated < era
        off = off and self.world.kind in ("concept", "calibration")
        found, change = _metrics(became.height, outcomes), Interval(-0.1 * fell, -0.1 * fell, -0.1 * fell)
        return Performance(
            current=found,
            reference=found,
            auroc_change=change,
            average_precision_change=change,
            brier_change=change,
            discrimination=fell,
            severe_discrimination=fell and certain,
            calibration=off,
            severe_calibration=off and certain,
            reasons=("It is worse than it was.",) if fell or off else (),
        )

    def field_drift(self, _reference: Any, current: Any, _params: Any) -> Drift:
        moved = self.world.kind == "covariate" and current["era"] > 0
        reasons = ("Fields drifted.",) if moved else ()
        return Drift(10_000, current["rows"], (), 0.5 * moved, 0.0, reasons, ())

    def value_counts(self, encounters: pl.DataFrame) -> dict[str, int]:
        return {"rows": encounters.height, "era": self.world.era(encounters)}

    def separation(self, _reference: Any, current: pl.DataFrame, _params: Any) -> Separation:
        return Separation(current.height, 0.5, 0.6, ())

    def prediction_drift(self, _reference: Any, scores: Any, *_rest: Any) -> PredictionDrift:
        moved = self.world.kind == "covariate"
        return PredictionDrift(len(scores), 0.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.6, 0.6, ("Scores moved.",) * moved)

    # The rim

    def client(self, _uri: str) -> Any:
        return self.world.client

    def open_encounters(self, source: str, _endpoint: Any, discharge_column: str) -> Any:
        return _File(self.world.files[source])

    def read_statements(self, source: str, as_of: date | None, _endpoint: Any) -> pl.DataFrame:
        return self.world.files[source].with_columns(as_of=pl.lit(as_of, pl.Date))

    def this_process(self) -> processes.Process:
        return processes.Process("simulated", self.world.simulation.process + 1, "")  # a process has no number 0

    def is_gone(self, process: processes.Process) -> bool:
        return not self.world.simulation.lives(process.pid - 1)

    def hex(self, size: int) -> str:
        return self.world.simulation.random.randbytes(size).hex()


@dataclass(frozen=True)
class _File:
    """A file of encounters. One whose rows do not fit has no disposition anywhere."""

    table: pl.DataFrame
    identifiers = frozenset(COLUMNS[:2])
    is_dated = False

    def sift(self, _rows: int, _today: date, _needed: Any) -> Iterator[Any]:
        table = self.table.with_columns(row=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
        fits = pl.col("discharge_disposition_id").is_not_null()
        bad = table.filter(~fits).with_columns(reason=pl.lit("discharge_disposition_id is missing"))
        yield SimpleNamespace(encounters=table.filter(fits).drop("row"), quarantined=bad)


@contextmanager
def standing_in() -> Iterator[StandIns]:
    """The doubles are there for the block, wherever the product has imported what they stand for."""
    doubles = StandIns()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return doubles.world.simulation.today

    pairs = [
        (model.write_bundle, doubles.write_bundle),
        (model.load_bundle, doubles.load_bundle),
        (profile.read_reference, doubles.read_reference),
        (export.bands, lambda *_: []),
        (export.git_revision, lambda: "simulated"),
        (reference_encounter.reference_encounter, lambda *_: ReferenceEncounter({}, [])),
        (reference.percentiles, lambda _scores: []),
        (reference.value_counts, doubles.value_counts),
        (train._search_and_fit, doubles.search_and_fit),
        (fit.recalibration, doubles.calibrate),
        (metrics.evaluate, doubles.evaluate),
        (gate.compare_models, doubles.compare_models),
        (performance.performance_of, doubles.performance_of),
        (performance.prediction_drift, doubles.prediction_drift),
        (drift.field_drift, doubles.field_drift),
        (separation.separation, doubles.separation),
        (drift_page.html, lambda *_: b""),
        (MlflowClient, doubles.client),
        (encounter_files.open_encounters, doubles.open_encounters),
        (received.read_statements, doubles.read_statements),
        (received_follow_up.read_follow_up, lambda *_: None),
        (tables._check_values, lambda *_: None),
        (tables.json_bytes, lambda document: json.dumps(document, sort_keys=True).encode()),
        (processes.this_process, doubles.this_process),
        (processes.is_gone, doubles.is_gone),
        (processes.machine, lambda: "simulated"),
        (datetime, Clock),
        *((function, _once(function)) for function in PURE),
    ]
    narrow = {name: DTYPES[name] for name in COLUMNS}
    arrives = {name: dtype for name, dtype in narrow.items() if name != OUTCOME}
    with (
        patch.dict(DTYPES, narrow, clear=True),
        patch.dict(batches.ARRIVAL, arrives, clear=True),
        patch("secrets.token_hex", doubles.hex),
        patch.multiple(pl, **_parsing()),
        _replaced(pairs),
    ):
        yield doubles


def _parsing() -> dict[str, Any]:
    """Readers that parse each Parquet file once: polars', for bytes that are in memory."""
    parse, parse_metadata = lru_cache(400)(pl.read_parquet), lru_cache(400)(pl.read_parquet_metadata)

    @lru_cache(400)
    def part(content: bytes, columns: tuple[str, ...]) -> pl.DataFrame:
        return parse(content).select(columns)

    def read(source: Any, columns: list[str] | None = None) -> pl.DataFrame:
        content = source.getvalue() if isinstance(source, BytesIO) else source
        return parse(content) if columns is None else part(content, tuple(columns))

    return {"read_parquet": read, "read_parquet_metadata": lambda source: parse_metadata(source.getvalue())}


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tables, computed once for the same ones. A table is known by its identity: nothing changes it."""
    kept: dict[Any, tuple[Any, Any]] = {}

    def known(value: Any) -> Any:
        if isinstance(value, pl.DataFrame):
            return id(value) if value.height else str(value.schema)
        return tuple(map(known, value)) if isinstance(value, tuple) else value

    def call(*values: Any) -> Any:
        key = known(values)
        if key not in kept:
            if len(kept) == 400:
                kept.clear()
            kept[key] = values, function(*values)  # a table that is kept keeps its identity to itself
        return kept[key][1]

    return call


@contextmanager
def _replaced(pairs: list[tuple[Any, Any]]) -> Iterator[None]:
    """Every module of the product that has one of the first has the second instead."""
    by_id, before = {id(first): second for first, second in pairs}, []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "health_predict":
            for attribute, value in list(vars(module).items()):
                if id(value) in by_id:
                    before.append((module, attribute, value))
                    setattr(module, attribute, by_id[id(value)])
    assert {id(value) for _, _, value in before} == by_id.keys(), "nothing has what a double stands for"
    try:
        yield
    finally:
        for module, attribute, value in before:
            setattr(module, attribute, value)
