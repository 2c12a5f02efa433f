"""`health-predict predict`: a file of encounters to a file of scores, of any size."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from health_predict.data.schema import EXCLUDED_DISPOSITIONS
from health_predict.features.encoder import Encoder
from health_predict.io.bundle import Bundle
from health_predict.io.encounter_files import open_encounters, score_writer
from health_predict.io.processes import usable_cores

BATCH = 65_536  # rows: about 30 MiB each, of which two per core are in memory

Progress = Callable[[int, int | None], None]  # rows done, rows in all if known


@dataclass(frozen=True)
class Scored:
    rows: int
    version: str  # beginning of the bundle's SHA-256
    target: str
    synthetic: bool  # the model was trained on invented data
    unknown: dict[str, int]  # by field: encounters whose value the model does not know; only fields with any
    outside_cohort: int  # encounters that died or went to hospice: the model was not made for them


def predict(bundle: Bundle, source: str, target: str, progress: Progress, endpoint: str | None = None) -> Scored:
    """Score every encounter of `source`, in its order, with the numbers that the API gives.

    The target has the identifiers that the source has, `probability_score`, `prediction` and `risk_band`, and is
    written as a whole or not at all. Raises DataError when columns or values do not fit, StorageError when a file
    cannot be read or written. `endpoint` is an S3-compatible address other than AWS.
    """
    encounters = open_encounters(source, endpoint)
    done = outside = 0
    unknown: Counter[str] = Counter()
    with score_writer(target, endpoint) as writer:
        for part in _in_order(bundle, encounters.batches(BATCH), encounters.identifiers):
            writer.write(part.scores)
            done, outside = done + part.scores.height, outside + part.outside_cohort
            unknown += part.unknown
            progress(done, encounters.rows)
    fields = {name: unknown[name] for name in bundle.encoder.codes if name in unknown}
    return Scored(done, bundle.sha256[:12], target, bundle.manifest.synthetic, fields, outside)


@dataclass(frozen=True)
class _Part:
    """Of one batch. `unknown` and `outside_cohort` as in `Scored`."""

    scores: pl.DataFrame
    unknown: Counter[str]
    outside_cohort: int


def _in_order(bundle: Bundle, batches: Iterator[pl.DataFrame], identifiers: tuple[str, ...]) -> Iterator[_Part]:
    """Every batch scored, every core at work on one, few enough under way to bound memory."""
    cores = usable_cores()
    waiting: deque[Future[_Part]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for batch in batches:
            waiting.append(pool.submit(_score, bundle, batch, identifiers))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _score(bundle: Bundle, encounters: pl.DataFrame, identifiers: tuple[str, ...]) -> _Part:
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
        scores.select(*(encounters[name] for name in identifiers), pl.all()),
        _unknown(bundle.encoder, encounters),
        outside,
    )


def _unknown(encoder: Encoder, encounters: pl.DataFrame) -> Counter[str]:
    """How many encounters have a value that the encoder does not know, by field."""
    found: Counter[str] = Counter()
    for name, table in encoder.codes.items():
        column = encounters[name]
        values = column.dtype.categories if isinstance(column.dtype, pl.Enum) else column.unique()
        unknown = [value for value in values if table.find(value) is None]
        if unknown:
            found[name] = int(column.is_in(unknown).sum())
    return found
