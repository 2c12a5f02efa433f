"""The commands that decide what is served, in any order, from two stores on one MLflow, killed between any two writes.

Each invariant is a sentence of the documentation (docs/architecture.md). The steps, the store, the
ledger and MLflow are the real ones; what is trained is dealt out (`world.py`), and processes die at failpoints
(`failpoints.py`).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from failpoints import Actor, Death, Killed, acting
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from world import MODEL_NAME, PARAMS, SEEDS, SILENT, SPLIT, STORES, Facts, Store, World, training

from health_predict.errors import ConflictError, Declined, HealthPredictError
from health_predict.steps.data.split import split
from health_predict.steps.loop.arrive import arrive
from health_predict.steps.loop.assemble import assemble
from health_predict.steps.loop.begin import begin
from health_predict.steps.loop.mature import mature
from health_predict.steps.loop.recalibrate import recalibrate
from health_predict.steps.model.adopt import adopt
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.fetch_bundle import fetch_bundle
from health_predict.steps.model.promote import promote
from health_predict.steps.model.rollback import rollback
from health_predict.steps.model.status import status
from health_predict.steps.model.train import train
from health_predict.store import layout
from health_predict.store.batches import matured
from health_predict.store.ledger import MOVES, Entry, Ledger, Question, read_ledger
from health_predict.store.replay import ReplayPlan
from health_predict.workspace.production import holder_of

pytestmark = pytest.mark.slow

WHO = "tester"

stores = st.sampled_from([STORES[0], *STORES])  # more is to be decided where much was decided before
seeds = st.sampled_from(SEEDS)
deaths = st.none() | st.builds(Death, st.integers(1, 12), st.sampled_from(["before", "within", "after"]))
allowed = st.sampled_from([None, None, "a person has looked"])
versions = st.sampled_from([None, None, None, "1", "2", "3"])


@dataclass(frozen=True)
class Run:
    """Of a training or recalibration, in the store that did it."""

    store: str
    run_id: str


class ControlPlane(RuleBasedStateMachine):
    """`world` is set by the test."""

    world: World
    runs: Bundle[Run] = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()
        self.stores = {name: self.world.store(name) for name in STORES}

    @initialize(saved=st.sampled_from(["released", "empty"]), target=runs)
    def start(self, saved: str) -> Any:
        """With nothing, or with two versions behind the first store, a batch of outcomes, and a model ready to go."""
        self.world.reset(saved)
        ledger = read_ledger(self.stores["one"].storage)
        return multiple(
            *(Run("one", entry.subject.run_id) for entry in ledger.entries if entry.decision == "evaluated")
        )

    # What prepares

    @rule(target=runs, store=stores, seed=seeds, force=st.booleans(), death=deaths)
    def train(self, store: str, seed: int, force: bool, death: Death | None) -> Any:
        report = self.command(store, "train", lambda at: _train(at, seed, force), death)
        return Run(store, report.winner) if report else multiple()

    @rule(store=stores, seed=seeds)
    def train_for_study(self, store: str, seed: int) -> None:
        """A model of the other outcome can be made, and gets no further."""
        report = self.command(store, "train --target any", lambda at: _train(at, seed, True, "any"), None)
        if report is None:
            return
        for step in (_evaluate, _promote):
            assert self.command(store, step.__name__, lambda at, step=step: step(at, report.winner), None) is None

    @rule(store=stores, seed=st.integers(0, 1), death=deaths)
    def resplit(self, store: str, seed: int, death: Death | None) -> None:
        self.command(store, "data split", lambda at: split(at.storage, replace(SPLIT, seed=seed)), death)

    @rule(store=stores, number=st.integers(1, SPLIT.batches), death=deaths)
    def mature(self, store: str, number: int, death: Death | None) -> None:
        self.command(store, "mature", lambda at: _mature(at, number), death)

    @rule(target=runs, store=stores, death=deaths)
    def recalibrate(self, store: str, death: Death | None) -> Any:
        production = read_ledger(self.stores[store].storage).production
        if production is None or not matured(self.stores[store].storage, SPLIT.batches + 1):
            return multiple()
        result = self.command(store, "recalibrate", lambda at: _recalibrate(at, production), death)
        return Run(store, result.run_id) if result else multiple()

    @rule(target=runs, store=stores, seed=seeds, death=deaths)
    def retrain(self, store: str, seed: int, death: Death | None) -> Any:
        """Train on all that has matured."""
        production = read_ledger(self.stores[store].storage).production
        if production is None or not matured(self.stores[store].storage, SPLIT.batches + 1):
            return multiple()
        report = self.command(store, "retrain", lambda at: _retrain(at, seed, production), death)
        return Run(store, report.winner) if report else multiple()

    # What decides

    @rule(run=runs, death=deaths)
    def evaluate(self, run: Run, death: Death | None) -> None:
        before = self.world.registry_state()
        self.command(run.store, "evaluate", lambda at: _evaluate(at, run.run_id), death)
        assert self.world.registry_state() == before, "evaluate reads the registry and never writes to it"

    @rule(run=runs, allow=allowed, death=deaths)
    def promote(self, run: Run, allow: str | None, death: Death | None) -> None:
        self.decision(run.store, "promote", lambda at: _promote(at, run.run_id, allow), death)

    @rule(store=stores, death=deaths)
    def rollback(self, store: str, death: Death | None) -> None:
        self.decision(store, "rollback", _rollback, death)

    @rule(store=stores, to=versions, left=versions, allow=allowed, death=deaths)
    def rollback_to(self, store: str, to: str | None, left: str | None, allow: str | None, death: Death | None) -> None:
        self.decision(store, "rollback", lambda at: _rollback(at, to, left, allow), death)

    @rule(store=stores, seed=seeds)
    def regret(self, store: str, seed: int) -> None:
        """What is in production is rolled back, and then the same DAG runs again."""
        self.release(store, seed)
        self.decision(store, "rollback", _rollback, None)
        self.release(store, seed)

    @rule(store=stores, source=st.none() | stores, death=deaths)
    def adopt(self, store: str, source: str | None, death: Death | None) -> None:
        def step(at: Store) -> Any:
            return adopt(at.workspace, WHO, "it moved", self.stores[source].storage if source else None)

        self.decision(store, "adopt", step, death)

    @rule(target=runs, store=stores, seed=seeds)
    def release(self, store: str, seed: int) -> Any:
        """What `make` or a DAG does: train, evaluate, promote."""
        report = self.command(store, "train", lambda at: _train(at, seed, False), None)
        if report is None:
            return multiple()
        self.command(store, "evaluate", lambda at: _evaluate(at, report.winner), None)
        self.decision(store, "promote", lambda at: _promote(at, report.winner), None)
        return Run(store, report.winner)

    @rule(store=stores, name=st.sampled_from(["what-if", "other"]), restart=st.booleans(), seed=seeds, death=deaths)
    def simulate(self, store: str, name: str, restart: bool, seed: int, death: Death | None) -> None:
        """A replay begins, and promotes in its own world."""
        ours, ledger = self.registered(MODEL_NAME), self.ledger_bytes(store)
        plan = ReplayPlan("none", 1, ("lightgbm",), 1, 1)

        def step(at: Store) -> Any:
            begun = begin(at.workspace, WHO, name, plan, restart)
            within = Store(name, begun.workspace)
            run_id = _train(within, seed, False).winner
            _evaluate(within, run_id)
            promoted = _promote(within, run_id)
            assert promoted.simulation == name
            return promoted

        self.command(store, "simulate", step, death)
        assert (self.registered(MODEL_NAME), self.ledger_bytes(store)) == (ours, ledger), "a replay touches production"

    # What reads

    @rule(store=stores)
    def read(self, store: str) -> None:
        before = self.world.everything()
        self.command(store, "fetch-bundle", _fetch, None)
        found = self.command(store, "status", lambda at: status(at.workspace), None)
        assert found is not None, "status answers whatever there is"
        ledger = read_ledger(self.stores[store].storage)
        assert (found.production and found.production.version, found.previous) == (ledger.production, ledger.previous)
        assert self.world.everything() == before, "reading changed something"
        if self.holder() == ledger.id is not None and self.pointed() != (ledger.production, ledger.previous):
            assert found.problems, "status is silent about aliases that say something else"

    # Running a step

    def command(self, store: str, name: str, step: Callable[[Store], Any], death: Death | None) -> Any:
        """The step's result; None where it was told no. Killed, it is run again, as its orchestrator would."""
        model, mine = self.registered(MODEL_NAME), self.speaks(store)
        try:
            with acting(Actor(death)) as actor:
                result = step(self.stores[store])
        except Killed as killed:
            note(f"{name} in {store} died {killed}")
            self.check()
            return self.command(store, name, step, None)
        except HealthPredictError as error:
            note(f"{name} in {store}: {error}")
            assert _helps(error), error
            result = None
        else:
            note(f"{name} in {store}: done with {len(actor.writes)} writes")
        if not mine and name != "adopt":
            assert self.registered(MODEL_NAME) == model, f"{name} in {store} changed a model that another store holds"
        return result

    def decision(self, store: str, name: str, step: Callable[[Store], Any], death: Death | None) -> None:
        """As `command`; and ledger, aliases and `status` agree after it, and retries moved nothing twice."""
        moves = self.moves(store)
        result = self.command(store, name, step, death)
        assert self.moves(store) - moves <= 1, f"{name} moved production twice"
        if result is None:
            return
        at = self.stores[store]
        ledger, found = read_ledger(at.storage), status(at.workspace)
        assert self.holder() == ledger.id
        assert self.pointed() == (ledger.production, ledger.previous)
        assert result.version.version == ledger.production
        assert (found.production, found.problems) == (result.version, ())

    # What always holds

    @invariant()
    def check(self) -> None:
        for store in STORES:
            _check_ledger(self.world, read_ledger(self.stores[store].storage), store)
        pointed = self.world.aliases().get("production")
        if pointed:
            facts = self.world.facts(self.world.run_of(pointed))
            assert facts.good, "the alias production points at a model that no gate let through"
            assert facts.target == "lt30"

    def teardown(self) -> None:
        """Nobody has to edit a file, whatever was done: a store that may decide goes on, and all can be read."""
        speaking = next(filter(self.speaks, STORES), None)
        if speaking:
            self.resplit(speaking, 0, None)
            self.release(speaking, 1)
        for store in STORES:
            self.read(store)

    def ledger_bytes(self, store: str) -> bytes | None:
        storage = self.stores[store].storage
        return storage.read(layout.LEDGER) if storage.exists(layout.LEDGER) else None

    def moves(self, store: str) -> int:
        return sum(entry.decision in MOVES for entry in read_ledger(self.stores[store].storage).entries)

    def registered(self, model: str) -> list[str]:
        return [line for lines in self.world.registry_state().values() for line in lines if f"'{model}'" in line]

    def pointed(self) -> tuple[str | None, str | None]:
        aliases = self.world.aliases()
        return aliases.get("production"), aliases.get("previous")

    def holder(self) -> str | None:
        found = holder_of(self.stores[STORES[0]].registry)
        return found and found.ledger

    def speaks(self, store: str) -> bool:
        """May the store change the registered model: it holds it, or nobody does."""
        return self.holder() in (None, read_ledger(self.stores[store].storage).id)


def _helps(error: HealthPredictError) -> bool:
    """Is it an answer: a rule's no, somebody else was faster, or what to run or to say instead."""
    told = any(part in str(error) for part in ("`health-predict ", "say with --from", "was never in production"))
    return told or isinstance(error, Declined | ConflictError)


def _check_ledger(world: World, ledger: Ledger, store: str) -> None:
    """What is served passed the gate on unseen data of the same target, and what was rolled back stays out."""
    history: list[tuple[Entry, Facts]] = []
    production: str | None = None
    asked: list[Question] = []
    for entry in ledger.entries:
        asked += entry.asked  # of the store that the model was adopted from
        if entry.decision == "evaluated":
            _check_look(world, asked, entry.question)
            asked.append(entry.question)
        if entry.decision not in MOVES:
            assert entry.production == production, f"{entry.decision} moved production"
            continue
        served = entry.subject.run_id if entry.decision != "rolled_back" else ledger.version(entry.production).run_id
        facts = world.facts(served)
        assert facts.good, "the gate let a bad model through"
        assert facts.target == "lt30"
        if entry.decision == "promoted":
            _check_question(world, ledger, entry, facts, production)
        history.append((entry, world.facts(entry.subject.run_id)))
        if entry.decision != "adopted":
            assert not _barred(world, history, served), f"{store}: {entry.decision} lets a barred model in"
        production = entry.production


def _check_look(world: World, asked: list[Question], question: Question) -> None:
    """Each question is counted once, whatever became of it."""
    before = [one for one in asked if world.tables[one.holdout] & world.tables[question.holdout]]
    assert question.look == len(before) + 1, "the looks at a hold-out are miscounted"


def _check_question(world: World, ledger: Ledger, entry: Entry, facts: Facts, champion: str | None) -> None:
    assert entry.question is not None
    assert entry.question.champion == champion, "the gate compared with another version than was in production"
    first = ledger.first.production
    opponents = [ledger.version(number).run_id for number in (champion, first if champion else None) if number]
    seen = world.ids(facts.seen).union(*(world.ids(world.facts(run_id).seen) for run_id in opponents))
    unseen = world.tables[entry.question.holdout] - seen
    assert entry.numbers["rows"] == len(unseen), "the gate's figures are of encounters that a model had seen"
    before = ledger.entries[: ledger.entries.index(entry)]
    asked = [one.question for one in before if one.decision == "evaluated"]
    asked += [question for one in before for question in one.asked]  # of the store that the model was adopted from
    looks = [one for one in asked if world.tables[one.holdout] & world.tables[entry.question.holdout]]
    assert entry.question in asked, "a question that the ledger had not counted"
    assert entry.question.look <= min(len(looks), PARAMS.gate.max_looks), "a hold-out was asked too often"


def _barred(world: World, history: list[tuple[Entry, Facts]], run_id: str) -> bool:
    """Was the model, or what it is calibrated from, or an equal one, rolled back, and not let in by name since."""
    runs, facts, before = {run_id}, world.facts(run_id), world.facts(run_id).before
    while before:
        runs.add(before)
        before = world.facts(before).before
    out = False
    for entry, about in history:
        if entry.decision == "rolled_back":
            out |= entry.subject.run_id in runs or about.content == facts.content
        if entry.allowed and entry is history[-1][0]:
            out = False
        elif entry.allowed:
            out &= about.content != facts.content
    return out


def release(world: World) -> None:
    """Save a world as `released`: two versions, a third that is evaluated, and the outcomes of a batch."""
    world.reset()
    at = world.store("one")
    for seed in (0, 1, 2):
        run_id = _train(at, seed, False).winner
        _evaluate(at, run_id)
        if seed < 2:
            _promote(at, run_id)
    _mature(at, 1)
    world.save("released")


@pytest.fixture(scope="module")
def released(world: World) -> World:
    release(world)
    return world


KILLED: dict[str, tuple[str, Callable[[Store, Store], Any]]] = {  # in which store; handed that one and the other
    "promote": ("one", lambda at, _: _promote(at, _evaluated(at))),
    "rollback": ("one", lambda at, _: _rollback(at)),
    "adopt": ("two", lambda at, other: adopt(at.workspace, WHO, "it moved", other.storage)),
    "recalibrate": ("one", lambda at, _: _evaluate(at, _recalibrate(at, "2").run_id)),
    "retrain": ("one", lambda at, _: _evaluate(at, _retrain(at, 0, "2").winner)),
}


@pytest.mark.parametrize("command", KILLED)
def test_killed_after_any_write_and_run_again_it_ends_as_if_it_had_not_been_killed(released, command):
    name, step = KILLED[command]

    def ended(write: int) -> tuple[int, Any]:
        """How many writes there were before the command ended or died, and how all ended when it was run again."""
        released.reset("released")
        at, other = released.store(name), released.store("two" if name == "one" else "one")
        with acting(Actor(Death(write, "after"))) as actor, suppress(Killed):
            step(at, other)
        left = released.registry_state()
        status(at.workspace)
        assert released.registry_state() == left, "a look completes what only a decision may"
        step(at, other)
        found = status(at.workspace)
        decisions = [(entry.decision, entry.production, entry.previous) for entry in reversed(found.decisions)]
        return len(actor.writes), (decisions, found.production.version, released.aliases(), found.problems)

    writes, undisturbed = ended(10**6)
    for write in range(1, writes + 1):
        assert ended(write) == (write, undisturbed), f"killed after write {write} of {writes}"


def test_nothing_wrong_reaches_production_whatever_is_done_in_whatever_order(released):
    world = released
    machine = type("Machine", (ControlPlane,), {"world": world})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _train(at: Store, seed: int, force: bool, target: str = "lt30") -> Any:
    return train(at.workspace, training(seed), target, None, SILENT, force)


def _mature(at: Store, number: int) -> Any:
    arrive(at.storage, PARAMS.scenario, number, "none", 1)
    return mature(at.storage, number)


def _retrain(at: Store, seed: int, version: str) -> Any:
    dataset = assemble(at.storage, PARAMS, SPLIT.batches + 1, version).dataset
    return train(at.workspace, training(seed), "lt30", None, SILENT, dataset=dataset)


def _recalibrate(at: Store, version: str) -> Any:
    return recalibrate(at.workspace, PARAMS, SPLIT.batches + 1, version)


def _evaluate(at: Store, run_id: str) -> Any:
    return evaluate(at.workspace, PARAMS, WHO, run_id)


def _evaluated(at: Store) -> str:
    """The run that was evaluated last."""
    return next(e.subject.run_id for e in reversed(read_ledger(at.storage).entries) if e.decision == "evaluated")


def _promote(at: Store, run_id: str, allow: str | None = None) -> Any:
    return promote(at.workspace, PARAMS.gate, WHO, run_id, allow)


def _rollback(at: Store, to: str | None = None, left: str | None = None, allow: str | None = None) -> Any:
    return rollback(at.workspace, WHO, "it looks wrong", to, left, allow)


def _fetch(at: Store) -> Any:
    return fetch_bundle(at.workspace, MODEL_NAME, None, "production")
