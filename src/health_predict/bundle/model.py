"""The bundle: all that turns an encounter into a probability, in one folder, without a pickle.

    encoder.json     the fitted preprocessing as tables
    model.onnx       from the input vector to log-odds
    reference.json   what the training encounters looked like, for drift
    bundle.json      schema, threshold, calibration, bands, provenance, golden rows, SHA-256 of the other files

The gate, the service, batch scoring and the monitor all score with a `Bundle`. The service imports this module, so
it needs neither tables nor training libraries to load one.
"""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from health_predict.data.field import Value
from health_predict.data.schema import MISSING
from health_predict.errors import BundleError
from health_predict.features.calibration import Calibration
from health_predict.features.encoder import Encoder
from health_predict.features.row_encoder import RowEncoder
from health_predict.params import LIVE_TARGET, OUTCOMES, Family, Target

if TYPE_CHECKING:
    import polars as pl

FORMAT = 3
ENCODER, MODEL, REFERENCE, MANIFEST = "encoder.json", "model.onnx", "reference.json", "bundle.json"
GOLDEN_TOLERANCE = 1e-6  # as far as two machines' floating point may differ; the contract of the export
CHUNK = 16_384  # rows encoded at a time: bounds memory, fills the cache


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of risk with a name; it starts at `lower` and ends where the next one starts."""

    name: str
    lower: float


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An invented encounter and the probability that the model gave it when it was exported."""

    encounter: dict[str, Value | None]
    probability: float


class TableDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table that the model has seen: its key in storage, what it holds, and its SHA-256."""

    key: str
    rows: int
    outcomes: int
    sha256: str


class _Format(msgspec.Struct):
    format: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `bundle.json`."""

    format: int
    family: Family
    config: dict[str, Any]
    dataset: str  # name of the data set; `trained_on` has its tables
    target: Target
    capacity: float  # share of discharges that the care team can follow up
    threshold: float  # probability from which that share of the validation encounters is flagged
    calibration: Calibration
    bands: list[Band]
    percentiles: list[float]  # 101 values: percentile 0 to 100 of the validation encounters' probability
    fields: list[str]  # that the encoder reads
    trained_on: list[TableDigest]
    synthetic: bool
    simulation: str | None  # name of the replay that trained it; None: trained on what really happened
    lineage: list[str]  # runs whose model this one is with another calibration, oldest first
    metrics: dict[str, float]  # of the validation encounters
    versions: dict[str, str]
    git_revision: str
    run_id: str
    trained_at: str  # UTC, ISO 8601
    golden: list[Golden]
    files: dict[str, str]

    @property
    def content(self) -> str:
        """SHA-256 of all that decides a probability: the same for models that score the same."""
        decisive = (self.target, self.files[ENCODER], self.files[MODEL], self.calibration)
        return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()


class _Counts(msgspec.Struct, frozen=True):
    """Of `reference.json`, what scoring reads."""

    rows: int
    fields: dict[str, dict[str, int]]  # field -> value as text, `?` for missing -> encounters


@dataclass(frozen=True)
class Bundle:
    """One model version, ready to score."""

    manifest: Manifest
    encoder: Encoder
    session: onnxruntime.InferenceSession
    sha256: str  # of bundle.json, which holds the digests of the other files: it names the whole
    missing: Mapping[str, float] = field(default_factory=dict)  # field -> share of training encounters without a value

    def predict_proba(self, encounters: "pl.DataFrame") -> NDArray[np.float64]:
        """Calibrated probability of the outcome for each typed encounter, shape (rows,), row order kept."""
        from health_predict.features.encounters import columns  # noqa: PLC0415  (only tables need polars)

        parts = [
            self._scores(self.encoder.encode_table(columns(encounters[start : start + CHUNK], self.encoder)))
            for start in range(0, len(encounters), CHUNK)
        ]
        return self.manifest.calibration.apply(np.concatenate(parts)) if parts else np.empty(0)

    def predict_one(self, encounter: Mapping[str, Any]) -> float:
        """Calibrated probability of the outcome for one encounter; in a table the same to float32 precision."""
        return self.score(encounter)[0]

    def score(self, encounter: Mapping[str, Any]) -> tuple[float, list[str]]:
        """As `predict_one`, with the names of the fields whose value the model does not know.

        Not for several threads at once.
        """
        numbers, unknown = self._row_encoder.encode(encounter)
        return self.manifest.calibration.apply_one(self._row_scorer(numbers)), unknown

    def predict_vectors(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated probability for encoded encounters, shape (rows,)."""
        return self.manifest.calibration.apply(self._scores(X))

    def band(self, probability: float) -> str:
        """Name of the band that a probability lies in."""
        return self.manifest.bands[bisect_right(self._band_bounds, probability) - 1].name

    def percentile(self, probability: float) -> int:
        """Percentage of the validation encounters with a lower or equal probability, 0 to 100."""
        return bisect_right(self.manifest.percentiles, probability, 1, 101) - 1

    @cached_property
    def _band_bounds(self) -> list[float]:
        return [band.lower for band in self.manifest.bands]

    @cached_property
    def _row_encoder(self) -> RowEncoder:
        return RowEncoder(self.encoder)

    @cached_property
    def _row_scorer(self) -> "_RowScorer":
        return _RowScorer(self.session, self.encoder)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self.session.run(["log_odds"], {"X": X})[0][:, 0]
        return scores


class _RowScorer:
    """Log-odds of one row in memory that is kept, in half of the time that a call with new arrays takes."""

    def __init__(self, session: onnxruntime.InferenceSession, encoder: Encoder):
        X, log_odds = np.zeros((1, len(encoder.outputs)), np.float32), np.zeros((1, 1), np.float32)
        self._session, self._encoder, self._X, self._log_odds = session, encoder, X, log_odds
        self._binding = session.io_binding()
        self._binding.bind_input("X", "cpu", 0, np.float32, X.shape, X.ctypes.data)
        self._binding.bind_output("log_odds", "cpu", 0, np.float32, log_odds.shape, log_odds.ctypes.data)
        self._pack = struct.Struct(f"{X.size}f").pack_into  # rounds to float32 as numpy does
        self._memory = X.data.cast("B")

    def __call__(self, numbers: Sequence[float]) -> float:
        if self._encoder.scale:
            self._X[:] = self._encoder.finish(np.array([numbers]))
        else:
            self._pack(self._memory, 0, *numbers)
        self._session.run_with_iobinding(self._binding)
        return float(self._log_odds.item())


def require_target(manifest: Manifest, target: Target = LIVE_TARGET) -> None:
    """BundleError for a model that predicts another outcome than readmission within 30 days."""
    if manifest.target != target:
        raise BundleError(
            f"the model of run {manifest.run_id} predicts {OUTCOMES[manifest.target]}, not {OUTCOMES[target]}: it is "
            "for study, and is never compared with, promoted over or served as the other. `health-predict evaluate "
            f"--protocol grouped-cv --target {manifest.target}` studies that outcome"
        )


def require_run(manifest: Manifest, run_id: str) -> None:
    """BundleError when the bundle names another run than the one that holds it."""
    if manifest.run_id != run_id:
        raise BundleError(f"the run {run_id} holds the bundle of another run, {manifest.run_id}")


def draft(manifest: Manifest, encoder: Encoder, model: bytes) -> Bundle:
    """A bundle in memory that scores, before it is written and verified."""
    return Bundle(manifest, encoder, _session(model, threads=1), sha256="")


def write_bundle(folder: Path, manifest: Manifest, encoder: Encoder, model: bytes, reference: bytes) -> None:
    """Write a new bundle; `manifest.files` and `manifest.golden` probabilities are filled in here."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {ENCODER: encoder.to_json(), MODEL: model, REFERENCE: reference}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = msgspec.structs.replace(manifest, files=files)
    scorer = draft(manifest, encoder, model)
    golden = [msgspec.structs.replace(row, probability=scorer.predict_one(row.encounter)) for row in manifest.golden]
    document = msgspec.json.encode(msgspec.structs.replace(manifest, golden=golden))
    (folder / MANIFEST).write_bytes(msgspec.json.format(document, indent=1) + b"\n")


def load_bundle(folder: Path, threads: int = 1) -> Bundle:
    """Load and verify a bundle: every file there, every digest right, every golden row scored as stored.

    Raises BundleError that names the part that is missing or altered.
    """
    document = _read(folder, MANIFEST)
    manifest = parse_manifest(document, str(folder))
    contents = {name: _read(folder, name) for name in (ENCODER, MODEL, REFERENCE)}
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != manifest.files.get(name):
            raise BundleError(f"{name} in {folder} was altered: its SHA-256 is not the one in {MANIFEST}")
    try:
        encoder = _encoder(contents[ENCODER])
    except (msgspec.MsgspecError, ValueError) as error:
        raise BundleError(f"{ENCODER} in {folder} does not hold an encoder: {error!r}") from error
    missing = _missing(contents[REFERENCE], folder)
    digest = hashlib.sha256(document).hexdigest()
    bundle = Bundle(manifest, encoder, _session(contents[MODEL], threads), digest, missing)
    _check_golden(bundle, folder)
    return bundle


def parse_manifest(document: bytes, place: str) -> Manifest:
    """The manifest in the content of `bundle.json`. BundleError, naming its place, for one of another format."""
    try:
        found = msgspec.json.decode(document, type=_Format).format
        if found != FORMAT:
            raise BundleError(
                f"{MANIFEST} in {place} has format {found}, and this version reads format {FORMAT}: train again, or "
                "serve it with the version of Health Predict that it was made with"
            )
        return msgspec.json.decode(document, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{MANIFEST} in {place} is not a bundle description: {error}") from error


@lru_cache(maxsize=2)  # a step loads its few bundles again and again, and decoding is half of a loading
def _encoder(content: bytes) -> Encoder:
    return Encoder.from_json(content)


def _missing(reference: bytes, folder: Path) -> dict[str, float]:
    try:
        counts = msgspec.json.decode(reference, type=_Counts)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{REFERENCE} in {folder} is not a reference profile: {error}") from error
    return {name: values.get(MISSING, 0) / counts.rows for name, values in counts.fields.items() if counts.rows}


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"the bundle in {folder} has no {name}: {error.strerror}") from error


def _session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no other base
        raise BundleError(f"{MODEL} cannot be loaded: {error}") from error


def _check_golden(bundle: Bundle, folder: Path) -> None:
    if not bundle.manifest.golden:
        raise BundleError(f"{MANIFEST} in {folder} has no golden rows, so its scores cannot be verified")
    for position, row in enumerate(bundle.manifest.golden):
        try:
            difference = abs(bundle.predict_one(row.encounter) - row.probability)
        except Exception as error:  # onnxruntime's own exceptions share no other base
            said = f"golden row {position} of the bundle in {folder} cannot be scored: {type(error).__name__}"
            raise BundleError(said) from error
        if not difference <= GOLDEN_TOLERANCE:
            raise BundleError(
                f"golden row {position} of the bundle in {folder} scores {difference:.1e} away from what is stored"
            )
