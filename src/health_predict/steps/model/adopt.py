"""`health-predict adopt`: this store's ledger takes a registered model over, from another ledger or from none."""

from dataclasses import dataclass

from health_predict.adapters.registry import PRODUCTION, Registry
from health_predict.bundle.model import Bundle, require_target
from health_predict.errors import ConflictError, StorageError
from health_predict.store import layout
from health_predict.store.bundles import keep_version
from health_predict.store.ledger import Entry, Ledger, Question, Version, append, read_ledger
from health_predict.store.storage import Storage
from health_predict.store.tables import keep_table, kept_table
from health_predict.workspace import Workspace
from health_predict.workspace.production import Holder, drafted, hold, holder_of, is_of, settle, subject_of


@dataclass(frozen=True)
class Adopted:
    """What is in production now. `from_ledger`: is it what this store's ledger says; else what the alias said.

    `skipped`: this store spoke for the model before.
    """

    version: Version
    from_ledger: bool
    skipped: bool = False


def adopt(workspace: Workspace, who: str, reason: str, source: Storage | None = None) -> Adopted:
    """Let this store speak for the registered model from now on; the store that did is told when it next decides.

    What is in production is what this store's ledger says, or, where that never said anything or is behind the other,
    what the alias points at. Its bundle is verified, and the tables that it was trained on are copied from `source`
    where this store lacks them, before anything is decided. What was rolled back there stays out here, and what
    hold-outs were asked counts. Raises ConflictError where the ledger speaks for another model, or there is nothing to
    adopt; StorageError when a table is to be had nowhere; BundleError when the bundle is not whole, or of a study.
    """
    storage, registry = workspace.storage, workspace.registry
    holder = holder_of(registry)
    ledger = read_ledger(storage)
    if holder and ledger.production and is_of(holder, ledger):
        ledger = settle(workspace)
        return Adopted(ledger.version(str(ledger.production)), from_ledger=True, skipped=True)
    if ledger.model not in (None, registry.model_name):
        raise ConflictError(f"the ledger in {storage.root} speaks for {ledger.model}; use another storage root")
    before = read_ledger(source) if source else Ledger([], None)
    own = ledger.production is not None and not _is_behind(ledger, holder, before)
    version = ledger.version(str(ledger.production)) if own else registry.at(PRODUCTION)
    if version is None:
        raise ConflictError(f"no version of {registry.model_name} is in production, so there is nothing to adopt")
    _require_same(ledger, registry, version)
    bundle = keep_version(storage, workspace.connect, version)
    require_target(bundle.manifest)
    _copy_dependencies(storage, source, bundle)
    entry = drafted(
        workspace,
        ledger,
        "adopted",
        subject_of(bundle, version.version),
        who,
        reasons=[reason, *_unknown(ledger, holder, before)],
        moves=(version.version, ledger.previous if own else None),
        kept_out=before.kept_out,
        asked=_news(ledger, before),
    )
    ledger = ledger if _is_said(ledger, entry) else append(storage, ledger, entry)
    hold(workspace, ledger, over=holder)
    ledger = settle(workspace)
    return Adopted(ledger.version(version.version), from_ledger=own)


def _require_same(ledger: Ledger, registry: Registry, version: Version) -> None:
    """ConflictError where MLflow has another model by the number, which an alias would then point at."""
    number = version.version
    ours = ledger.version(number).run_id if number in ledger.numbers else version.run_id
    if registry.run_of(number) not in (None, ours):
        raise ConflictError(
            f"version {number} of {registry.model_name} is of another run in MLflow at {registry.tracking_uri} than in "
            "the ledger, so it is not the MLflow that the ledger was written with; use that one, or another MODEL_NAME "
            "in a new storage root"
        )


def _is_behind(ledger: Ledger, holder: Holder | None, other: Ledger) -> bool:
    """Has what this ledger has in production left it since, as the other ledger says, or as this one did further on."""
    gone_on = holder is not None and holder.ledger == ledger.id and not is_of(holder, ledger)
    return gone_on or other.barred(ledger.subject(str(ledger.production))) is not None


def _unknown(ledger: Ledger, holder: Holder | None, other: Ledger) -> list[str]:
    """What the ledger should say that it does not know."""
    if holder is None or is_of(holder, ledger) or is_of(holder, other):
        return []
    return [
        f"The ledger that held the model, in {holder.store}, is not to be had as it was: what was rolled back there, "
        "and what hold-outs were asked, is not known here."
    ]


def _news(ledger: Ledger, other: Ledger) -> list[Question]:
    """What hold-outs were asked in the other ledger, without what either had from the other before."""
    had = [one for entry in ledger.entries for one in entry.asked]
    own = [one for one in ledger.questions() if one not in had]
    carried = [one for entry in other.entries for one in entry.asked if one not in own]
    asked = [entry.question for entry in other.entries if entry.decision == "evaluated" and entry.question]
    had += own if other.id == ledger.id else []  # a copy of this ledger, or itself
    return [one for one in (*carried, *asked) if one not in had]


def _is_said(ledger: Ledger, entry: Entry) -> bool:
    """Is it what the ledger says last: an adoption that was interrupted goes on from there."""
    last = ledger.entries[-1] if ledger.entries else None
    said = last is not None and (last.decision, last.subject, last.kept_out) == (
        "adopted",
        entry.subject,
        entry.kept_out,
    )
    return said and not entry.asked


def _copy_dependencies(storage: Storage, source: Storage | None, bundle: Bundle) -> None:
    """What a challenger of the version will be judged by: the tables that it has seen, and its own evaluation."""
    asked = read_ledger(source).questions() if source else []
    for digest in [*(table.sha256 for table in bundle.manifest.trained_on), *(one.holdout for one in asked)]:
        if storage.exists(layout.table(digest)):
            continue
        if source is None or not source.exists(layout.table(digest)):
            raise StorageError(
                f"{layout.table(digest)}, which the version was trained or compared on, is neither in {storage.root} "
                f"nor in {source.root if source else 'another store'}; say with --from which storage root has it"
            )
        keep_table(storage, kept_table(source, digest))
    for run_id in (*bundle.manifest.lineage, bundle.manifest.run_id):
        key = layout.evaluation_report(run_id)
        if source is not None and source.exists(key) and not storage.exists(key):
            storage.write(key, source.read(key))
