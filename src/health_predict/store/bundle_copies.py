"""Copies a bundle, named by folder or s3:// address, into the local cache. Needs no MLflow."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from health_predict.bundle.model import ENCODER, MANIFEST, MODEL, REFERENCE, load_bundle
from health_predict.errors import BundleError, StorageError
from health_predict.store.storage import open_storage

COPIES = "bundles"  # below the cache, by digest
VERSION = "version.json"
BESIDE = (VERSION, "evaluation.json")  # beside a bundle that the registry knows


class _Registered(msgspec.Struct, frozen=True):
    """The fields of `version.json` that name the version."""

    version: str | None = None
    sha256: str | None = None


def registered_version(folder: Path, sha256: str) -> str | None:
    """Name and number that the registry gave the bundle with this digest, from the `version.json` beside the bundle.

    None where there is no `version.json`.

    Raises BundleError when `version.json` describes another bundle or cannot be read.
    """
    try:
        described = msgspec.json.decode((folder / VERSION).read_bytes(), type=_Registered)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise BundleError(f"{VERSION} in {folder} does not describe a version: {error}") from error
    if described.sha256 not in (None, sha256):
        raise BundleError(f"the bundle in {folder} is not the one that {VERSION} names: another SHA-256")
    return described.version


def copy_bundle(root: str, cache: Path, endpoint: str | None = None) -> Path:
    """The folder of the bundle at `root`: that folder, or the copy in the cache of what an s3:// prefix holds.

    A copy is named by the SHA-256 of its bundle.json. It is verified each time, and made again where it is damaged or
    the files beside the bundle have changed. Raises StorageError when a part cannot be read or the cache not written,
    BundleError when the parts are not a whole bundle; neither leaves anything new. `endpoint` is an S3-compatible
    address other than AWS.
    """
    if not root.startswith("s3://"):
        if not Path(root).is_dir():
            raise BundleError(f"there is no folder {root}, so no bundle")
        return Path(root)
    storage = open_storage(root, endpoint)
    small = {name: storage.read(name) for name in (MANIFEST, *filter(storage.exists, BESIDE))}
    place = cache / COPIES / hashlib.sha256(small[MANIFEST]).hexdigest()
    if _is_whole(place, small):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as scratch:
            copy = Path(scratch, "bundle")
            copy.mkdir()
            for name in (ENCODER, MODEL, REFERENCE):
                (copy / name).write_bytes(storage.read(name))
            for name, data in small.items():
                (copy / name).write_bytes(data)
            load_bundle(copy)
            if place.exists():
                place.rename(Path(scratch, "before"))
            copy.rename(place)
    except OSError as error:
        if not _is_whole(place, small):  # else another process was faster
            raise StorageError(f"the cache {cache} cannot be written: {error.strerror}") from error
    return place


def _is_whole(place: Path, small: Mapping[str, bytes]) -> bool:
    """Whether the folder holds a bundle that verifies, and exactly these small files beside it."""
    try:
        found = {name: (place / name).read_bytes() for name in (MANIFEST, *BESIDE) if (place / name).exists()}
        return found == small and bool(load_bundle(place))
    except (BundleError, OSError):
        return False
