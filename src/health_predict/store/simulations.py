"""Worlds of replays: each is a store of its own below `simulations/`, with a ledger and a registered model of its own.

So nothing that a what-if promotes can reach production, and production can go on while a replay is looked at.
"""

import msgspec

from health_predict.bundle.model import Manifest
from health_predict.errors import BundleError, DataError, StorageError
from health_predict.store import layout
from health_predict.store.storage import Storage
from health_predict.store.tables import json_bytes


class Simulation(msgspec.Struct, frozen=True):
    """What a store says that is a replay's world: its name, and the registered model it promotes into."""

    name: str
    model: str


def simulation_of(storage: Storage) -> str | None:
    """Name of the simulation that the store is the world of; None for the store of production."""
    found = read_simulation(storage)
    return found.name if found else None


def read_simulation(storage: Storage) -> Simulation | None:
    """The store's description of its simulation; None for production's. DataError where it cannot be read."""
    if not storage.exists(layout.SIMULATION):
        return None
    try:
        return msgspec.json.decode(storage.read(layout.SIMULATION), type=Simulation)
    except msgspec.MsgspecError as error:
        raise DataError(f"{storage.path(layout.SIMULATION)} does not describe a replay: {error}") from error


def require_world(manifest: Manifest, simulation: str | None) -> None:
    """BundleError for a model that was trained in another simulation: it learnt from encounters that never happened."""
    if manifest.simulation not in (None, simulation):
        raise BundleError(
            f"the run {manifest.run_id} was trained in the simulation {manifest.simulation}, and can be neither "
            f"compared nor promoted {'in the simulation ' + simulation if simulation else 'outside of it'}"
        )


def write_simulation(world: Storage, simulation: Simulation) -> None:
    world.write(layout.SIMULATION, json_bytes(msgspec.to_builtins(simulation)))


def world(storage: Storage, name: str) -> Storage:
    """The store of a replay's world, begun or not."""
    return storage.below(f"{layout.SIMULATIONS}{name}")


def existing_world(storage: Storage, name: str) -> tuple[Storage, Simulation]:
    """As `world`, of a replay that was begun. StorageError for any other, naming those that there are."""
    found = world(storage, name)
    simulation = read_simulation(found)
    if simulation is None:
        there = ", ".join(simulations(storage)) or "none"
        raise StorageError(f"no replay {name!r} was begun in {storage.root}; there are: {there}")
    return found, simulation


def simulations(storage: Storage) -> list[str]:
    """Names of the replays that were begun."""
    suffix = f"/{layout.SIMULATION}"
    keys = (key.removeprefix(layout.SIMULATIONS) for key in storage.list(layout.SIMULATIONS) if key.endswith(suffix))
    return [key.removesuffix(suffix) for key in keys]
