"""Opens the store, the registry, the prediction log and the bundle that the settings name."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from health_predict.adapters.registry import Registry
    from health_predict.settings import Settings
    from health_predict.store.answered import AnswerLog
    from health_predict.store.storage import Storage
    from health_predict.workspace import Workspace


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


def answer_log_of(settings: "Settings") -> "AnswerLog":
    """The prediction log, with the secret key of its pseudonyms; the key is None if it is not set."""
    from health_predict.settings import ServingSettings  # noqa: PLC0415
    from health_predict.store.answered import AnswerLog  # noqa: PLC0415

    key = ServingSettings().prediction_log_key
    return AnswerLog(prediction_log_of(settings), None if key is None else key.get_secret_value().encode())


def _registry_of(settings: "Settings") -> "Registry":
    from health_predict.adapters.registry import Registry  # noqa: PLC0415

    return Registry(settings.resolved_tracking_uri, settings.model_name, settings.artifact_root)


def bundle_folder(settings: "Settings", bundle: str | None) -> Path:
    if bundle:
        from health_predict.store.bundle_copies import copy_bundle  # noqa: PLC0415

        return copy_bundle(bundle, settings.cache, settings.s3_endpoint)
    from health_predict.steps.model.fetch_bundle import fetch_bundle  # noqa: PLC0415

    return fetch_bundle(world_of(settings), settings.model_name, settings.model_version, settings.model_alias)


def workspace_of(settings: "Settings") -> "Workspace":
    """The workspace of a command that writes to the registry, which is created if it does not exist."""
    from health_predict.workspace import Workspace  # noqa: PLC0415

    return Workspace(storage_of(settings), lambda: _registry_of(settings), settings.cache)


def world_of(settings: "Settings", simulation: str | None = None) -> "Workspace":
    """The workspace of a command that only reads: production's or, with a name, that of a simulation."""
    from health_predict.workspace import Workspace  # noqa: PLC0415

    storage, there = storage_of(settings), not settings.has_no_registry
    if simulation is None:
        return Workspace(storage, lambda: _existing_registry(settings), settings.cache, there)
    from health_predict.store.simulations import existing_world  # noqa: PLC0415

    place, found = existing_world(storage, simulation)
    return Workspace(place, lambda: _existing_registry(settings).for_model(found.model), settings.cache, there)


def _existing_registry(settings: "Settings") -> "Registry":
    """The registry for reading. Raises TrackingError if it does not exist; does not create one."""
    if settings.has_no_registry:
        from health_predict.errors import TrackingError  # noqa: PLC0415

        raise TrackingError(
            f"nothing was trained in {settings.storage}, so nothing is in production; `health-predict demo` does it "
            "all, or train, evaluate, and run `health-predict promote` first"
        )
    return _registry_of(settings)
