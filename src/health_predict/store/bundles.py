"""The bundle of a version, wherever it is kept: in the store by its content, else with its run in MLflow.

`bundles/<sha256>/` in the store holds every bundle that was ever in production, once. Copies on a machine's disk, for a
service or a command, lie in its cache, each beside `version.json` with the version's name, number, run and digests,
and `evaluation.json` where the run was evaluated.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from health_predict.bundle.model import (
    ENCODER,
    MANIFEST,
    MODEL,
    REFERENCE,
    Bundle,
    Manifest,
    load_bundle,
    parse_manifest,
)
from health_predict.errors import BundleError, StorageError
from health_predict.store import layout
from health_predict.store.ledger import Version
from health_predict.store.storage import Storage
from health_predict.store.tables import json_bytes


class Runs(Protocol):
    """The part of the registry that holds the artifacts of runs."""

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Copy the artifacts of a run below `path` into `folder`; returns where they are."""

    def holds(self, run_id: str, path: str) -> bool:
        """Whether the run has an artifact below `path`."""


Connect = Callable[[], Runs]  # MLflow takes seconds to import, and a bundle in the store needs none
VERSION, EVALUATION = "version.json", "evaluation.json"
PARTS = (ENCODER, MODEL, REFERENCE, MANIFEST)  # the manifest last: where it is, the others are


def keep_bundle(storage: Storage, folder: Path) -> None:
    """Write a verified bundle to `bundles/<sha256>/`; a damaged copy there is replaced."""
    place = layout.bundle(load_bundle(folder).sha256)
    for name in PARTS:
        key, content = f"{place}/{name}", (folder / name).read_bytes()
        if not storage.exists(key) or storage.read(key) != content:
            storage.write(key, content)


def has_kept(storage: Storage, digest: str) -> bool:
    """Whether the store keeps the bundle: its manifest, which is written last, is there."""
    return storage.exists(f"{layout.bundle(digest)}/{MANIFEST}")


def kept_manifest(storage: Storage, digest: str) -> Manifest:
    """The manifest of a bundle in the store.

    StorageError when it is not kept, BundleError when it was altered or has another format.
    """
    key = f"{layout.bundle(digest)}/{MANIFEST}"
    if not has_kept(storage, digest):
        raise StorageError(
            f"{key} is not in {storage.root}, so nobody can know what the version has seen; `health-predict promote` "
            "of its run keeps it again, as long as MLflow has it"
        )
    document = storage.read(key)
    if hashlib.sha256(document).hexdigest() != digest:
        raise BundleError(f"{storage.path(key)} was altered: its content is not what its folder's name says")
    return parse_manifest(document, storage.path(layout.bundle(digest)))


def keep_version(storage: Storage, connect: Connect, version: Version) -> Bundle:
    """The bundle of a version, from the store or else from its run; afterwards the store keeps a whole copy."""
    with unpacked(storage, connect, version) as folder:
        keep_bundle(storage, folder)
        return load_bundle(folder)


def is_kept(storage: Storage, version: Version) -> bool:
    """Whether the store keeps a whole copy of the version's bundle."""
    with tempfile.TemporaryDirectory() as scratch:
        return _copied(storage, str(version.sha256), Path(scratch) / "bundle")


def describe_kept(storage: Storage, version: Version) -> None:
    """Write `version.json` and `evaluation.json` beside a kept bundle, for a service that loads it from there."""
    place, described = layout.bundle(str(version.sha256)), asdict(version)
    evaluation = layout.evaluation_report(version.run_id)
    if storage.exists(evaluation):
        content = storage.read(evaluation)
        described["evaluation_sha256"] = hashlib.sha256(content).hexdigest()
        storage.write(f"{place}/{EVALUATION}", content)
    storage.write(f"{place}/{VERSION}", json_bytes(described))


@contextmanager
def unpacked(storage: Storage, connect: Connect, version: Version) -> Iterator[Path]:
    """A temporary folder with the version's bundle, verified; removed after the block.

    Raises BundleError when neither store nor registry has a whole copy, and what `Registry.download` raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = _obtained(storage, connect, version, Path(folder))
        _verified(place, version)
        yield place


def open_version(storage: Storage, connect: Connect, version: Version) -> Bundle:
    """The bundle of a version, loaded. Raises what `unpacked` raises."""
    with unpacked(storage, connect, version) as folder:
        return load_bundle(folder)


def fetch_bundle(storage: Storage, connect: Connect, version: Version, cache: Path) -> Path:
    """As `download_bundle`, then verified. BundleError when the copy is not the bundle that was registered."""
    place = download_bundle(storage, connect, version, cache)
    _verified(place, version)
    return place


def download_bundle(storage: Storage, connect: Connect, version: Version, cache: Path) -> Path:
    """The folder of a version's bundle in the cache; a copy that is missing or damaged is made anew.

    Raises TrackingError or StorageError when no copy can be made, and leaves the cache as it was; StorageError when the
    cache cannot be written.
    """
    place = cache / version.name / version.run_id
    if _is_whole(place, version):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as scratch:
            copy = _obtained(storage, connect, version, Path(scratch))
            _describe(storage, version, copy)
            if place.exists():
                place.rename(Path(scratch) / "before")
            copy.rename(place)
    except OSError as error:
        if not _is_whole(place, version):  # else another process was faster
            raise StorageError(f"the cache {cache} cannot be written: {error.strerror}") from error
    return place


def _obtained(storage: Storage, connect: Connect, version: Version, folder: Path) -> Path:
    """A copy of the bundle from the store, or from the version's run where the store has no whole one."""
    if version.sha256 and _copied(storage, version.sha256, folder / "kept"):
        return folder / "kept"
    registry, downloads = connect(), folder / "downloads"
    downloads.mkdir()
    copy = registry.download(version.run_id, "bundle", downloads)
    if registry.holds(version.run_id, Path(EVALUATION).stem):
        evaluation = registry.download(version.run_id, Path(EVALUATION).stem, downloads)
        (evaluation / EVALUATION).rename(copy / EVALUATION)
    return copy


def _copied(storage: Storage, digest: str, copy: Path) -> bool:
    """Copy a bundle from the store; False where the store has no whole one."""
    keys = [f"{layout.bundle(digest)}/{name}" for name in PARTS]
    if not all(map(storage.exists, keys)):
        return False
    copy.mkdir()
    for key, name in zip(keys, PARTS, strict=True):
        (copy / name).write_bytes(storage.read(key))
    try:
        return load_bundle(copy).sha256 == digest
    except BundleError:
        return False


def _describe(storage: Storage, version: Version, copy: Path) -> None:
    """Write `version.json` and, where there is one, `evaluation.json` beside a copied bundle."""
    described = asdict(version)
    evaluation = layout.evaluation_report(version.run_id)
    if storage.exists(evaluation):
        (copy / EVALUATION).write_bytes(storage.read(evaluation))
    if (copy / EVALUATION).exists():
        described["evaluation_sha256"] = _sha256(copy / EVALUATION)
    (copy / VERSION).write_text(json.dumps(described) + "\n")


def _verified(place: Path, version: Version) -> Bundle:
    bundle = load_bundle(place)
    if version.sha256 not in (None, bundle.sha256):
        raise BundleError(f"the bundle of version {version.version} is not the one that was registered")
    return bundle


def _is_whole(place: Path, version: Version) -> bool:
    """Whether the folder holds the version's bundle, with every file as it was when it was copied."""
    try:
        described = json.loads((place / VERSION).read_bytes())
        evaluation = described.pop("evaluation_sha256", None)
        return (
            described == asdict(version)
            and version.sha256 in (None, load_bundle(place).sha256)
            and (evaluation is None or _sha256(place / EVALUATION) == evaluation)
        )
    except (BundleError, OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
