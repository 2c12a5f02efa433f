"""What `serve` and `predict` do first: the bundle of the version in production, on this machine's disk."""

from pathlib import Path

from health_predict.errors import TrackingError
from health_predict.io.registry import Registry, Version


def fetch_bundle(registry: Registry, version: str | None, alias: str, cache: Path) -> Path:
    """The folder of a pinned version's bundle, or of the one that the alias points at; downloaded once.

    Raises TrackingError when there is no such version, BundleError when its bundle is not whole.
    """
    return registry.fetch_bundle(_chosen(registry, version, alias), cache)


def download_bundle(registry: Registry, version: str | None, alias: str, cache: Path) -> Path:
    """As `fetch_bundle`, for a service that verifies what it takes up, and says so where it is asked."""
    return registry.download_bundle(_chosen(registry, version, alias), cache)


def _chosen(registry: Registry, version: str | None, alias: str) -> Version:
    found = registry.version(version) if version else registry.at(alias)
    if found is None:
        raise TrackingError(
            f"no version of {registry.model_name} is at the alias {alias} (MLflow at {registry.tracking_uri}); "
            "run `health-predict promote` first"
        )
    return found
