"""Drift of one batch: this project's decision against Evidently's preset, in the same run; and a million rows.

    python -m benchmarks.drift

Writes its section of docs/performance.md. CPU seconds, medians; libraries are imported before the clock starts, on
both sides. Ours is counting both tables and deciding on fields, without and with the classifier that looks for
combinations. The reference's null distributions are computed once, when a model is trained, and are listed apart. A
million rows are judged in a process of its own, whose peak memory is then its own as well.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.markers import replace_section
from health_predict.data.cohort import label
from health_predict.data.schema import CLINICAL, MISSING
from health_predict.monitoring.drift import field_drift
from health_predict.monitoring.reference import profile, value_counts
from health_predict.monitoring.separation import separation
from health_predict.params import DriftParams
from health_predict.simulation.synthetic import generate

PAGE = Path("docs/performance.md")
PARAMS = DriftParams()
REPEATS = 5  # the median counts
SIZES, MILLION = (14_000, 10_000), (1_000_000, 1_000_000)


@dataclass(frozen=True)
class Ours:
    """CPU seconds, and the peak of the process in MiB with the tables themselves."""

    fields: float
    combinations: float
    imported: float  # LightGBM, which looks for combinations
    profile: float
    peak: float


@dataclass(frozen=True)
class Evidently:
    """CPU seconds."""

    preset: float
    imported: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true", help="measure that part only, and print it as JSON")
    if parser.parse_args().million:
        print(json.dumps(asdict(ours(*map(_encounters, MILLION, (1, 2))))))
        return
    reference, batch = map(_encounters, SIZES, (1, 2))
    found = ours(reference, batch)
    command = [sys.executable, "-m", "benchmarks.drift", "--million"]
    million = Ours(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    text = table(found, evidently(reference, batch), million)
    print(text)
    replace_section(PAGE, "drift", text)


def table(found: Ours, theirs: Evidently, million: Ours) -> str:
    """Markdown, with what is to be reached beside what was."""
    whole = found.fields + found.combinations
    of_million = million.fields + million.combinations
    lines = [
        f"{len(CLINICAL)} clinical fields, {SIZES[0]:,} reference and {SIZES[1]:,} current invented encounters.",
        "",
        "| | CPU s | Evidently / ours |",
        "|---|---|---|",
        f"| Evidently, preset without its page | {theirs.preset:.2f} (and {theirs.imported:.1f} to import) | |",
        f"| fields | {found.fields:.3f} | {theirs.preset / found.fields:.0f} |",
        f"| fields and combinations | {whole:.3f} (and {found.imported:.1f} to import LightGBM) | "
        f"{theirs.preset / whole:.0f} (at least 20) |",
        f"| reference profile, once a training | {found.profile:.2f} | |",
        "",
        f"A million against a million: {million.fields:.2f} CPU s for fields, {of_million:.2f} with combinations (at "
        f"most 5); the process peaks at {million.peak:,.0f} MiB with both tables (at most 2,048).",
    ]
    return "\n".join(lines)


def ours(reference: pl.DataFrame, batch: pl.DataFrame) -> Ours:
    labelled = label(reference, "lt30")
    profiled, known = _timed(lambda: profile(labelled, np.linspace(0.01, 0.5, 1_000), params=PARAMS), 1)

    def decide() -> Any:
        value_counts(reference)  # travels in the bundle; counted here too, to be like for like
        return field_drift(known, value_counts(batch), PARAMS)

    start = time.process_time()
    import lightgbm  # noqa: F401

    imported = time.process_time() - start
    decide()
    fields, _ = _timed(decide, REPEATS)
    combinations, _ = _timed(lambda: separation(reference, batch, PARAMS), REPEATS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Ours(fields, combinations, imported, profiled, peak)


def evidently(reference: pl.DataFrame, batch: pl.DataFrame) -> Evidently:
    warnings.simplefilter("ignore")
    start = time.process_time()
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    imported = time.process_time() - start
    definition = DataDefinition(
        numerical_columns=[field.name for field in CLINICAL if field.is_quantity],
        categorical_columns=[field.name for field in CLINICAL if not field.is_quantity],
    )
    tables = [
        table.select(
            pl.col(field.name) if field.is_quantity else pl.col(field.name).cast(pl.String).fill_null(MISSING)
            for field in CLINICAL
        ).to_pandas()
        for table in (reference, batch)
    ]

    def run() -> Any:
        first, second = (Dataset.from_pandas(table, data_definition=definition) for table in tables)
        return Report([DataDriftPreset()]).run(second, first)

    run()
    return Evidently(_timed(run, REPEATS)[0], imported)


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
