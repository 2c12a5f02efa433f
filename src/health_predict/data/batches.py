"""Divides the future, the encounters after the initial data, into batches."""

from itertools import pairwise

import polars as pl

from health_predict.errors import DataError
from health_predict.params import SplitParams


def batches(future: pl.DataFrame, params: SplitParams) -> list[pl.DataFrame]:
    """The future in `params.batches` batches, every encounter in exactly one.

    Encounters with the dataset's second id scheme, whose order in time is not known, come last, in a number of batches
    nearest to their share, at least one; no batch mixes the two schemes, unless it is the only one. With 0 batches,
    the list is empty. Within each scheme rows keep the file's order, and batch sizes differ by at most one row. Raises
    DataError with fewer rows than batches.
    """
    if not params.batches:
        return []
    is_ordered = pl.col("encounter_id") < params.first_unordered_id
    ordered, unordered = future.filter(is_ordered), future.filter(~is_ordered)
    if params.batches == 1 or ordered.is_empty() or unordered.is_empty():
        parts = _equal_parts(future, params.batches)
    else:
        late = round(params.batches * unordered.height / future.height)
        late = min(max(late, 1), params.batches - 1)
        parts = [*_equal_parts(ordered, params.batches - late), *_equal_parts(unordered, late)]
    if any(part.is_empty() for part in parts):
        raise DataError(f"{future.height} encounters are too few for {params.batches} batches")
    return parts


def _equal_parts(encounters: pl.DataFrame, count: int) -> list[pl.DataFrame]:
    edges = [encounters.height * part // count for part in range(count + 1)]
    return [encounters.slice(start, end - start) for start, end in pairwise(edges)]
