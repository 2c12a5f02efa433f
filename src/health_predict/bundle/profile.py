"""The profile of what a model was trained on, which travels in its bundle."""

from pathlib import Path

import msgspec

from health_predict.bundle.model import REFERENCE
from health_predict.errors import BundleError
from health_predict.monitoring.reference import Reference


def read_reference(bundle: Path) -> Reference:
    """The profile of what a model was trained on, from its bundle's folder (a verified one)."""
    try:
        return msgspec.json.decode((bundle / REFERENCE).read_bytes(), type=Reference)
    except (OSError, msgspec.MsgspecError) as error:
        raise BundleError(f"{REFERENCE} in {bundle} is not a reference profile that this version reads") from error
