"""Commands that decide at the same time: whatever the interleaving, it is as if one had come after the other.

Histories of two or three commands on one store and one MLflow are compared with a model of the ledger that knows no
concurrency; what is left behind, with the ledger.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from failpoints import Death
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from linearizability import NEVER, Operation, linearization
from schedule import Command, interleave
from sequential_ledger import Answer, SequentialLedger
from world import PARAMS, SILENT, Store, World, training

from health_predict.errors import ConflictError, Declined
from health_predict.steps.model.adopt import adopt
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.promote import promote
from health_predict.steps.model.rollback import rollback
from health_predict.steps.model.status import status
from health_predict.steps.model.train import train
from health_predict.store.ledger import read_ledger
from health_predict.workspace.production import holder_of, settle
from stores import workspace_of

pytestmark = pytest.mark.slow

CONCURRENT = settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
ASKED = {
    "promote C": ("promote", "C", "B"),
    "promote D": ("promote", "D", "B"),
    "rollback": ("rollback", None, None),
    "rollback from B": ("rollback", None, "B"),
    "rollback to A": ("rollback", "A", None),
    "status": ("status",),
}


@dataclass(frozen=True)
class Prepared:
    """A and B were promoted, C and D are evaluated against B."""

    world: World
    runs: dict[str, str]  # name -> run id

    def named(self, run_id: str | None) -> str | None:
        return next((name for name, known in self.runs.items() if known == run_id), None)


@pytest.fixture(scope="module")
def prepared(world: World) -> Prepared:
    store, runs = world.store("one"), {}
    world.reset()
    for seed, name in zip((0, 1, 2, 4), "ABCD", strict=True):  # none is the bad one
        runs[name] = train(store.workspace, training(seed), "lt30", None, SILENT).winner
        evaluate(store.workspace, PARAMS, "tester", runs[name])
        if name in "AB":
            promote(store.workspace, PARAMS.gate, "tester", runs[name])
    world.save("prepared")
    return Prepared(world, runs)


@pytest.fixture(scope="module")
def wanted(world: World) -> dict[tuple[str, str], str]:
    """Run ids to promote, by what was saved and store. `evaluated`: two stores whose models could be the first;
    `held`: the first store was faster, and has another one that could be next."""

    def evaluated(at: Store, seed: int) -> str:
        run_id = train(at.workspace, training(seed), "lt30", None, SILENT).winner
        evaluate(at.workspace, PARAMS, "tester", run_id)
        return run_id

    world.reset()
    one, two = world.store("one"), world.store("two")
    first, other = evaluated(one, 0), evaluated(two, 1)
    world.save("evaluated")
    promote(one.workspace, PARAMS.gate, "tester", first)
    following = evaluated(one, 2)
    world.save("held")
    return {("evaluated", "one"): first, ("evaluated", "two"): other, ("held", "one"): following}


def pointed(world: World) -> tuple[str | None, str | None]:
    """What the aliases say: production and previous."""
    aliases = world.aliases()
    return aliases.get("production"), aliases.get("previous")


def decision(prepared: Prepared, store: Store, asked: tuple[Any, ...]) -> Answer:
    """Run what was asked, and say what came of it in the words of the sequential ledger."""
    storage, registry = store.storage, store.registry
    try:
        match asked:
            case ("promote", name, _):
                done = promote(workspace_of(storage, registry), PARAMS.gate, "tester", prepared.runs[name])
            case ("rollback", to, left):
                numbers = {"A": "1", "B": "2", None: None}
                done = rollback(workspace_of(storage, registry), "tester", "it looks wrong", numbers[to], numbers[left])
            case _:
                return "seen", prepared.named(status(workspace_of(storage, registry)).production.run_id)
    except ConflictError as error:
        assert "copy" not in str(error), "a store is taken for a copy of itself"
        return "conflict", None
    except Declined:
        return "declined", None
    return "skipped" if done.skipped else "done", prepared.named(done.version.run_id)


def sequential(ledger: SequentialLedger, operation: Operation) -> list[SequentialLedger]:
    """The ledger after an operation that was answered so. One that was killed may have been answered anything."""
    after, answer = ledger.after(operation.asked)
    if operation.returned == NEVER:
        return [after]
    if operation.result == ("conflict", None) and operation.asked[0] != "status":
        return [ledger]  # it may have lost against another, which is looked for apart
    return [after] if answer == operation.result else []


# The first command is stopped after some steps, the second goes on for some or to its end, then the first goes on; or
# any order at all.
preempted = st.tuples(st.integers(0, 24), st.just(40) | st.integers(0, 16)).map(
    lambda at: [0] * at[0] + [1] * at[1] + [2] * 40 + [1] * 40
)
turns = preempted | st.lists(st.integers(0, 2), max_size=40)
questions = st.lists(st.sampled_from(list(ASKED)), min_size=2, max_size=3)


@given(questions, turns)
@CONCURRENT
def test_decisions_at_the_same_time_are_as_if_made_one_after_the_other(prepared, asked, turns):
    history = _history(prepared, [(one, None) for one in asked], turns)
    for operation in history:
        if operation.result == ("conflict", None):
            others = [one for one in history if one is not operation and one.called < operation.returned]
            assert any(one.result[0] == "done" for one in others), "told of a conflict with nobody"
    store = prepared.world.store("one")
    ledger = read_ledger(store.storage)
    assert pointed(prepared.world) == (ledger.production, ledger.previous)


@given(questions, turns, st.builds(Death, st.integers(1, 8), st.sampled_from(["before", "after"])))
@CONCURRENT
def test_a_command_killed_among_others_is_one_that_happened_or_did_not(prepared, asked, turns, death):
    commands = [(asked[0], death), *((one, None) for one in asked[1:])]
    _history(prepared, commands, turns)
    store = prepared.world.store("one")
    ledger = settle(store.workspace)
    assert pointed(prepared.world) == (ledger.production, ledger.previous)


def _history(prepared: Prepared, asked: list[tuple[str, Death | None]], turns: list[int]) -> list[Operation]:
    """Run the commands interleaved; the history, ended by a look at the ledger, is linearizable."""
    prepared.world.reset("prepared")
    store = prepared.world.store("one")
    commands = {
        f"{position}: {name}": Command(ASKED[name], lambda one=name: decision(prepared, store, ASKED[one]), death)
        for position, (name, death) in enumerate(asked)
    }
    history = interleave(commands, turns)
    ended = read_ledger(store.storage)
    production = prepared.named(ended.version(ended.production).run_id)
    look = Operation("last", ("status",), ("seen", production), 10**6, 10**6 + 1)
    for operation in history:
        note(str(operation))
    note(str([(entry.decision, entry.production, entry.previous) for entry in ended.entries]))
    assert linearization([*history, look], SequentialLedger("B", "A", ("A", "B")), sequential), "not linearizable"
    return history


@pytest.mark.parametrize(("saved", "step"), [("evaluated", "promote"), ("held", "adopt")])
@given(turns)
@CONCURRENT
def test_of_two_stores_that_want_one_model_one_holds_it_and_the_other_is_told(world, wanted, saved, step, turns):
    """The first promotions of two stores; or one store takes over while the other decides."""
    world.reset(saved)
    one, two = world.store("one"), world.store("two")

    def ask(at: Store, step: str) -> Any:
        try:
            if step == "adopt":
                return adopt(at.workspace, "tester", "it moved").version.version
            return promote(at.workspace, PARAMS.gate, "tester", wanted[saved, at.name]).version.version
        except ConflictError:
            return None

    commands = {"one": Command("promote", lambda: ask(one, "promote")), "two": Command(step, lambda: ask(two, step))}
    history = interleave(commands, turns)
    note("\n".join(map(str, history)))
    holder = holder_of(one.registry).ledger
    mine, other = (one, two) if read_ledger(one.storage).id == holder else (two, one)
    assert read_ledger(mine.storage).id == holder
    succeeded = [operation.actor for operation in history if operation.result]
    assert succeeded and succeeded[-1] == mine.name, "a command succeeded for a store that does not hold the model"
    if step == "promote":
        assert succeeded == [mine.name], "two stores promoted into one model"
    ledger = settle(mine.workspace)
    assert pointed(world) == (ledger.production, ledger.previous)
    before = world.registry_state()
    with pytest.raises(ConflictError):
        settle(other.workspace)
    assert world.registry_state() == before
