"""Begins, resumes or restarts a replay in a store of its own, its world."""

import secrets
from dataclasses import dataclass

from health_predict.bundle.model import load_bundle
from health_predict.errors import ConflictError, DataError
from health_predict.store import layout
from health_predict.store.bundles import keep_bundle, unpacked
from health_predict.store.ledger import Ledger, Version, append, read_ledger
from health_predict.store.manifests import completed
from health_predict.store.replay import ReplayPlan, future_batches, read_plan, write_plan
from health_predict.store.simulations import Simulation, read_simulation, world, write_simulation
from health_predict.store.storage import Storage
from health_predict.store.tables import keep_table, kept_table
from health_predict.workspace import Workspace
from health_predict.workspace.production import checked, drafted, settle, subject_of
from health_predict.workspace.turn import turn


@dataclass(frozen=True)
class Begun:
    """The replay's workspace: its own store, and the registry for its own registered model."""

    plan: ReplayPlan
    workspace: Workspace


def begin(workspace: Workspace, who: str, name: str, plan: ReplayPlan, restart: bool) -> Begun:
    """Make a replay's world: a store with the split data and, as first version, the version in production, if any.

    The world is made whole or not at all; a replay already begun with this plan is resumed. `restart` empties the
    world and begins with the version in production now. Nothing outside the world is changed. Raises ConflictError
    where another plan was begun under the name, Declined where another process works in the world, DataError where the
    scenario's first batch does not exist.
    """
    storage = workspace.storage
    available = len(future_batches(storage))
    if plan.from_batch > available:
        raise DataError(f"the scenario cannot begin with batch {plan.from_batch}: `data split` made {available}")
    place = world(storage, name)
    if not restart and (resumed := _resumed(workspace, place, plan)):
        return resumed
    with turn(place, who):
        # Read again: another process may have begun it until the turn was this one's.
        if not restart and (resumed := _resumed(workspace, place, plan)):
            return resumed
        return Begun(plan, _made(workspace, place, who, name, plan))


def _resumed(workspace: Workspace, place: Storage, plan: ReplayPlan) -> Begun | None:
    """The replay that was begun in a world; None where it was not. ConflictError where it has another plan."""
    begun, simulation = read_plan(place), read_simulation(place)
    if begun is None or simulation is None:
        return None
    if begun != plan:
        raise ConflictError(
            f"another replay was begun in {place.root}: scenario {begun.scenario} from batch {begun.from_batch}, "
            f"{', '.join(begun.families)} with {begun.trials} trials, seed {begun.seed}. Say the same, --restart "
            "to drop it, or --name to begin another"
        )
    return Begun(begun, _within(workspace, place, simulation))


def _made(workspace: Workspace, place: Storage, who: str, name: str, plan: ReplayPlan) -> Workspace:
    """The world, made anew."""
    place.delete(layout.REPLAY)  # deleted first, written last: its presence says that the world is whole
    for key in place.list():
        if key != layout.LOOP_TURN:
            place.delete(key)
    simulation = Simulation(name, f"{workspace.registry.model_name}_Simulation_{name}_{secrets.token_hex(3)}")
    write_simulation(place, simulation)
    _copy_split(workspace.storage, place)
    own, ledger = _within(workspace, place, simulation), checked(workspace)
    if ledger.production:
        _bring(workspace, own, ledger, who)
    write_plan(place, plan)
    return own


def _within(workspace: Workspace, place: Storage, simulation: Simulation) -> Workspace:
    return Workspace(place, lambda: workspace.registry.for_model(simulation.model), workspace.cache)


def _copy_split(storage: Storage, place: Storage) -> None:
    split = completed(storage, layout.SPLIT_MANIFEST, "data split")
    for key in [*split["files"], layout.SPLIT_MANIFEST]:
        place.write(key, storage.read(key))


def _bring(workspace: Workspace, own: Workspace, ledger: Ledger, who: str) -> None:
    """Copy the version in production, with its tables and evaluation, as the world's first version."""
    storage, place = workspace.storage, own.storage
    version = ledger.version(str(ledger.production))
    with unpacked(storage, workspace.connect, version) as folder:
        bundle = load_bundle(folder)
        keep_bundle(place, folder)
    for table in bundle.manifest.trained_on:
        keep_table(place, kept_table(storage, table.sha256))
    for run_id in (*bundle.manifest.lineage, version.run_id):
        key = layout.evaluation_report(run_id)
        if storage.exists(key):
            place.write(key, storage.read(key))
    first: Version = own.registry.register(version.run_id, {"family": bundle.manifest.family})
    empty = read_ledger(place)
    reason = f"version {version.version} of {workspace.registry.model_name} is what the replay begins with"
    subject = subject_of(bundle, first.version)
    moves = (first.version, None)
    append(place, empty, drafted(own, empty, "adopted", subject, who, reasons=[reason], moves=moves))
    settle(own)
