"""`health-predict status`: what is there, and what to do next."""

from dataclasses import dataclass
from typing import Any

from health_predict.errors import ConflictError, HealthPredictError
from health_predict.io import layout
from health_predict.io.bundles import open_version
from health_predict.io.ledger import Entry, Ledger, Version, read_ledger
from health_predict.io.production import Aliases, aliases, checked
from health_predict.io.registry import Registry
from health_predict.io.simulations import simulation_of, simulations
from health_predict.io.storage import Storage
from health_predict.io.tables import read_json


@dataclass(frozen=True)
class Status:
    """`steps` are the steps with their results so far, in order; None: not done.

    `production` is what the ledger says, `why` what it was let in or put back for. `problems` are sentences about what
    is not as it should be: aliases that lag behind, a model that another store holds, a bundle that is not whole.
    `simulation` names the replay that the store is the world of, `simulations` those that have a world below it.
    """

    storage: str
    tracking_uri: str
    simulation: str | None
    steps: dict[str, Any]
    production: Version | None
    why: tuple[str, ...]
    previous: str | None
    aliases: Aliases
    problems: tuple[str, ...]
    decisions: tuple[Entry, ...]  # newest first
    simulations: tuple[str, ...]
    advice: str


def status(storage: Storage, registry: Registry) -> Status:
    """Look, and change nothing. TrackingError when MLflow does not answer, DataError for an unreadable ledger."""
    steps = {
        name: read_json(storage, key)["result"] if storage.exists(key) else None
        for name, key in (
            ("data fetch", layout.RAW_MANIFEST),
            ("data validate", layout.VALIDATION_MANIFEST),
            ("data split", layout.SPLIT_MANIFEST),
        )
    }
    steps["train"] = read_json(storage, layout.TRAINING) if storage.exists(layout.TRAINING) else None
    ledger, pointed = read_ledger(storage), aliases(registry)
    move = ledger.newest_move
    return Status(
        storage=storage.root,
        tracking_uri=registry.tracking_uri,
        simulation=simulation_of(storage),
        steps=steps,
        production=ledger.version(ledger.production) if ledger.production else None,
        why=tuple(move.reasons) if move else (),
        previous=ledger.previous,
        aliases=pointed,
        problems=tuple(_problems(storage, registry, ledger, pointed)),
        decisions=tuple(reversed(ledger.entries)),
        simulations=tuple(simulations(storage)),
        advice=_advice(steps, ledger),
    )


def _problems(storage: Storage, registry: Registry, ledger: Ledger, pointed: Aliases) -> list[str]:
    problems = []
    try:
        checked(storage, registry)
    except ConflictError as error:
        return [str(error)]
    if not ledger.moved and pointed.production:
        problems.append(
            f"MLflow has version {pointed.production} of {registry.model_name} at the alias production, of which this "
            "store's ledger knows nothing; `health-predict adopt` takes it over"
        )
    if ledger.moved and pointed != Aliases(ledger.production, ledger.previous):
        problems.append(
            f"MLflow's aliases say production {pointed.production} and previous {pointed.previous}, the ledger says "
            f"{ledger.production} and {ledger.previous}: a decision was interrupted. `health-predict promote "
            f"{ledger.subject(str(ledger.production)).run_id}` completes it"
        )
    for number in filter(None, (ledger.production, ledger.previous)):
        try:
            open_version(storage, lambda: registry, ledger.version(number))
        except HealthPredictError as error:
            problems.append(f"version {number} cannot be served: {error}")
    return problems


def _advice(steps: dict[str, Any], ledger: Ledger) -> str:
    pending = next((name for name, result in steps.items() if result is None), None)
    if pending is None:
        pending = "serve" if ledger.production else "evaluate` and then `health-predict promote"
    return f"run `health-predict {pending}`"
