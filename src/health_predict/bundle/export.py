"""From a fitted model to its bundle. The export is refused when the bundle does not score what the model scores."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from health_predict.bundle.model import (
    FORMAT,
    Band,
    Bundle,
    Golden,
    Manifest,
    ReferenceEncounter,
    TableDigest,
    draft,
    load_bundle,
    write_bundle,
)
from health_predict.bundle.onnx import to_onnx
from health_predict.bundle.reference_encounter import reference_encounter
from health_predict.data.cohort import LabelledEncounters
from health_predict.data.schema import CLINICAL
from health_predict.errors import BundleError
from health_predict.monitoring.reference import percentiles, profile, reliance
from health_predict.params import BundleParams, Params, Target
from health_predict.simulation.synthetic import generate
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import Fitted

BAND_NAMES = ("low", "moderate", "high", "very high")
LIBRARIES = (*(one.library for one in CANDIDATES.values()), "onnx", "onnxruntime", "skl2onnx", "onnxmltools")


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, as its bundle will say."""

    run_id: str
    dataset: str
    target: Target
    trained_on: Sequence[TableDigest]
    synthetic: bool
    simulation: str | None
    git_revision: str
    seed: int


def export(
    folder: Path,
    fitted: Fitted,
    train: LabelledEncounters,
    validation: LabelledEncounters,
    metrics: Mapping[str, float],
    provenance: Provenance,
    params: Params,
) -> tuple[Bundle, float]:
    """Write the bundle of a fitted model and load it back.

    Returns the verified bundle, and the largest absolute difference between its probabilities and the model's over
    the validation encounters. Raises BundleError when that is above `params.bundle.max_onnx_difference`.
    """
    expected = fitted.predict_proba(validation.encounters)
    encoder = fitted.preprocessor.to_encoder()
    manifest = Manifest(
        format=FORMAT,
        family=fitted.family,
        config=dict(fitted.config),
        dataset=provenance.dataset,
        target=provenance.target,
        capacity=params.bundle.capacity,
        threshold=fitted.threshold,
        calibration=fitted.calibration,
        bands=bands(expected, fitted.threshold, params.bundle),
        percentiles=percentiles(expected),
        fields=list(encoder.fields),
        excluded=sorted(fitted.preprocessor.params.exclude or ()),
        reference_encounter=ReferenceEncounter({}, []),
        trained_on=list(provenance.trained_on),
        synthetic=provenance.synthetic,
        simulation=provenance.simulation,
        lineage=[],
        metrics=dict(metrics),
        versions={"python": sys.version.split()[0], **{name: version(name) for name in LIBRARIES}},
        git_revision=provenance.git_revision,
        run_id=provenance.run_id,
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        golden=_golden(params.bundle.golden_rows, provenance.seed),
        files={},
    )
    model = to_onnx(fitted.family, fitted.model, len(encoder.outputs))
    scorer = draft(manifest, encoder, model)
    importance = reliance(scorer.predict_proba, validation.encounters, provenance.seed)
    # Scores of encounters that the model was not fitted on: those it was, it scores too widely.
    reference = profile(train, expected, importance, params.drift)
    compared_with = reference_encounter(scorer, reference.fields, params.bundle)
    manifest = msgspec.structs.replace(manifest, reference_encounter=compared_with)
    write_bundle(folder, manifest, encoder, model, msgspec.json.encode(reference))
    bundle = load_bundle(folder)
    difference = float(np.abs(bundle.predict_proba(validation.encounters) - expected).max())
    allowed = params.bundle.max_onnx_difference
    if not difference <= allowed:
        raise BundleError(
            f"the exported {fitted.family} differs from the trained one by up to {difference:.1e} on the validation "
            f"encounters; at most {allowed:.0e} is allowed"
        )
    return bundle, difference


def git_revision() -> str:
    """Revision of the working tree that this runs from, with `+` when it has changes; "unknown" outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def bands(proba: NDArray[np.float64], threshold: float, params: BundleParams) -> list[Band]:
    """The bands of risk: high and very high are flagged, low and moderate are not.

    The other two bounds are quantiles of the validation encounters' probability, below the threshold and from it on.
    Bounds ascend; a band is empty where its bound is that of the next one. `threshold` is above some of `proba`.
    """
    below, flagged = proba[proba < threshold], proba[proba >= threshold]
    moderate = np.quantile(below, params.low_share)
    very_high = np.quantile(flagged, 1 - params.very_high_share) if len(flagged) else threshold
    lower = (0.0, moderate, threshold, very_high)
    return [Band(name, float(bound)) for name, bound in zip(BAND_NAMES, lower, strict=True)]


def _golden(rows: int, seed: int) -> list[Golden]:
    # Invented encounters: a bundle is copied to many places, and no patient should be.
    names = [field.name for field in CLINICAL]
    return [Golden(encounter, probability=0.0) for encounter in generate(rows, seed).select(names).to_dicts()]
