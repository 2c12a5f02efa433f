"""`health-predict predict`: a file of encounters to a file of scores, of any size."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from health_predict.io.bundle import Bundle
from health_predict.io.encounter_files import open_encounters, score_writer

BATCH = 65_536  # rows: about 30 MiB each, of which two per core are in memory

Progress = Callable[[int, int | None], None]  # rows done, rows in all if known


@dataclass(frozen=True)
class Scored:
    rows: int
    version: str  # beginning of the bundle's SHA-256
    target: str
    synthetic: bool  # the model was trained on invented data


def predict(bundle: Bundle, source: str, target: str, progress: Progress, endpoint: str | None = None) -> Scored:
    """Score every encounter of `source`, in its order, with the numbers that the API gives.

    The target has the identifiers that the source has, `probability_score`, `prediction` and `risk_band`, and is
    written as a whole or not at all. Raises DataError when columns or values do not fit, StorageError when a file
    cannot be read or written. `endpoint` is an S3-compatible address other than AWS.
    """
    encounters = open_encounters(source, endpoint)
    done = 0
    with score_writer(target, endpoint) as writer:
        for scores in _in_order(bundle, encounters.batches(BATCH), encounters.identifiers):
            writer.write(scores)
            done += scores.height
            progress(done, encounters.rows)
    return Scored(done, bundle.sha256[:12], target, bundle.manifest.synthetic)


def _in_order(bundle: Bundle, batches: Iterator[pl.DataFrame], identifiers: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    """Scores of each batch, every core at work on one, few enough under way to bound memory."""
    cores = len(os.sched_getaffinity(0))
    waiting: deque[Future[pl.DataFrame]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for batch in batches:
            waiting.append(pool.submit(_scores, bundle, batch, identifiers))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _scores(bundle: Bundle, encounters: pl.DataFrame, identifiers: tuple[str, ...]) -> pl.DataFrame:
    probability = bundle.predict_proba(encounters)
    bands = bundle.manifest.bands
    band = np.searchsorted([b.lower for b in bands], probability, side="right") - 1
    scores = pl.DataFrame(
        {
            "probability_score": probability,
            "prediction": (probability >= bundle.manifest.threshold).astype(np.int8),
            "risk_band": pl.Series(band.astype(np.uint8)).cat.to(pl.Enum([b.name for b in bands])).cast(pl.String),
        }
    )
    return scores.select(*(encounters[name] for name in identifiers), pl.all())
