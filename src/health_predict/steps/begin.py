"""A replay begins, goes on, or starts over."""

from dataclasses import replace

from health_predict.errors import ConflictError, DataError
from health_predict.io import layout
from health_predict.io.ledger import append, entry, read_ledger
from health_predict.io.registry import Registry
from health_predict.io.replay import STATE, Plan, future_batches, read_plan, write_plan
from health_predict.io.storage import Storage
from health_predict.params import Family


def begin(
    storage: Storage,
    registry: Registry,
    scenario: str,
    from_batch: int,
    families: tuple[Family, ...],
    trials: int,
    seed: int,
    restart: bool,
) -> Plan:
    """Record what is replayed, from the version in production on; a replay that was begun so goes on.

    `restart` removes what an earlier replay left and puts the versions into production that it began with. Raises
    ConflictError with nothing in production, and where another replay was begun and it is not to be started over;
    DataError where there is no batch for the scenario to begin with.
    """
    available = len(future_batches(storage))
    if from_batch > available:
        raise DataError(f"the scenario cannot begin with batch {from_batch}: `data split` made {available}")
    begun = read_plan(storage)
    ledger = read_ledger(storage)
    registry.follow(ledger.production, ledger.previous)
    first = begun.first if begun else ledger.production
    if first is None:
        raise ConflictError("nothing is in production to replay with; run `health-predict promote` first")
    decisions = begun.decisions if begun else len(ledger.entries)
    plan = Plan(scenario, from_batch, families, trials, seed, first, decisions)
    if begun and replace(begun, clean=True) != plan and not restart:
        raise ConflictError(
            f"another replay was begun in {storage.root}: scenario {begun.scenario} from batch {begun.from_batch} on, "
            f"{', '.join(begun.families)} with {begun.trials} trials. Say the same, or --restart to drop it"
        )
    if begun and (restart or not begun.clean):
        write_plan(storage, replace(plan, clean=False))  # killed from here on, the next run goes on cleaning
        plan = replace(plan, decisions=_clean(storage, registry, begun.decisions))
    write_plan(storage, plan)
    return plan


def _clean(storage: Storage, registry: Registry, decisions: int) -> int:
    """Production and previous are what they were after so many decisions, and nothing of the replay is left.

    A version of the replay cannot stay to be rolled back to: what it was trained on goes. Returns how many lines the
    ledger has.
    """
    ledger = read_ledger(storage)
    before = ledger.entries[decisions - 1]
    if (ledger.production, ledger.previous) != (before.production, before.previous):
        run_id = registry.version(str(before.production)).run_id
        reasons = ["The replay starts over with the versions that it began with."]
        again = entry(ledger, "rolled_back", run_id, reasons, {}, before.production, before.previous)
        ledger = append(storage, ledger, again)
    registry.follow(ledger.production, ledger.previous)
    for prefix in STATE:
        for key in storage.list(prefix):
            if key != layout.REPLAY:
                storage.delete(key)
    return len(ledger.entries)
