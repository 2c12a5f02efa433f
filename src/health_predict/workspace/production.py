"""The version in production: the ledger decides, and the registered model's aliases follow.

A ledger holds a registered model: a tag of the model names the ledger and how far it was. So a second store that would
speak for the same model, a copy of a store, or a store restored from a backup is found out before it moves anything.

`checked` reads; `settle` and `decide` are the only ways to a moved alias. They go on until the ledger has not changed
meanwhile: of several at once, the last one leaves the aliases as the ledger says.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from health_predict.adapters.registry import PREVIOUS, PRODUCTION, Registry
from health_predict.bundle.model import Bundle
from health_predict.errors import ConflictError
from health_predict.store.ledger import Decision, Entry, Ledger, Subject, append, entry, read_ledger
from health_predict.store.simulations import simulation_of
from health_predict.store.storage import Storage
from health_predict.workspace import Workspace


class Holder(msgspec.Struct, frozen=True):
    """The ledger that speaks for a registered model, as it was when it last decided. `store` is for people.

    `generation` counts from 1 how often the model was taken over.
    """

    generation: int
    ledger: str
    store: str
    entries: int
    sha256: str  # of these entries


@dataclass(frozen=True)
class Aliases:
    """Versions that the registered model's aliases point at; None where there is none."""

    production: str | None
    previous: str | None


def in_production(storage: Storage) -> str:
    """The version in production, from the ledger. ConflictError where there is none."""
    production = read_ledger(storage).production
    if production is None:
        raise ConflictError("nothing is in production; run `health-predict promote` first")
    return production


def first_version(storage: Storage) -> str:
    """The first version that was ever in production. ConflictError where there was none."""
    first = read_ledger(storage).first
    if first is None:
        raise ConflictError("nothing was ever in production; run `health-predict promote` first")
    return str(first.production)


def checked(workspace: Workspace) -> Ledger:
    """The ledger, if it may speak for the registered model. Reads only.

    Raises ConflictError where the ledger speaks for another model, or another ledger (a copy of this one that has gone
    on, too) holds this model, or nobody does and something is in production all the same.
    """
    storage, registry = workspace.storage, workspace.registry
    holder = holder_of(registry)  # before the ledger: what goes on meanwhile, goes on from what is read here
    ledger = read_ledger(storage)
    if ledger.model not in (None, registry.model_name):
        raise ConflictError(
            f"the ledger in {storage.root} speaks for the registered model {ledger.model}, not for "
            f"{registry.model_name}: set MODEL_NAME={ledger.model}, or use another storage root"
        )
    if holder is None and ledger.moved and not _has_production(registry, ledger):
        raise ConflictError(
            f"the ledger in {storage.root} has version {ledger.production} of {ledger.model} in production, which "
            f"MLflow at {registry.tracking_uri} does not have; the ledger was written with MLflow at "
            f"{ledger.entries[-1].registry}. Is MLFLOW_TRACKING_URI right? If that MLflow is lost, begin with another "
            "MODEL_NAME in a new storage root; `health-predict serve --bundle` serves what is in bundles/ meanwhile"
        )
    if holder is not None and not is_of(holder, ledger):
        raise ConflictError(_held(holder, ledger, storage, registry))
    served = registry.at(PRODUCTION) if holder is None and not ledger.moved else None
    if served is not None and holder_of(registry) is None:  # again: the first promotion holds before it moves an alias
        raise ConflictError(
            f"MLflow has version {served.version} of {registry.model_name} at the alias production, of which the "
            f"ledger in {storage.root} knows nothing, so nothing may take its place unless compared with it. Use "
            'another MODEL_NAME, or let this store take the model over: health-predict adopt --reason "..."'
        )
    return ledger


def _has_production(registry: Registry, ledger: Ledger) -> bool:
    """Whether MLflow has the version in production. A version with its number but of another run is another model."""
    number = str(ledger.production)
    return registry.run_of(number) == ledger.subject(number).run_id


def settle(workspace: Workspace) -> Ledger:
    """As `checked`; then move the aliases to where the ledger says, which completes a decision that was interrupted."""
    ledger = checked(workspace)
    while ledger.moved:
        hold(workspace, ledger)
        workspace.registry.follow(ledger.production, ledger.previous)
        again = read_ledger(workspace.storage)
        if again.state == ledger.state:
            return again
        ledger = again
    return ledger


def decide(workspace: Workspace, ledger: Ledger, entry: Entry) -> Ledger:
    """Append a decision to the ledger as it was read, then settle. ConflictError when somebody decided meanwhile."""
    append(workspace.storage, ledger, entry)
    return settle(workspace)


def hold(workspace: Workspace, ledger: Ledger, over: Holder | None = None) -> None:
    """Record in the registered model's tag that this ledger speaks for it; the model is made if there is none.

    Raises ConflictError where another ledger holds it by now, unless that is the one that was to be taken `over`.
    """
    storage, registry = workspace.storage, workspace.registry
    found = holder_of(registry)
    generation = found.generation if found else 1
    if found is not None and not is_of(found, ledger):
        newer = read_ledger(storage)
        if is_of(found, newer):
            return  # this ledger has gone on meanwhile, and says so itself
        if found != over:
            raise ConflictError(_held(found, newer, storage, registry))
        generation += 1
    entries = len(ledger.entries)
    mine = Holder(generation, str(ledger.id), storage.root, entries, ledger.digest(entries))
    if found == mine:
        return
    goes_on = found is not None and found.ledger == mine.ledger
    registry.hold(msgspec.json.encode(mine).decode(), generation, over=goes_on)
    found = holder_of(registry)
    if found is None or found.ledger != mine.ledger:
        raise ConflictError(f"another store took hold of {registry.model_name} at the same time; run the command again")


def holder_of(registry: Registry) -> Holder | None:
    """The ledger that speaks for the registered model, or None. ConflictError where the tag cannot be read."""
    found = registry.holders()
    try:
        return msgspec.json.decode(found[max(found)], type=Holder) if found else None
    except msgspec.MsgspecError as error:
        raise ConflictError(
            f"the tag of {registry.model_name} that says which ledger holds it was not written by this version; "
            "delete the tag in MLflow, and run `health-predict adopt`"
        ) from error


def aliases(registry: Registry) -> Aliases:
    """The versions that the aliases point at, whether the ledger agrees or not."""
    production, previous = registry.at(PRODUCTION), registry.at(PREVIOUS)
    return Aliases(production.version if production else None, previous.version if previous else None)


def is_of(holder: Holder, ledger: Ledger) -> bool:
    """Whether the ledger still begins with the decisions that it had when it took hold of the model."""
    known = len(ledger.entries) >= holder.entries
    return holder.ledger == ledger.id and known and ledger.digest(holder.entries) == holder.sha256


def _held(holder: Holder, ledger: Ledger, storage: Storage, registry: Registry) -> str:
    model = f"the registered model {registry.model_name} of MLflow at {registry.tracking_uri}"
    if holder.ledger == ledger.id:
        why = (
            f"{model} is held by a ledger that went on from here: it had {holder.entries} decisions in {holder.store}, "
            f"and in {storage.root} it has {len(ledger.entries)}. Is this store a copy, or restored from a backup?"
        )
    else:
        why = f"{model} is held by the ledger in {holder.store}, not by the one in {storage.root}."
    return (
        f"{why} Nothing was changed. Use that storage root, or another MODEL_NAME; or let this store take the "
        'model over: health-predict adopt --reason "..."'
    )


def subject_of(bundle: Bundle, version: str | None = None) -> Subject:
    """The ledger's description of a bundle that a decision is about."""
    found = bundle.manifest
    return Subject(found.run_id, found.target, bundle.sha256, found.content, found.lineage, version)


def drafted(workspace: Workspace, ledger: Ledger, decision: Decision, subject: Subject, who: str, **rest: Any) -> Entry:
    """An entry about a registered model by `who`, to be decided; `rest` as in `ledger.entry`."""
    return entry(
        ledger,
        decision,
        subject,
        who=who,
        registry=workspace.registry.tracking_uri,
        model=workspace.registry.model_name,
        simulation=simulation_of(workspace.storage),
        **rest,
    )
