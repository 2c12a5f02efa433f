"""`health-predict predict`: scores a file of encounters of any size into a file."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from health_predict.adapters.processes import usable_cores
from health_predict.bundle.model import Bundle
from health_predict.data.schema import EXCLUDED_DISPOSITIONS
from health_predict.errors import DataError
from health_predict.features.encoder import Encoder
from health_predict.features.encounters import settle
from health_predict.features.missing import missing_far_more_often
from health_predict.params import MissingParams
from health_predict.store.encounter_files import Batch, EncounterFile, open_encounters
from health_predict.store.places import same_place, shown
from health_predict.store.score_files import score_writer

BATCH = 65_536  # rows: about 30 MiB each, of which two per core are in memory

Progress = Callable[[int, int | None], None]  # rows done, rows in all if known


@dataclass(frozen=True)
class ScoredFile:
    """`rows` and `refused` add up to `lines`, the encounters of the file: one that cannot be scored refuses the file.

    Counts by field are of encounters; fields with a count of 0 are left out. `warnings` are sentences for people.
    """

    rows: int
    lines: int  # lines of CSV after the header, without blank lines at the end; rows of Parquet
    refused: int
    blank_lines: int  # at the end of a file
    version: str  # the registry's number; where it is not known, the beginning of the bundle's SHA-256
    bundle: str  # SHA-256
    target: str
    synthetic: bool  # the model was trained on invented data
    unknown: dict[str, int]  # encounters whose value the model does not know
    missing: dict[str, int]  # encounters without a value
    not_measured: dict[str, int]  # empty values that were taken for "not measured"
    outside_cohort: int  # encounters that ended in death or a hospice: outside the population the model was trained on
    warnings: tuple[str, ...]


def predict(
    bundle: Bundle,
    source: str,
    target: str,
    progress: Progress,
    endpoint: str | None = None,
    version: str | None = None,
    empty_is_not_measured: bool = False,
    params: MissingParams | None = None,
) -> ScoredFile:
    """Score every encounter of `source`, in its order, with the same probabilities as the API.

    The target has the identifiers of the source, `probability_score`, `prediction` and `risk_band`, and is written as a
    whole or not at all. Raises DataError when columns or values are invalid, or the target would replace the source;
    StorageError when a file cannot be read or written. `endpoint` is an S3-compatible address other than AWS, `version`
    the registry's number of the bundle; with `empty_is_not_measured`, empty laboratory tests count as not measured.
    """
    if same_place(source, target):
        raise DataError(f"{shown(target)} is what is read, or in its folder: give another file for the scores")
    encounters = open_encounters(source, endpoint, empty_is_not_measured)
    done = outside = 0
    unknown: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    with score_writer(target, endpoint) as writer:
        for part in _in_order(bundle, encounters.batches(BATCH)):
            writer.write(part.scores)
            done, outside = done + part.scores.height, outside + part.outside_cohort
            unknown += part.unknown
            missing += part.missing
            progress(done, encounters.rows)
        if done != encounters.account.lines:
            raise DataError(f"{encounters.name} has {encounters.account.lines} lines, but {done} would be written")
    lacking = {name: missing[name] for name in bundle.encoder.fields if missing[name]}
    return ScoredFile(
        rows=done,
        lines=encounters.account.lines,
        refused=encounters.account.lines - done,
        blank_lines=encounters.account.blank,
        version=version or bundle.sha256[:12],
        bundle=bundle.sha256,
        target=shown(target),
        synthetic=bundle.manifest.synthetic,
        unknown={name: unknown[name] for name in bundle.encoder.codes if unknown[name]},
        missing=lacking,
        not_measured=dict(+encounters.filled),
        outside_cohort=outside,
        warnings=(*_missing_warnings(bundle, lacking, done, params or MissingParams()), *_end_warning(encounters)),
    )


@dataclass(frozen=True)
class _Part:
    """Scores and counts of one batch. `unknown`, `missing` and `outside_cohort` as in `ScoredFile`."""

    scores: pl.DataFrame
    unknown: Counter[str]
    missing: Counter[str]
    outside_cohort: int


def _in_order(bundle: Bundle, batches: Iterator[Batch]) -> Iterator[_Part]:
    """Score batches on all cores, and yield the results in order; memory holds a bounded number of batches."""
    cores = usable_cores()
    waiting: deque[Future[_Part]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for batch in batches:
            waiting.append(pool.submit(_score, bundle, batch))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _score(bundle: Bundle, batch: Batch) -> _Part:
    encounters = settle(batch.encounters, bundle.encoder.fields)
    probability = bundle.predict_proba(encounters)
    bands = bundle.manifest.bands
    band = np.searchsorted([b.lower for b in bands], probability, side="right") - 1
    scores = pl.DataFrame(
        {
            "probability_score": probability,
            "prediction": (probability >= bundle.manifest.threshold).astype(np.int8),
            "risk_band": pl.Series(band.astype(np.uint8)).cat.to(pl.Enum([b.name for b in bands])),
        }
    )
    outside = int(encounters["discharge_disposition_id"].is_in(EXCLUDED_DISPOSITIONS).sum())
    return _Part(
        pl.DataFrame([*batch.identifiers, *scores]),
        _unknown(bundle.encoder, encounters),
        Counter({name: count for name in bundle.encoder.fields if (count := encounters[name].null_count())}),
        outside,
    )


def _unknown(encoder: Encoder, encounters: pl.DataFrame) -> Counter[str]:
    """Encounters with a value that the encoder does not know, by field."""
    found: Counter[str] = Counter()
    for name, table in encoder.codes.items():
        column = encounters[name]
        values = column.dtype.categories if isinstance(column.dtype, pl.Enum) else column.unique()
        unknown = [value for value in values if table.find(value) is None]
        if unknown:
            found[name] = int(column.is_in(unknown).sum())
    return found


def _missing_warnings(bundle: Bundle, missing: dict[str, int], rows: int, params: MissingParams) -> Iterator[str]:
    for name in missing_far_more_often(missing, rows, bundle.missing, params):
        yield (
            f"{name} is missing in {missing[name] / rows:.1%} of encounters, in those that the model was trained on in "
            f"{bundle.missing[name]:.1%}: was it lost on the way?"
        )


def _end_warning(encounters: EncounterFile) -> Iterator[str]:
    if encounters.account.open_end:
        yield "the last line has no line end: if the file was cut short there, its last value is not whole"
