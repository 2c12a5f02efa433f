"""What `serve` and `predict` do first: the bundle of the version in production, on this machine's disk."""

from pathlib import Path

from health_predict.errors import TrackingError
from health_predict.store import bundles
from health_predict.store.ledger import Version, read_ledger
from health_predict.workspace import Workspace


def fetch_bundle(workspace: Workspace, model: str, version: str | None, alias: str) -> Path:
    """The folder of a pinned version's bundle, or of the one that the alias points at; copied once, and verified.

    Where the store's ledger speaks for the model, the ledger says which that is, and MLflow is not asked; elsewhere it
    is. Raises TrackingError when there is no such version, BundleError when its bundle is not whole.
    """
    chosen = _chosen(workspace, model, version, alias)
    return bundles.fetch_bundle(workspace.storage, workspace.connect, chosen, workspace.cache)


def download_bundle(workspace: Workspace, model: str, version: str | None, alias: str) -> Path:
    """As `fetch_bundle`, for a service that verifies what it takes up, and says so where it is asked."""
    chosen = _chosen(workspace, model, version, alias)
    return bundles.download_bundle(workspace.storage, workspace.connect, chosen, workspace.cache)


def _chosen(workspace: Workspace, model: str, version: str | None, alias: str) -> Version:
    ledger = read_ledger(workspace.storage)
    decided = {"production": ledger.production, "previous": ledger.previous}
    number = version or decided.get(alias)
    if ledger.model == model and number in ledger.numbers:
        return ledger.version(str(number))
    registry = workspace.registry
    found = registry.version(version) if version else registry.at(alias)
    if found is None:
        raise TrackingError(
            f"no version of {model} is at the alias {alias} (MLflow at {registry.tracking_uri}); run "
            "`health-predict promote` first"
        )
    return found
