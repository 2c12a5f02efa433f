"""What `serve` and `predict` do first: the bundle of the version in production, on this machine's disk."""

from pathlib import Path

from health_predict.errors import TrackingError
from health_predict.io.registry import Registry


def fetch_bundle(registry: Registry, version: str | None, alias: str, cache: Path) -> Path:
    """The folder of a pinned version's bundle, or of the one that the alias points at; downloaded once.

    Raises TrackingError when there is no such version, BundleError when its bundle is not whole.
    """
    found = registry.version(version) if version else registry.at(alias)
    if found is None:
        raise TrackingError(
            f"no version of {registry.model_name} is at the alias {alias} (MLflow at {registry.tracking_uri}); "
            "run `health-predict promote` first"
        )
    return registry.fetch_bundle(found, cache)
