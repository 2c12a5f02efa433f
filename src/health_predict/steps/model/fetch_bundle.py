"""What `serve` and `predict` do first: the bundle of the version in production, on this machine's disk."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from health_predict.errors import TrackingError
from health_predict.store import bundles
from health_predict.store.ledger import Version, read_ledger
from health_predict.store.storage import Storage

if TYPE_CHECKING:  # MLflow takes seconds to import, and is needed only where the ledger does not speak for the model
    from health_predict.adapters.registry import Registry

Connect = Callable[[], "Registry"]


def fetch_bundle(storage: Storage, connect: Connect, model: str, version: str | None, alias: str, cache: Path) -> Path:
    """The folder of a pinned version's bundle, or of the one that the alias points at; copied once, and verified.

    Where the store's ledger speaks for the model, the ledger says which that is, and MLflow is not asked; elsewhere it
    is. Raises TrackingError when there is no such version, BundleError when its bundle is not whole.
    """
    return bundles.fetch_bundle(storage, connect, _chosen(storage, connect, model, version, alias), cache)


def download_bundle(
    storage: Storage, connect: Connect, model: str, version: str | None, alias: str, cache: Path
) -> Path:
    """As `fetch_bundle`, for a service that verifies what it takes up, and says so where it is asked."""
    return bundles.download_bundle(storage, connect, _chosen(storage, connect, model, version, alias), cache)


def _chosen(storage: Storage, connect: Connect, model: str, version: str | None, alias: str) -> Version:
    ledger = read_ledger(storage)
    decided = {"production": ledger.production, "previous": ledger.previous}
    number = version or decided.get(alias)
    if ledger.model == model and number in ledger.numbers:
        return ledger.version(str(number))
    registry = connect()
    found = registry.version(version) if version else registry.at(alias)
    if found is None:
        raise TrackingError(
            f"no version of {model} is at the alias {alias} (MLflow at {registry.tracking_uri}); run "
            "`health-predict promote` first"
        )
    return found
