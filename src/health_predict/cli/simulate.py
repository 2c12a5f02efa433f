"""`health-predict simulate`: replay batches with monitoring, retraining, gate and promotion.

A simulation has its own store (`store/simulations.py`). Production, its ledger and its aliases stay unchanged.

When batch t arrives, the replay checks its schema, lets the outcomes of batch t-1 mature, judges the batch and these
outcomes, and decides whether to retrain or to recalibrate. A new model that passes the gate is promoted and taken up by
the running API. The model then in production scores the batch. Each step stores its result and is skipped if the result
exists, so an interrupted replay continues.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from health_predict.cli.console import Output
from health_predict.cli.opening import workspace_of
from health_predict.cli.run_loop import Loop
from health_predict.cli.service import service
from health_predict.data.schema import CLINICAL
from health_predict.errors import Declined
from health_predict.monitoring.next_action import BatchRecord, next_action
from health_predict.params import Params
from health_predict.settings import Settings
from health_predict.simulation.replay import Replay
from health_predict.steps.loop.arrive import arrive
from health_predict.steps.loop.begin import begin
from health_predict.steps.loop.mature import mature
from health_predict.steps.loop.report_replay import report_replay
from health_predict.store.batches import matured, read_arrival, scored
from health_predict.store.bundles import fetch_bundle
from health_predict.store.ledger import read_ledger
from health_predict.store.loop import read_ended, read_state, write_record
from health_predict.store.replay import ReplayPlan, future_batches
from health_predict.store.storage import Storage

DEFAULT_NAME = "replay"  # of the world where nothing is injected
DEMO_NAME = "demo"  # of the world of the demo, which nobody else may begin


@dataclass(frozen=True)
class Options:
    """Options of one replay.

    `batches`: number of batches, from the first; None: all. `from_batch`: first batch with the scenario. `api`: score
    through an API process. `restart`: delete the earlier simulation of this name. `name`: name of the simulation; None:
    `replay`, or the scenario's name.
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


def run(settings: Settings, params: Params, options: Options, output: Output) -> Replay:
    """Replay the batches that have not been replayed, then report. Raises the errors of the steps."""
    search = params.search
    plan = ReplayPlan(options.scenario, options.from_batch, search.families, search.trials, search.seed)
    begun = begin(workspace_of(settings), settings.actor, options.world, plan, options.restart)
    storage = begun.workspace.storage
    output.say(f"simulation {options.world}: everything happens in {storage.root}, nothing in production")
    loop = Loop(settings, params, output, begun.workspace.for_many_steps())
    available = len(future_batches(storage))
    last = available if options.batches is None else min(options.batches, available)
    _ensure_champion(loop)
    pending = [number for number in range(1, last + 1) if read_ended(storage, number) is None]
    if pending:
        with _served(loop, options) as ready:
            for number in pending:
                _replay(ready, options, number)
        _mature(storage, last)
        _exhaust(loop)
    return report_replay(storage, params.bootstrap)


def _ensure_champion(loop: Loop) -> None:
    """Train and promote a first model if nothing is in production. Raises Declined if the gate declines the model."""
    if read_ledger(loop.workspace.storage).production is not None:
        return
    loop.output.say("nothing is in production yet: the first model is trained on the initial data")
    _exhaust(loop)
    if read_ledger(loop.workspace.storage).production is None:
        raise Declined("the replay cannot begin:", [next_action(read_state(loop.workspace.storage)).reason])


@contextmanager
def _served(loop: Loop, options: Options) -> Iterator[Loop]:
    """The loop with an API process that scores its batches and switches to promoted versions."""
    if not options.api:
        yield loop
        return
    with service(_bundle(loop, str(read_ledger(loop.workspace.storage).production))) as running:

        def take_up(version: str, number: int) -> int:
            arrival = read_arrival(loop.workspace.storage, number).select(field.name for field in CLINICAL)
            return running.take_up(_bundle(loop, version), version, arrival.row(0, named=True))

        yield replace(loop, ask=running.ask, take_up=take_up)


def _bundle(loop: Loop, version: str) -> Path:
    """The folder of a version's bundle."""
    found = read_ledger(loop.workspace.storage).version(version)
    return fetch_bundle(loop.workspace.storage, loop.workspace.connect, found, loop.workspace.cache)


def _replay(loop: Loop, options: Options, number: int) -> None:
    """Let a batch arrive and the outcomes of earlier scored batches mature, then perform the due actions."""
    arrived = arrive(loop.workspace.storage, loop.params.scenario, number, options.scenario, options.from_batch)
    _mature(loop.workspace.storage, number - 1)
    if arrived.refused:
        loop.output.say(f"batch {number}: refused. {arrived.refused}")
        write_record(loop.workspace.storage, BatchRecord(number, refused=True))
        return
    _exhaust(loop)


def _mature(storage: Storage, last: int) -> None:
    """Let the outcomes of all scored batches up to `last` mature."""
    known = set(matured(storage))
    for number in scored(storage, last):
        if number not in known:
            mature(storage, number)


def _exhaust(loop: Loop) -> None:
    for _ in loop.run():
        pass
