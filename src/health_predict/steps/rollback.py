"""`health-predict rollback`: the previous version into production again."""

from health_predict.errors import ConflictError
from health_predict.io.ledger import append, entry, read_ledger
from health_predict.io.registry import Registry, Version
from health_predict.io.storage import Storage


def rollback(storage: Storage, registry: Registry, reason: str) -> Version:
    """Swap production and previous; a second rollback undoes the first.

    Raises ConflictError when there is nothing to go back to, or when somebody else decided meanwhile.
    """
    ledger = read_ledger(storage)
    if ledger.previous is None:
        raise ConflictError(f"there is no version before {ledger.production or 'the first promotion'} to go back to")
    version = registry.version(ledger.previous)
    decision = entry(
        ledger, "rolled_back", version.run_id, [reason], {}, production=ledger.previous, previous=ledger.production
    )
    ledger = append(storage, ledger, decision)
    registry.follow(ledger.production, ledger.previous)
    return version
