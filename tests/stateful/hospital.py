"""A hospital that one seed decides on: what is handed over and when, how many work, what fails; and what has to hold.

`World(seed).play()` raises AssertionError, with the sentence of what did not hold, or whatever the product raised that
no fault of the simulation explains.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import polars as pl
from simulated import CALM, DAY, FAULT, Actor, Memory, Simulation, Weather
from simulated_mlflow import Client, Database

from health_predict.adapters.registry import Registry
from health_predict.cli.run_loop import Loop
from health_predict.data.schema import EXCLUDED_DISPOSITIONS, OUTCOME
from health_predict.data.validation import DTYPES
from health_predict.errors import ConflictError, DataError, Declined, HealthPredictError
from health_predict.monitoring.next_action import next_action
from health_predict.params import Params, SearchParams
from health_predict.settings import Settings
from health_predict.steps.data.intake_encounters import intake_encounters
from health_predict.steps.data.intake_outcomes import intake_outcomes
from health_predict.steps.loop.assemble import assemble
from health_predict.steps.loop.decide import decide
from health_predict.steps.loop.judge import judge
from health_predict.steps.loop.monitor import monitor
from health_predict.steps.loop.score import score
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.promote import promote
from health_predict.steps.model.rollback import rollback
from health_predict.steps.model.train import Progress, train
from health_predict.store import layout
from health_predict.store.batches import arrived, matured, next_assembly, read_arrival, read_predictions, scored
from health_predict.store.intake import read_intake
from health_predict.store.ledger import read_ledger
from health_predict.store.loop import read_ended, read_state
from health_predict.store.manifests import publish
from health_predict.store.monitoring_reports import read_judgements, read_watched
from health_predict.store.reports import read_evaluation
from health_predict.store.tables import read_json, table_bytes
from health_predict.workspace import Workspace
from health_predict.workspace.production import aliases, first_version, settle
from health_predict.workspace.turn import turn

PARAMS = Params(search=SearchParams(families=("lightgbm",)))
INITIAL = (7_700, 1_700, 2_600)  # encounters of train, validation and test; GateParams wants 2,000 of the last
FIRST = sum(INITIAL)
ERA_ROWS = 200  # encounters of an era that teach it, or show it
LIMIT = 60_000  # accesses of a world; the most seen was 7,200
TAIL, TAIL_ROWS = 3, 6_000  # batches at the end, after faults have stopped, by which a better model is in production
ONCE = ("performance/", "tables/", "holdouts/", "loop/batch_")
PUBLISHED = ("predictions/", "arrivals/", "drift_reports/")  # once their manifest is there; until then, made anew
SILENT = Progress(lambda *_: None, lambda *_: None)


@cache
def everybody() -> pl.DataFrame:
    """Invented encounters in the order in which they come, of which worlds take as many as they need."""
    rng, rows = np.random.default_rng(7), FIRST + 160_000
    columns = {
        "encounter_id": np.arange(1, rows + 1),
        "patient_nbr": np.cumsum(rng.random(rows) < 0.8) + 1,
        "discharge_disposition_id": np.where(rng.random(rows) < 0.03, 11, 1),
        OUTCOME: rng.choice(["<30", ">30", "NO"], rows, p=[0.12, 0.33, 0.55]),
    }
    return pl.DataFrame(columns).cast({name: DTYPES[name] for name in columns})


@dataclass(frozen=True)
class Event:
    """A file that is handed over. `refused`: it does not fit."""

    at: float
    source: str
    outcomes: bool
    table: pl.DataFrame
    as_of: date | None = None
    refused: bool = False


@dataclass(frozen=True)
class Founded:
    """A store with a first model in production."""

    files: Mapping[str, bytes]
    database: Database
    models: Mapping[str, tuple[int, int]]


class World:
    """Facts that a promise can be held against are the world's own: what was handed over, what a model has learnt."""

    def __init__(self, seed: int, founded: Founded | None, trace: bool = False):
        self.simulation = Simulation(seed, LIMIT)
        self.simulation.trace = [] if trace else None
        draw = self.random = self.simulation.random
        self.models = dict(founded.models) if founded else {}
        self.database = founded.database.copy() if founded else Database()
        self.client = Client(self.simulation, self.database)
        self.files: dict[str, pl.DataFrame] = {}
        self.storage = Memory(self.simulation, dict(founded.files) if founded else _split(), self._written)
        self.kind = draw.choice(["none", "covariate", "calibration", "calibration", "concept", "concept", "concept"])
        self.tolerant = draw.random() < 0.5  # does the gate let in a model that is as good
        self.weather = _weather(draw)
        self.loops = draw.choices([1, 2, 3], [6, 3, 1])[0]
        self.intakes = draw.choices([1, 2], [3, 1])[0]
        self.cron = draw.random() < 0.6
        self.person = draw.random() < 0.3
        self.tail = draw.random() < 0.3 and self.kind in ("calibration", "concept")
        self.era_begins = everybody().height
        self.events = self._planned(draw)
        self.handed: list[Event] = []
        self.over, self.actions, self.trained = False, 0, 0
        self._said = np.zeros(everybody().height + 1, np.uint8)  # by encounter: a bit for each outcome that was said
        self._once: dict[str, bytes] = {}
        self._held: dict[str, frozenset[int]] = {}  # hold-outs that models were trained for

    # What is handed over

    def _planned(self, draw: Random) -> list[Event]:
        events: list[Event] = []
        batches = draw.randint(2, 4)
        drifts, position = draw.randint(0, batches), FIRST
        sizes = [round(50 * 400 ** draw.random()) for _ in range(batches)]
        lags = [draw.randint(0, 4) for _ in range(batches)]
        if self.tail:
            sizes, lags = sizes + [TAIL_ROWS] * TAIL, lags + [0] * TAIL
        for number, (size, lag) in enumerate(zip(sizes, lags, strict=True)):
            is_tail = number >= batches
            if number == drifts and self.kind != "none":
                self.era_begins = position
            begins = position if is_tail or draw.random() < 0.7 else max(FIRST, position - draw.randint(1, 300))
            table, at = everybody().slice(begins, position + size - begins), (number + 1) * DAY
            encounters, position = table.drop(OUTCOME), position + size
            if not is_tail and draw.random() < 0.1:
                unfit = pl.lit(None).cast(DTYPES["discharge_disposition_id"]).alias("discharge_disposition_id")
                events.append(self._event(at, False, encounters.with_columns(unfit), refused=True))
                if draw.random() < 0.5:
                    continue
                at += draw.random() * DAY
            events.append(self._event(at, False, encounters))
            if draw.random() < 0.15:
                events.append(self._event(at + draw.random() * DAY, False, encounters))
            if draw.random() < 0.15:
                events.append(self._event(at + draw.random() * DAY, False, encounters.clear()))
            events += self._outcomes(draw, table.select("encounter_id", OUTCOME), at + (lag + 0.9) * DAY, is_tail)
        self.ends = max(event.at for event in events)
        self.calm_from = (batches + 1) * DAY if self.tail else self.ends + DAY
        return sorted(events, key=lambda event: event.at)

    def _outcomes(self, draw: Random, table: pl.DataFrame, at: float, is_tail: bool) -> Iterator[Event]:
        if is_tail:
            yield self._event(at, True, table)
            return
        dated = draw.random() < 0.5
        first = draw.choice([1.0, 1.0, 1.0, 0.98, 0.9, 0.5])
        cut = round(first * table.height)
        yield self._event(at, True, table.head(cut), dated)
        if cut < table.height and draw.random() < 0.8:
            yield self._event(at + draw.random() * 2 * DAY, True, table.tail(table.height - cut), dated)
        if draw.random() < 0.35:
            corrected = table.slice(draw.randrange(table.height), draw.randint(1, 60))
            said = corrected.with_columns(pl.lit(draw.choice(["<30", "NO"])).cast(DTYPES[OUTCOME]).alias(OUTCOME))
            yield self._event(at + draw.uniform(-1, 2) * DAY, True, said, draw.random() < 0.5)
        if draw.random() < 0.15:
            yield self._event(at + draw.random() * DAY, True, table.head(cut), dated)

    def _event(
        self, at: float, outcomes: bool, table: pl.DataFrame, dated: bool = False, refused: bool = False
    ) -> Event:
        source = f"{'outcomes' if outcomes else 'encounters'}-{len(self.files) + 1}"
        self.files[source] = table
        at = max(at, 0.0)
        as_of = (
            self.simulation.today.date().fromordinal(date(2026, 1, 1).toordinal() + int(at / DAY)) if dated else None
        )
        return Event(at, source, outcomes, table, as_of, refused)

    # What models know

    def era(self, encounters: pl.DataFrame) -> int:
        """1 where enough of the encounters are of the later era."""
        return int((encounters["encounter_id"] > self.era_begins).sum() >= min(ERA_ROWS, encounters.height / 2))

    def table(self, digest: str) -> pl.DataFrame:
        return pl.read_parquet(BytesIO(self.storage.files[layout.table(digest)]))

    def passes(self, challenger: str, champion: str) -> bool:
        new, old = self.models[challenger], self.models[champion]
        return new > old or (new == old and self.tolerant)

    # Processes

    def workspace(self) -> Workspace:
        return Workspace(self.storage, lambda: Registry("simulated", "Invented"), Path("nowhere"))  # type: ignore[arg-type]

    def loop(self) -> Loop:
        output: Any = SimpleNamespace(say=lambda _text: None, training=_training)
        return Loop(_settings(), PARAMS, output, self.workspace())

    def play(self) -> None:
        """Live through it, and hold everything against what was promised."""
        self.simulation.weather = self.weather
        queues = [self.events[one :: self.intakes] for one in range(self.intakes)]
        bodies: dict[str, Callable[[], None]] = {
            **{f"intake{one}": lambda queue=queue: self._take_in(queue) for one, queue in enumerate(queues)},
            **{f"loop{one}": self._work for one in range(self.loops)},
            "person": self._meddle if self.person else lambda: None,
            "calm": self._calm,
        }
        for name, body in bodies.items():
            self.simulation.start(name, body, after=self.random.random() * DAY / 4)
        self.waiting = self.intakes

        def respawn(killed: Actor) -> None:
            self.simulation.start(killed.name, bodies[killed.name], after=self.random.random() * DAY / 4)

        self.simulation.run(respawn)
        self.simulation.weather = CALM
        self._settles()
        self.check()
        if self.random.random() < 0.25:  # it takes long
            self._rests()

    def _calm(self) -> None:
        self.simulation.sleep(max(0.0, self.calm_from - self.simulation.now))
        self.simulation.weather = Weather(switches=self.weather.switches)

    def _take_in(self, queue: list[Event]) -> None:
        while queue:
            event = queue[0]
            self.simulation.sleep(max(0.0, event.at - self.simulation.now))
            self._hand_over(event)
            queue.pop(0)
        self.waiting -= 1
        if self.waiting == 0:
            self.simulation.sleep(DAY)
            self.over = True

    def _hand_over(self, event: Event) -> None:
        if event not in self.handed:
            self.handed.append(event)
            if event.outcomes:
                self._said[event.table["encounter_id"].to_numpy()] |= _bits(event.table)
        while True:
            try:
                if event.outcomes:
                    intake_outcomes(self.storage, PARAMS.intake, "me", event.source, event.as_of)
                else:
                    intake_encounters(self.storage, PARAMS.intake, "me", event.source)
                assert not event.refused, "a file that does not fit was taken in"
                return
            except HealthPredictError as error:
                if event.refused and isinstance(error, DataError) and "do not fit" in str(error):
                    return
                self._explained(error, self.intakes > 1)
                self.simulation.sleep(self.random.random() * 3_600)

    def _work(self) -> None:
        while not self.over:
            try:
                for _ in self.loop().run():
                    self.actions += 1
            except HealthPredictError as error:
                self._explained(error, self.loops > 1 or self.person)
            self._until_next()

    def _until_next(self) -> None:
        """As cron has it: all that work begin at the same time, or each when it likes."""
        if self.cron:
            self.simulation.sleep(DAY - self.simulation.now % DAY)
        else:
            self.simulation.sleep(self.random.random() * 2 * DAY)

    def _meddle(self) -> None:
        """Somebody does steps by hand, whether it is their time or not; errors are answers."""
        while not self.over:
            self._until_next()
            steps = [
                self._by_hand,
                self._by_hand,
                self._by_hand,
                self._train_by_hand,
                self._roll_back,
                self._promote_again,
            ]
            with suppress(HealthPredictError):
                self.random.choice(steps)()

    def _by_hand(self) -> None:
        workspace, storage = self.workspace(), self.storage
        number = self.random.randint(1, max(arrived(storage), default=1))
        step = self.random.choice(
            [
                lambda: judge(workspace, PARAMS),
                lambda: monitor(workspace, PARAMS, number),
                lambda: decide(storage, PARAMS, number),
                lambda: assemble(storage, PARAMS, next_assembly(storage)),
                lambda: score(workspace, number, first_version(storage)),
            ]
        )
        with turn(storage, "person"):
            step()

    def _train_by_hand(self) -> None:
        params = Params(search=SearchParams(families=("lightgbm",), seed=self.random.randrange(1_000)))
        run_id = train(self.workspace(), params, "lt30", None, SILENT).winner
        evaluate(self.workspace(), PARAMS, "person", run_id)
        promote(self.workspace(), PARAMS.gate, "person", run_id)

    def _promote_again(self) -> None:
        """The newest training's winner, which is the loop's, by hand."""
        evaluate(self.workspace(), PARAMS, "person", None)
        promote(self.workspace(), PARAMS.gate, "person", None)

    def _roll_back(self) -> None:
        rollback(self.workspace(), "person", "it is worse")

    def _explained(self, error: HealthPredictError, several: bool) -> None:
        """An error has to be a fault of the simulation's, or another who was faster."""
        if FAULT in str(error) or (several and isinstance(error, ConflictError | Declined)):
            return
        raise AssertionError(f"{type(error).__name__} that no fault explains: {error}") from error

    # What has to hold

    def _written(self, key: str, before: bytes | None, after: bytes | None) -> None:
        if key in (layout.LEDGER, layout.INTAKE):
            assert after is not None and after.startswith(before or b""), f"a line of {key} was lost or changed"
        if after is not None:
            assert self._once.get(key, after) == after, f"{key} was written, and then otherwise"
            if key.startswith(ONCE):
                self._once[key] = after
            elif key.startswith(PUBLISHED) and key.endswith(".json") and not key.endswith("/drift.json"):
                named = (key, *msgspec.json.decode(after)["files"])
                self._once |= {one: self.storage.files[one] for one in named}
        if key.startswith(layout.OUTCOMES) and key.endswith(".parquet") and after is not None:
            known = pl.read_parquet(BytesIO(after))
            rows = pl.read_parquet(BytesIO(self.storage.files[layout.arrival(int(key[-10:-8]))])).height
            assert known.height >= PARAMS.intake.min_known * rows, f"{key} was written before enough was known"
            self._was_said(known, key)

    def _was_said(self, table: pl.DataFrame, where: str) -> None:
        later = table.filter(pl.col("encounter_id") > FIRST)
        said = self._said[later["encounter_id"].to_numpy()] & _bits(later)
        assert said.all(), f"{where} has an outcome that nobody has said"

    def train(self, data: Any) -> None:
        """A model is being trained: could it be promoted?"""
        self.trained += 1
        dataset = data.provenance.dataset
        if dataset == "initial":
            return
        number = int(dataset.rpartition("_")[2])
        files = self.storage.files
        test = pl.read_parquet(BytesIO(files[layout.retraining_data(number, "test")]))
        ids = frozenset(test["encounter_id"].to_list())
        outcomes = int((test[OUTCOME] == "<30").sum())
        enough = test.height >= PARAMS.gate.min_rows and outcomes >= PARAMS.gate.min_outcomes
        assert enough, "a training whose hold-out is too small for the gate"
        parts = [data.train.encounters, data.validation.encounters]
        for part in parts:
            assert ids.isdisjoint(part["encounter_id"].to_list()), "a training that sees its hold-out"
            self._was_said(part, f"the training data {dataset}")
        ledger = [msgspec.json.decode(line) for line in files[layout.LEDGER].splitlines()]
        champion = ledger[-1]["production"]
        for entry in ledger:
            if entry["decision"] == "promoted" and entry["production"] in (champion, "1"):
                assert ids.isdisjoint(self._seen(entry["subject"]["bundle"])), "a hold-out that production has seen"
        for other, held in self._held.items():
            assert other == dataset or ids.isdisjoint(held), "a hold-out that has encounters of an earlier one"
        self._held[dataset] = ids

    def _seen(self, bundle: str) -> set[int]:
        manifest = msgspec.json.decode(self.storage.files[f"{layout.bundle(bundle)}/bundle.json"])
        return {
            one for table in manifest["trained_on"] for one in self.table(table["sha256"])["encounter_id"].to_list()
        }

    def _settles(self) -> None:
        """Once faults have stopped, what is due ends: after at most so many actions for each batch."""
        before = self.actions
        most = 3 + 8 * (1 + len(read_state(self.storage).open))
        self.simulation.start("last", self._last)
        self.simulation.run()
        assert self.actions - before <= most, f"{self.actions - before} actions, {most} are enough"
        due = next_action(read_state(self.storage))
        assert due.action is None, f"the loop ended, and this is due: {due.reason}"

    def _last(self) -> None:
        for _ in self.loop().run():
            self.actions += 1

    def _rests(self) -> None:
        """A rerun of everything changes nothing."""
        files, database = dict(self.storage.files), repr(self.database)
        for event in self.handed:
            if not event.refused:
                self._hand_over(event)
        self._last()
        changed = sorted(
            key for key in files.keys() | self.storage.files.keys() if files.get(key) != self.storage.files.get(key)
        )
        assert not changed, f"a rerun changed {', '.join(changed)}"
        assert database == repr(self.database), "a rerun changed MLflow"

    def check(self) -> None:
        storage = self.storage
        batches, ledger = arrived(storage), read_ledger(storage)
        if self.person:  # whose command may have died in between, and is not given again
            ledger = settle(self.workspace())
        here = aliases(self.workspace().registry)
        assert (here.production, here.previous) == (ledger.production, ledger.previous), "aliases are not the ledger's"
        self._check_intake(batches)
        said, became = set(scored(storage)), set(matured(storage))
        assert said == set(batches), "a batch was not scored"
        for number in batches:
            ended = read_ended(storage, number)
            assert ended is not None and ended.scored, f"batch {number} has not ended"
            assert ended.action in (None, "none") or bool(ended.promoted) != bool(ended.objections), (
                "a remedy has no end"
            )
            told = read_json(storage, layout.manifest(layout.predictions(number)))["result"]
            assert ledger.entries[told["decisions"] - 1].production == told["version"], "scored by what was not there"
        judged = read_judgements(storage)
        assert {one.batch for one in judged} == said & became, "what has matured was not judged"
        for one in judged:
            assert set(read_predictions(storage, int(one.batch or 0))["version"].unique()) == {one.version}
        reports = read_watched(storage)
        watched = [number for report in reports for number in report.batches]
        assert len(watched) == len(set(watched)), "a batch is in two reports"
        told_of = [one.batch for report in reports for one in report.outcomes]
        assert len(told_of) == len(set(told_of)), "a judgement was reported twice"
        self._check_ledger(ledger)
        if self.tail and not self.person:
            run_id = ledger.subject(str(ledger.production)).run_id
            known = self.models[run_id]
            assert known[0 if self.kind == "concept" else 1] == 1, f"no better model within {TAIL} batches"

    def _check_intake(self, batches: list[int]) -> None:
        storage = self.storage
        there = [read_arrival(storage, number)["encounter_id"] for number in batches]
        ids = pl.concat([pl.Series("encounter_id", [], DTYPES["encounter_id"]), *there])
        assert ids.n_unique() == len(ids), "an encounter arrived twice"
        handed = [event.table for event in self.handed if not event.outcomes and not event.refused]
        alive = ~pl.col("discharge_disposition_id").is_in(EXCLUDED_DISPOSITIONS)
        expected = pl.concat([ids.clear(), *(table.filter(alive)["encounter_id"] for table in handed)]).unique()
        assert ids.sort().equals(expected.sort()), "an encounter was lost, or came from nowhere"
        newest, days = np.zeros(len(self._said), np.uint8), np.full(len(self._said), -1)
        for line in (one for one in read_intake(storage).received if one.kind == "outcomes"):
            table = self.table(line.table)
            whose, day = table["encounter_id"].to_numpy(), table["as_of"].to_physical().fill_null(-1)[0]
            counts = days[whose] <= day
            newest[whose[counts]], days[whose[counts]] = _bits(table)[counts], day
        assert ((newest > 0) == (self._said > 0)).all(), "a statement was lost"
        for number, whose in zip(batches, there, strict=True):
            bits, key = newest[whose.to_numpy()], layout.outcomes(number)
            enough = (bits > 0).sum() >= PARAMS.intake.min_known * len(bits)
            assert enough == (key in storage.files), f"batch {number} has matured, or has not, against the rule"
            if enough:
                found = pl.read_parquet(BytesIO(storage.files[key]))
                same = found["encounter_id"].to_list() == whose.to_numpy()[bits > 0].tolist()
                same = same and (_bits(found) == bits[bits > 0]).all()
                assert same, f"outcomes of batch {number} are not the newest that were said"

    def _check_ledger(self, ledger: Any) -> None:
        before: str | None = None
        for entry in ledger.entries:
            if entry.question is not None:
                assert entry.question.look <= PARAMS.gate.max_looks or entry.decision != "promoted"
            if entry.decision == "promoted":
                assert entry.question.champion == before, "promoted against another than production"
                report = read_evaluation(self.storage, entry.subject.run_id)
                assert report is not None and all(one.passed for one in report.checks), "promoted against the gate"
                if before is not None:
                    old = ledger.subject(before).run_id
                    assert self.passes(entry.subject.run_id, old), "a worse model was promoted"
            before = entry.production


def _bits(outcomes: pl.DataFrame) -> Any:
    """1, 2 or 4 for each row, by its outcome."""
    return 1 << outcomes[OUTCOME].cast(pl.Enum(["<30", ">30", "NO"])).to_physical().to_numpy().astype(np.uint8)


def _weather(draw: Random) -> Weather:
    """Each kind of fault is there or not, so that seeds differ in more than in number."""
    chances = (0.0, 0.002, 0.01, 0.03)
    return Weather(
        switches=draw.choice((0.0, 0.02, 0.1, 0.3)),
        fails=draw.choice(chances),
        stalls=draw.choice((0.0, 0.0, 0.005)),
        kills=draw.choice((0.0, 0.001, 0.003, 0.01)),
    )


@cache
def _split_files() -> dict[str, bytes]:
    alive = everybody().head(FIRST)
    keys = (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION, layout.INITIAL_TEST)
    starts = np.cumsum((0, *INITIAL))
    tables = [alive.slice(int(start), rows) for start, rows in zip(starts, INITIAL, strict=False)]
    files = {key: table_bytes(table, key) for key, table in zip(keys, tables, strict=True)}
    storage = Memory(Simulation(0, 1_000), {})
    parts = [{"key": key, "rows": table.height} for key, table in zip(keys, tables, strict=True)]
    publish(storage, layout.SPLIT_MANIFEST, inputs={}, files=files, result={"synthetic": True, "parts": parts})
    return storage.files


def _split() -> dict[str, bytes]:
    return dict(_split_files())


@cache
def _settings() -> Settings:
    return Settings(actor="loop")


@contextmanager
def _training(_search: Any) -> Iterator[Progress]:
    yield SILENT
