"""A model version as the service holds it: its bundle, name, number and evaluation."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec

from health_predict.bundle.explain import Explainer
from health_predict.bundle.model import Bundle, load_bundle
from health_predict.data.schema import CLINICAL, FIELD
from health_predict.errors import BundleError
from health_predict.features.missing import missing_far_more_often
from health_predict.params import MissingParams

VERSION, EVALUATION = "version.json", "evaluation.json"
SERVED = "lt30"  # the only target whose probability the service returns
WARM_UP = 50  # predictions at loading, beside one explanation, so that the first caller does not wait for lazy set-up


_Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]  # written to the log unescaped


class Version(msgspec.Struct, frozen=True):
    """`version.json` beside the bundle: its name and number in the registry, SHA-256 of bundle and evaluation."""

    name: str | None = None
    version: _Word | None = None
    run_id: _Word | None = None
    sha256: str | None = None
    evaluation_sha256: str | None = None


@dataclass(frozen=True)
class Model:
    """A verified and warmed model version."""

    bundle: Bundle
    name: str | None
    version: str
    run_id: str | None
    evaluation: Mapping[str, Any] | None
    explainer: Explainer
    missing_params: MissingParams

    def missing_fields(self, encounter: Mapping[str, Any]) -> list[str]:
        """Names of the fields that the model reads and the encounter leaves out or gives as null."""
        get = encounter.get
        return [name for name in self._may_be_missing if get(name) is None]

    def warn_of_one(self, missing: list[str]) -> list[str]:
        """A sentence for each field of `missing`, of one encounter, that hardly any training encounter lacks."""
        never = self._never_missing
        return [] if never.keys().isdisjoint(missing) else [never[name] for name in missing if name in never]

    def warn_of_many(self, missing: Mapping[str, int], encounters: int) -> dict[str, str]:
        """A sentence for each field, by name, that is missing in `encounters` far more often than in training."""
        found = missing_far_more_often(missing, encounters, self.bundle.missing, self.missing_params)
        return {
            name: f"{name} is missing in {missing[name]} of {encounters} encounters; {self._usual(name)}"
            for name in found
        }

    @cached_property
    def _may_be_missing(self) -> tuple[str, ...]:
        fields = (FIELD[name] for name in self.bundle.encoder.fields)
        return tuple(field.name for field in fields if field.nullable or not field.required)

    @cached_property
    def _never_missing(self) -> dict[str, str]:
        one = dict.fromkeys(self._may_be_missing, 1)
        found = missing_far_more_often(one, 1, self.bundle.missing, self.missing_params)
        return {name: f"{name} is missing; {self._usual(name)}" for name in found}

    def _usual(self, name: str) -> str:
        return f"it is in {self.bundle.missing[name]:.2%} of the training encounters"

    @cached_property
    def description(self) -> dict[str, Any]:
        """The answer of `/model`."""
        manifest = self.bundle.manifest
        return {
            "name": self.name,
            "version": self.version,
            "run_id": self.run_id or manifest.run_id,
            "sha256": self.bundle.sha256,
            "family": manifest.family,
            "target": manifest.target,
            "simulation": manifest.simulation,
            "synthetic": manifest.synthetic,
            "trained_at": manifest.trained_at,
            "trained_on": [msgspec.to_builtins(table) for table in manifest.trained_on],
            "git_revision": manifest.git_revision,
            "capacity": manifest.capacity,
            "threshold": manifest.threshold,
            "bands": [msgspec.to_builtins(band) for band in manifest.bands],
            "fields": manifest.fields,
            "excluded": manifest.excluded,
            "validation_metrics": manifest.metrics,
            "evaluation": self.evaluation,
            "reference_encounter": manifest.reference_encounter.values,
            "reference_changed": manifest.reference_encounter.changed,
        }


def load_model(folder: Path) -> Model:
    """Load, verify and warm the bundle in a folder; a symbolic link is followed once.

    Without `version.json` the version is the first 12 characters of the bundle's SHA-256. Raises BundleError naming the
    missing or altered file, or for a bundle that is for study only.
    """
    folder = folder.resolve()
    bundle = load_bundle(folder)
    if bundle.manifest.target != SERVED:
        raise BundleError(
            f"the bundle in {folder} predicts another outcome (target {bundle.manifest.target}) than a readmission "
            f"within 30 days ({SERVED}); it is for study only and is not served"
        )
    version = _version(folder)
    if version.sha256 not in (None, bundle.sha256):
        raise BundleError(f"the bundle in {folder} is not the one that {VERSION} names: another SHA-256")
    model = Model(
        bundle=bundle,
        name=version.name,
        version=version.version or bundle.sha256[:12],
        run_id=version.run_id,
        evaluation=_evaluation(folder, version),
        explainer=Explainer(bundle),
        missing_params=MissingParams(),
    )
    _warm(model)
    return model


def _version(folder: Path) -> Version:
    document = _optional(folder / VERSION)
    try:
        return msgspec.json.decode(document, type=Version) if document is not None else Version()
    except msgspec.MsgspecError as error:
        raise BundleError(f"{VERSION} in {folder} does not describe a version: {error}") from error


def _evaluation(folder: Path, version: Version) -> Mapping[str, Any] | None:
    document = _optional(folder / EVALUATION)
    found = hashlib.sha256(document).hexdigest() if document is not None else None
    if version.evaluation_sha256 not in (None, found):
        raise BundleError(f"{EVALUATION} in {folder} is not the one that {VERSION} names: another SHA-256, or none")
    try:
        return msgspec.json.decode(document, type=dict[str, Any]) if document is not None else None
    except msgspec.MsgspecError as error:
        raise BundleError(f"{EVALUATION} in {folder} is not a JSON object") from error


def _optional(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path.name} in {path.parent} cannot be read: {error.strerror}") from error


def _warm(model: Model) -> None:
    example = {field.name: field.example for field in CLINICAL}
    for _ in range(WARM_UP):
        model.bundle.score(example)
    model.explainer.explain(example)
