"""`health-predict simulate`: the future, batch by batch, with monitoring, retraining, gate and promotion.

All of it happens in a world of its own (`store/simulations.py`): production, its ledger and its aliases stay as they
are.

What happens to batch t when it arrives: its schema is checked; the outcomes of batch t-1 have matured; the batch and
those outcomes are judged; it is decided whether to retrain or to recalibrate; a model from that which passes the gate
goes into production and into the running service; then the batch is scored by what is in production. Every step leaves
its result in storage and is skipped where it is there, so a replay that was stopped anywhere goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from health_predict.adapters.registry import Registry
from health_predict.cli.console import Output
from health_predict.cli.service import Service, service
from health_predict.data.schema import CLINICAL
from health_predict.errors import Declined
from health_predict.params import Params
from health_predict.settings import Settings
from health_predict.simulation.replay import Replay
from health_predict.steps.loop.arrive import arrive
from health_predict.steps.loop.assemble import assemble
from health_predict.steps.loop.begin import begin
from health_predict.steps.loop.decide import Decided, decide
from health_predict.steps.loop.judge import judge
from health_predict.steps.loop.mature import mature
from health_predict.steps.loop.monitor import monitor
from health_predict.steps.loop.recalibrate import recalibrate
from health_predict.steps.loop.report_replay import report_replay
from health_predict.steps.loop.score import score
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.promote import promote
from health_predict.steps.model.train import train
from health_predict.store.batches import read_arrival, scored
from health_predict.store.bundles import fetch_bundle
from health_predict.store.datasets import INITIAL, Dataset
from health_predict.store.ledger import read_ledger
from health_predict.store.replay import Ended, Plan, future_batches, read_ended, write_ended
from health_predict.store.storage import Storage, open_storage

DEFAULT_NAME = "replay"  # of the world where nothing is injected
DEMO_NAME = "demo"  # of the world of the demo, which nobody else may begin


@dataclass(frozen=True)
class Options:
    """`batches`: how many, from the first on; None: all. `api`: score through a running service.

    `name` is that of the replay's world; None: `replay`, or after the scenario.
    """

    batches: int | None = None
    scenario: str = "none"
    from_batch: int = 1
    api: bool = True
    restart: bool = False
    name: str | None = None

    @property
    def world(self) -> str:
        if self.name:
            return self.name
        if self.scenario == "none":
            return DEFAULT_NAME
        return self.scenario if self.from_batch == 1 else f"{self.scenario}_from_{self.from_batch}"


@dataclass(frozen=True)
class _World:
    settings: Settings
    params: Params
    options: Options
    output: Output
    storage: Storage
    registry: Registry
    service: Service | None = None

    @property
    def who(self) -> str:
        return self.settings.actor

    @property
    def first(self) -> str:
        """The version that the replay began with: the one never retrained."""
        first = read_ledger(self.storage).first
        return str(first and first.production)

    def bundle(self, version: str) -> Path:
        """The folder of a version's bundle."""
        found = read_ledger(self.storage).version(version)
        return fetch_bundle(self.storage, lambda: self.registry, found, self.settings.cache)


def run(settings: Settings, params: Params, options: Options, output: Output) -> Replay:
    """Replay what has not been replayed yet, then report. Raises what the steps raise."""
    storage = open_storage(settings.storage, settings.s3_endpoint)
    registry = Registry(settings.resolved_tracking_uri, settings.model_name, settings.artifact_root)
    search = params.search
    plan = Plan(options.scenario, options.from_batch, search.families, search.trials, search.seed)
    begun = begin(storage, registry, settings.actor, options.world, plan, options.restart)
    output.say(f"simulation {options.world}: everything happens in {begun.storage.root}, nothing in production")
    world = _World(settings, params, options, output, begun.storage, begun.registry)
    available = len(future_batches(begun.storage))
    last = available if options.batches is None else min(options.batches, available)
    _ensure_champion(world)
    pending = [number for number in range(1, last + 1) if read_ended(world.storage, number) is None]
    if pending:
        with _served(world) as ready:
            for number in pending:
                _replay(ready, number)
        for number in scored(world.storage, last):
            mature(world.storage, number)
        judge(world.storage, world.registry, params)
    return report_replay(world.storage, params.bootstrap)


def _ensure_champion(world: _World) -> None:
    """Train and promote a first model where there was nothing in production to begin with."""
    if read_ledger(world.storage).production is not None:
        return
    world.output.say("nothing is in production yet: the first model is trained on the initial data")
    winner = _train(world, INITIAL)
    evaluate(world.storage, world.registry, world.params, world.who, winner)
    promote(world.storage, world.registry, world.params.gate, world.who, winner)


@contextmanager
def _served(world: _World) -> Iterator[_World]:
    if not world.options.api:
        yield world
        return
    with service(world.bundle(str(read_ledger(world.storage).production))) as running:
        yield replace(world, service=running)


def _replay(world: _World, number: int) -> None:
    storage, registry, options = world.storage, world.registry, world.options
    arrived = arrive(storage, world.params.scenario, number, options.scenario, options.from_batch)
    for earlier in scored(storage, number - 1):
        mature(storage, earlier)
    if arrived.refused:
        world.output.say(f"batch {number}: refused. {arrived.refused}")
        write_ended(storage, Ended(number, refused=True))
        return
    ended = _watch(world, number)
    score(storage, registry, number, world.first, world.service.ask if world.service else None)
    write_ended(storage, ended)


def _watch(world: _World, number: int) -> Ended:
    """Judge the batch and what has matured, and do what is decided; nothing while too few have arrived to judge."""
    storage, registry, params = world.storage, world.registry, world.params
    judge(storage, registry, params)
    try:
        found = monitor(storage, registry, params, number)
    except Declined as waits:
        world.output.say(str(waits))
        return Ended(number)
    world.output.say(f"batch {number}: {found.drift.rows:,} encounters, {found.status}")
    for reason in found.reasons:
        world.output.say(f"  {reason}")
    decided = decide(storage, params, number)
    ended = Ended(number, action=decided.action)
    if decided.action == "none":
        return ended
    world.output.say(f"  {decided.action}: {' '.join(decided.reasons)}")
    run_id, dataset = _remedy(world, decided)
    return _ask_the_gate(world, replace(ended, run_id=run_id), dataset)


def _remedy(world: _World, decided: Decided) -> tuple[str, Dataset]:
    """The run of a model recalibrated, or trained on everything matured, and the data set for the gate."""
    storage, registry, params = world.storage, world.registry, world.params
    # For that version: after a promotion and a stop, another is in production already.
    if decided.action == "recalibrate":
        recalibrated = recalibrate(storage, registry, params, decided.batch, decided.version)
        return recalibrated.run_id, recalibrated.dataset
    assembled = assemble(storage, params, decided.batch, decided.version)
    return _train(world, assembled.dataset), assembled.dataset


def _ask_the_gate(world: _World, ended: Ended, dataset: Dataset) -> Ended:
    """Evaluate the run that a batch led to; promote it and take it up if the gate has no objection."""
    storage, registry, params = world.storage, world.registry, world.params
    try:
        evaluate(storage, registry, params, world.who, ended.run_id, dataset)
        version = promote(storage, registry, params.gate, world.who, ended.run_id).version
    except Declined as declined:
        world.output.say(f"  {declined}")
        return replace(ended, objections=tuple(declined.reasons))
    world.output.say(f"  version {version.version} is in production")
    return replace(ended, promoted=version.version, answered_meanwhile=_take_up(world, version.version, ended.batch))


def _take_up(world: _World, version: str, number: int) -> int | None:
    if world.service is None:
        return None
    encounter = read_arrival(world.storage, number).select(field.name for field in CLINICAL).row(0, named=True)
    return world.service.take_up(world.bundle(version), version, encounter)


def _train(world: _World, dataset: Dataset) -> str:
    with world.output.training(world.params.search) as progress:
        report = train(
            world.storage, world.registry, world.params, "lt30", world.settings.ray_address, progress, dataset=dataset
        )
    return report.winner
