"""Copies the bundle of a version, by default the one in production, to this machine's disk."""

from pathlib import Path

from health_predict.errors import TrackingError
from health_predict.store import bundles
from health_predict.store.ledger import Version, read_ledger
from health_predict.workspace import Workspace


def fetch_bundle(workspace: Workspace, model: str, version: str | None, alias: str) -> Path:
    """Folder of the bundle of `version`, or of the version that the alias points at; copied once, and verified.

    Where the store's ledger is the authority on the model, the ledger resolves the alias and MLflow is not asked;
    elsewhere MLflow is. Raises TrackingError for an unknown version, BundleError for an incomplete bundle.
    """
    chosen = _chosen(workspace, model, version, alias)
    return bundles.fetch_bundle(workspace.storage, workspace.connect, chosen, workspace.cache)


def download_bundle(workspace: Workspace, model: str, version: str | None, alias: str) -> Path:
    """As `fetch_bundle`, but leaves the verification to the service that loads the bundle."""
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
