"""The drift page, drawn by Evidently for people to look at; decisions rest on `monitoring/drift.py`."""

import warnings

import numpy as np
import polars as pl

from health_predict.data.schema import CLINICAL, MISSING
from health_predict.errors import DataError
from health_predict.params import DriftParams


def html(reference: pl.DataFrame, current: pl.DataFrame, params: DriftParams) -> bytes:
    """Evidently's data drift page for the clinical fields of a batch, one self-contained HTML document.

    It shows distributions, no rows, of at most `report_rows` encounters of each side, always the same sample. Raises
    DataError where a side is empty.
    """
    if reference.is_empty() or current.is_empty():
        raise DataError(f"{len(reference)} reference and {len(current)} current encounters; a report needs both")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of Evidently's dependencies about each other
        from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415  (3 s to import)
        from evidently.presets import DataDriftPreset  # noqa: PLC0415

        definition = DataDefinition(
            numerical_columns=[field.name for field in CLINICAL if field.is_quantity],
            categorical_columns=[field.name for field in CLINICAL if not field.is_quantity],
        )
        first, second = (
            Dataset.from_pandas(_drawn(table, params).to_pandas(), data_definition=definition)
            for table in (reference, current)
        )
        snapshot = Report([DataDriftPreset()]).run(second, first)
        document: str = snapshot.get_html_str(as_iframe=False)
    return document.encode()


def _drawn(encounters: pl.DataFrame, params: DriftParams) -> pl.DataFrame:
    chosen = np.random.default_rng(params.seed).permutation(len(encounters))[: params.report_rows]
    return encounters[np.sort(chosen)].select(
        pl.col(field.name) if field.is_quantity else pl.col(field.name).cast(pl.String).fill_null(MISSING)
        for field in CLINICAL
    )
