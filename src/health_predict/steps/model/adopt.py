"""`health-predict adopt`: makes this store's ledger the authority on a registered model, after another or none."""

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
    """The version in production. `from_ledger`: whether this store's ledger named it; otherwise the alias did.

    `skipped`: this store's ledger already was the authority on the model.
    """

    version: Version
    from_ledger: bool
    skipped: bool = False


def adopt(workspace: Workspace, who: str, reason: str, source: Storage | None = None) -> Adopted:
    """Make this store's ledger the authority on the model; the former store learns of it at its next decision.

    The version in production is the one that this store's ledger names or, where the ledger is empty or behind the
    other, the one that the alias points at. Before the decision its bundle is verified, and the training tables that
    this store lacks are copied from `source`. Versions rolled back there stay out here, and looks at hold-outs there
    count. Raises ConflictError where the ledger is of another model, or there is no version to adopt; StorageError
    when a table is in neither store; BundleError when the bundle is incomplete, or of a study.
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
    """Raise ConflictError where MLflow has another model under the version's number."""
    number = version.version
    ours = ledger.version(number).run_id if number in ledger.numbers else version.run_id
    if registry.run_of(number) not in (None, ours):
        raise ConflictError(
            f"version {number} of {registry.model_name} is of another run in MLflow at {registry.tracking_uri} than in "
            "the ledger, so it is not the MLflow that the ledger was written with; use that one, or another MODEL_NAME "
            "in a new storage root"
        )


def _is_behind(ledger: Ledger, holder: Holder | None, other: Ledger) -> bool:
    """Whether the version in production here has since left it, by the other ledger or by a later state of this one."""
    gone_on = holder is not None and holder.ledger == ledger.id and not is_of(holder, ledger)
    return gone_on or other.barred(ledger.subject(str(ledger.production))) is not None


def _unknown(ledger: Ledger, holder: Holder | None, other: Ledger) -> list[str]:
    """A sentence on what is unknown here where the former holder's ledger is unavailable; else empty."""
    if holder is None or is_of(holder, ledger) or is_of(holder, other):
        return []
    return [
        f"The ledger that held the model, in {holder.store}, is not to be had as it was: what was rolled back there, "
        "and what hold-outs were asked, is not known here."
    ]


def _news(ledger: Ledger, other: Ledger) -> list[Question]:
    """Looks at hold-outs in the other ledger, without those that either ledger had copied from the other."""
    had = [one for entry in ledger.entries for one in entry.asked]
    own = [one for one in ledger.questions() if one not in had]
    carried = [one for entry in other.entries for one in entry.asked if one not in own]
    asked = [entry.question for entry in other.entries if entry.decision == "evaluated" and entry.question]
    had += own if other.id == ledger.id else []  # a copy of this ledger, or itself
    return [one for one in (*carried, *asked) if one not in had]


def _is_said(ledger: Ledger, entry: Entry) -> bool:
    """Whether the entry is the ledger's last, so that an interrupted adoption is resumed."""
    last = ledger.entries[-1] if ledger.entries else None
    said = last is not None and (last.decision, last.subject, last.kept_out) == (
        "adopted",
        entry.subject,
        entry.kept_out,
    )
    return said and not entry.asked


def _copy_dependencies(storage: Storage, source: Storage | None, bundle: Bundle) -> None:
    """Copy what the gate needs to judge challengers of the version: the tables it has seen, and its evaluation."""
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
