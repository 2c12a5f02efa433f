"""`health-predict status`: results so far, the version in production, and the next step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from health_predict.adapters.registry import Registry
from health_predict.errors import ConflictError, HealthPredictError
from health_predict.monitoring.next_action import next_action
from health_predict.store import layout
from health_predict.store.bundles import is_kept, open_version
from health_predict.store.ledger import Entry, Ledger, Version, read_ledger
from health_predict.store.loop import read_state
from health_predict.store.simulations import simulation_of, simulations
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json
from health_predict.workspace import Workspace
from health_predict.workspace.production import Aliases, aliases, checked


@dataclass(frozen=True)
class Status:
    """`steps`: result of each step, in order; None: not done.

    `production` is the version that the ledger names, `why` the reason of its promotion or rollback. `problems` are
    sentences about faults: aliases that lag behind the ledger, a model held by another store, an incomplete bundle.
    `simulation` names the replay whose world this store is, `simulations` the replays with a world below it.
    """

    storage: str
    tracking_uri: str | None
    simulation: str | None
    steps: dict[str, Any]
    production: Version | None
    why: tuple[str, ...]
    previous: str | None
    problems: tuple[str, ...]
    decisions: tuple[Entry, ...]  # newest first
    simulations: tuple[str, ...]
    advice: str


def status(workspace: Workspace) -> Status:
    """Status of a workspace, also where there is no registry yet; changes nothing.

    Raises TrackingError when MLflow does not answer, DataError for an unreadable ledger.
    """
    storage = workspace.storage
    steps = {
        name: read_json(storage, key)["result"] if storage.exists(key) else None
        for name, key in (
            ("data fetch", layout.RAW_MANIFEST),
            ("data validate", layout.VALIDATION_MANIFEST),
            ("data split", layout.SPLIT_MANIFEST),
        )
    }
    steps["train"] = read_json(storage, layout.TRAINING) if storage.exists(layout.TRAINING) else None
    ledger = read_ledger(storage)
    move = ledger.newest_move
    return Status(
        storage=storage.root,
        tracking_uri=workspace.registry.tracking_uri if workspace.has_registry else None,
        simulation=simulation_of(storage),
        steps=steps,
        production=ledger.version(ledger.production) if ledger.production else None,
        why=tuple(move.reasons) if move else (),
        previous=ledger.previous,
        problems=tuple(_problems(workspace, ledger)),
        decisions=tuple(reversed(ledger.entries)),
        simulations=tuple(simulations(storage)),
        advice=_advice(storage, steps, ledger),
    )


def _problems(workspace: Workspace, ledger: Ledger) -> Iterator[str]:
    if not workspace.has_registry:
        if ledger.moved:
            yield f"the ledger speaks for {ledger.model} of an MLflow that is not there: {ledger.entries[-1].registry}"
        return
    try:
        checked(workspace)
    except ConflictError as error:
        yield str(error)
        return
    yield from _about_aliases(workspace.registry, ledger)
    for number in filter(None, (ledger.production, ledger.previous)):
        yield from _about_bundle(workspace, ledger.version(number))


def _about_aliases(registry: Registry, ledger: Ledger) -> Iterator[str]:
    if not ledger.moved:
        return
    pointed = aliases(registry)
    gone = [one for one in (ledger.production, ledger.previous) if one and not registry.has_version(one)]
    if gone:
        yield (
            f"MLflow no longer has version {' and '.join(gone)} of {registry.model_name}: the ledger's is served "
            "from bundles/ as before, but no alias can point there"
        )
    elif pointed != Aliases(ledger.production, ledger.previous):
        yield (
            f"MLflow's aliases say production {pointed.production} and previous {pointed.previous}, the ledger says "
            f"{ledger.production} and {ledger.previous}: a decision was interrupted. `health-predict promote "
            f"{ledger.subject(str(ledger.production)).run_id}` completes it"
        )


def _about_bundle(workspace: Workspace, version: Version) -> Iterator[str]:
    storage = workspace.storage
    if is_kept(storage, version):
        return
    try:
        open_version(storage, workspace.connect, version)
    except HealthPredictError as error:
        yield f"version {version.version} cannot be served: {error}"
    else:
        yield (
            f"the bundle of version {version.version} is not whole in {storage.root}, only in MLflow; `health-predict "
            f"promote {version.run_id}`, or a rollback to it, keeps it again"
        )


def _advice(storage: Storage, steps: dict[str, Any], ledger: Ledger) -> str:
    if simulation := simulation_of(storage):
        return (
            f"`health-predict simulate` goes on with {simulation}; {storage.path(layout.REPLAY_PAGE)} shows it so far"
        )
    pending = next((name for name, result in steps.items() if result is None), None)
    if ledger.production and (due := next_action(read_state(storage))).action:
        return f"run `health-predict loop run`: {due.reason}"
    if pending is None:
        pending = "serve" if ledger.production else "evaluate` and then `health-predict promote"
    return f"run `health-predict {pending}`"
