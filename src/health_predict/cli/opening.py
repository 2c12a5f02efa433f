"""Opens what the settings name: the store, the registry that it speaks for, and the bundle that is meant."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from health_predict.adapters.registry import Registry
    from health_predict.settings import Settings
    from health_predict.store.storage import Storage


def settings_of_environment() -> "Settings":
    from health_predict.settings import Settings  # noqa: PLC0415

    return Settings()


def storage_of(settings: "Settings") -> "Storage":
    from health_predict.store.manifests import check_layout  # noqa: PLC0415
    from health_predict.store.storage import open_storage  # noqa: PLC0415

    storage = open_storage(settings.storage, settings.s3_endpoint)
    check_layout(storage)
    return storage


def prediction_log_of(settings: "Settings") -> "Storage":
    from health_predict.settings import ServingSettings  # noqa: PLC0415
    from health_predict.store.storage import open_storage  # noqa: PLC0415

    return open_storage(ServingSettings().prediction_log or settings.storage, settings.s3_endpoint)


def prediction_log_key() -> bytes:
    """The secret that the prediction log's pseudonyms are made with. ServiceError where it is not set."""
    from health_predict.errors import ServiceError  # noqa: PLC0415
    from health_predict.settings import ServingSettings  # noqa: PLC0415

    key = ServingSettings().prediction_log_key
    if key is None:
        raise ServiceError("HEALTH_PREDICT_PREDICTION_LOG_KEY is not set: the key that the service writes its log with")
    return key.get_secret_value().encode()


def registry_of(settings: "Settings") -> "Registry":
    from health_predict.adapters.registry import Registry  # noqa: PLC0415

    return Registry(settings.resolved_tracking_uri, settings.model_name, settings.artifact_root)


def bundle_folder(settings: "Settings", bundle: str | None) -> Path:
    if bundle:
        from health_predict.store.bundle_copies import copy_bundle  # noqa: PLC0415

        return copy_bundle(bundle, settings.cache, settings.s3_endpoint)
    from health_predict.steps.model.fetch_bundle import fetch_bundle  # noqa: PLC0415

    return fetch_bundle(*model_of(settings))


def model_of(settings: "Settings") -> "tuple[Storage, Callable[[], Registry], str, str | None, str, Path]":
    """What says which version is meant, and where its bundle is copied to."""
    version, alias, cache = settings.model_version, settings.model_alias, settings.cache
    return storage_of(settings), lambda: existing_registry(settings), settings.model_name, version, alias, cache


def world_of(settings: "Settings", simulation: str | None) -> "tuple[Storage, Registry]":
    """The store and the registry; with the name of a replay, those of its world."""
    if simulation is None:
        return storage_of(settings), existing_registry(settings)
    from health_predict.store.simulations import existing_world  # noqa: PLC0415

    place, found = existing_world(storage_of(settings), simulation)
    return place, existing_registry(settings).for_model(found.model)


def existing_registry(settings: "Settings") -> "Registry":
    """The registry, for what only reads: it makes none. TrackingError where there is none yet."""
    if settings.has_no_registry:
        from health_predict.errors import TrackingError  # noqa: PLC0415

        raise TrackingError(
            f"nothing was trained in {settings.storage}, so nothing is in production; `health-predict demo` does it "
            "all, or train, evaluate, and run `health-predict promote` first"
        )
    return registry_of(settings)
