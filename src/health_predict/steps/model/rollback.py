"""`health-predict rollback`: puts an earlier version back into production."""

from dataclasses import dataclass

from health_predict.bundle.model import require_target
from health_predict.errors import ConflictError, Declined
from health_predict.store.bundles import keep_version
from health_predict.store.ledger import Ledger, Version
from health_predict.workspace import Workspace
from health_predict.workspace.production import decide, drafted, settle


@dataclass(frozen=True)
class RolledBack:
    """The version in production now, and the version that left it; `skipped`: it had already left."""

    version: Version
    left: str | None
    previous: str | None
    skipped: bool = False


def rollback(
    workspace: Workspace,
    who: str,
    reason: str,
    to: str | None = None,
    if_production: str | None = None,
    allow_rolled_back: str | None = None,
) -> RolledBack:
    """Put version `to`, or the previous version, back into production; the version that leaves stays out.

    Safe to retry: after a rollback, a second one does nothing unless `to` or `if_production` names a version.
    `if_production` is the version that has to leave; if it has left already, nothing changes. The bundle is verified
    first, and an earlier command that was interrupted is completed. Raises ConflictError when there is no earlier
    version, another version is in production, or somebody else decided meanwhile; Declined for a version that was
    itself rolled back, without `allow_rolled_back`; BundleError when no complete copy of its bundle is found.
    """
    ledger = settle(workspace)
    now = ledger.production
    if now is None:
        raise ConflictError("nothing is in production, so there is nothing to roll back")
    if _is_done(ledger, now, to, if_production):
        return RolledBack(ledger.version(now), None, ledger.previous, skipped=True)
    if if_production not in (None, now):
        raise ConflictError(f"version {now} is in production, not {if_production}; nothing was changed")
    target = to or ledger.before(now)
    if target is None:
        raise ConflictError(f"there is no version before {now} to go back to")
    version, subject = ledger.version(target), ledger.subject(target)
    if subject.content == ledger.subject(now).content:
        raise Declined(
            f"version {target} stays out of production:",
            [f"It scores every encounter as version {now} does, which is what is to leave; say another with --to."],
        )
    barred = ledger.barred(subject)
    if barred and not allow_rolled_back:
        raise Declined(
            f"version {target} stays out of production:",
            [
                f"It was rolled back on {barred.at} by {barred.who} ({'; '.join(barred.reasons)}). Only a person lets "
                "it return, with --allow-rolled-back REASON."
            ],
        )
    bundle = keep_version(workspace.storage, workspace.connect, version)  # verified before the ledger is written
    require_target(bundle.manifest)
    entry = drafted(
        workspace,
        ledger,
        "rolled_back",
        ledger.subject(now),
        who,
        reasons=[reason],
        moves=(target, ledger.before(target)),
        allowed=allow_rolled_back,
    )
    ledger = decide(workspace, ledger, entry)
    return RolledBack(version, now, ledger.previous)


def _is_done(ledger: Ledger, now: str, to: str | None, if_production: str | None) -> bool:
    if to is not None and to == now:
        return True
    move = ledger.newest_move
    rolled_back = move is not None and move.decision == "rolled_back"
    if if_production is None:
        return to is None and rolled_back
    return if_production != now and any(
        entry.decision == "rolled_back" and entry.subject.version == if_production for entry in ledger.entries
    )
