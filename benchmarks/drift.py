"""Drift of one batch: this project's decision from value counts against Evidently's preset, in the same run.

    python benchmarks/drift.py                  14,000 x 10,000 invented encounters, 44 columns, both
    python benchmarks/drift.py --million        1,000,000 x 1,000,000, ours alone (Evidently took 98 CPU s, 2.7 GiB)

Prints one JSON object: CPU seconds and, for ours, peak resident MiB. Our part is counting both tables and deciding
on fields; the reference's null distributions are computed once, when a model is trained, and are listed apart.
"""

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from health_predict.data.cohort import label
from health_predict.data.schema import CLINICAL
from health_predict.data.synthetic import generate
from health_predict.monitoring.drift import field_drift, separation
from health_predict.monitoring.reference import MISSING, is_ordered, profile, value_counts
from health_predict.params import DriftParams

PARAMS = DriftParams()
REPEATS = 5  # the median counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true")
    million = parser.parse_args().million
    rows, batch_rows = (1_000_000, 1_000_000) if million else (14_000, 10_000)
    reference, batch = _encounters(rows, 1), _encounters(batch_rows, 2)
    found = ours(reference, batch)
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not million:
        found["evidently_import_cpu_s"], found["evidently_cpu_s"] = evidently(reference, batch)
        found["times_faster"] = found["evidently_cpu_s"] / found["decision_cpu_s"]
    print(json.dumps({"rows": rows, "batch_rows": batch_rows, **found}, indent=1))


def ours(reference: pl.DataFrame, batch: pl.DataFrame) -> dict[str, float]:
    labelled = label(reference, "lt30")
    profile_s, known = _timed(lambda: profile(labelled, np.linspace(0.01, 0.5, 1_000), params=PARAMS), 1)

    def decide() -> Any:
        value_counts(reference)  # travels in the bundle; counted here too, to be like for like
        return field_drift(known, value_counts(batch), PARAMS)

    decide()
    decision_s, _ = _timed(decide, REPEATS)
    separation_s, _ = _timed(lambda: separation(reference, batch, PARAMS), 1)
    return {"decision_cpu_s": decision_s, "separation_cpu_s": separation_s, "profile_cpu_s": profile_s}


def evidently(reference: pl.DataFrame, batch: pl.DataFrame) -> tuple[float, float]:
    warnings.simplefilter("ignore")
    start = time.process_time()
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    imported = time.process_time() - start
    definition = DataDefinition(
        numerical_columns=[field.name for field in CLINICAL if is_ordered(field)],
        categorical_columns=[field.name for field in CLINICAL if not is_ordered(field)],
    )
    tables = [
        table.select(
            pl.col(field.name) if is_ordered(field) else pl.col(field.name).cast(pl.String).fill_null(MISSING)
            for field in CLINICAL
        ).to_pandas()
        for table in (reference, batch)
    ]

    def run() -> Any:
        first, second = (Dataset.from_pandas(table, data_definition=definition) for table in tables)
        return Report([DataDriftPreset()]).run(second, first)

    cpu, _ = _timed(run, 1)
    return imported, cpu


def _encounters(rows: int, seed: int) -> pl.DataFrame:
    """Invented encounters; beyond 50,000 the same ones again, as patients of other hospitals."""
    block = generate(min(rows, 50_000), seed)
    copies = range(rows // len(block))
    return pl.concat([block.with_columns(pl.col("patient_nbr") + copy * 1_000_000) for copy in copies])


def _timed(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median CPU seconds, and the last result."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)), result


if __name__ == "__main__":
    main()
