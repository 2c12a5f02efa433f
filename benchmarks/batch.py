"""Scoring files: `health-predict predict` beside a pandas + ColumnTransformer pipeline, on invented encounters.

    python -m benchmarks.batch           a million rows, both; CSV and ten million, ours; table in docs/performance.md

The bundle and the pipeline are those of `benchmarks.serving`. The pipeline reads and scores 100,000 rows at a time, as
it would not fit into memory otherwise. Each measurement is a process of its own; the two sides take turns.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from benchmarks.markers import replace_section
from benchmarks.serving.usual import NAMES, make_bundle, make_pipeline
from health_predict.bundle.model import load_bundle
from health_predict.simulation.synthetic import generate
from health_predict.steps.model.predict import predict

PAGE = Path("docs/performance.md")
BLOCK = 50_000  # invented encounters, again and again under other numbers
OURS, USUAL = "ours", "usual"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "MODEL", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(one_side(*given.side)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = {OURS: make_bundle(folder / "bundle"), USUAL: make_pipeline(folder / "usual") / "pipeline.joblib"}
        million, ten = (write(folder / f"{rows}.parquet", rows) for rows in (1_000_000, 10_000_000))
        turns = [{side: measured(side, model, million) for side, model in models.items()} for _ in range(given.turns)]
        middle = {side: median([turn[side] for turn in turns]) for side in models}
        text = folder / "1000000.csv"
        pl.scan_parquet(million).sink_csv(text)
        others = {"CSV, every line counted": measured(OURS, models[OURS], text), "": measured(OURS, models[OURS], ten)}
        replace_section(PAGE, "batch", table(middle, others))


def write(path: Path, rows: int) -> Path:
    """A Parquet file of invented encounters, without outcomes."""
    block = generate(BLOCK, seed=5).drop("readmitted")
    schema = block.to_arrow().schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for copy in range(rows // BLOCK):
            writer.write_table(block.with_columns(pl.col("encounter_id") + copy * 10_000_000).to_arrow())
    return path


def measured(side: str, model: Path, file: Path) -> dict[str, float]:
    line = [sys.executable, "-m", "benchmarks.batch", "--side", side, str(model), str(file)]
    found: dict[str, float] = json.loads(subprocess.run(line, check=True, capture_output=True).stdout)
    print(f"{side}, {file.stem} rows: {found}")
    return found


def median(turns: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def one_side(side: str, model: str, file: str) -> dict[str, float]:
    """Rows a second, CPU microseconds a row, peak MiB; without imports and the loading of the model."""
    score = ours(model) if side == OURS else usual(model)
    start, before = time.perf_counter(), os.times()
    rows = score(file)
    seconds, after = time.perf_counter() - start, os.times()
    cpu = after.user - before.user + after.system - before.system
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "per_second": rows / seconds, "cpu": cpu / rows * 1e6, "peak": peak}


def ours(model: str) -> Callable[[str], int]:
    bundle = load_bundle(Path(model))

    def score(file: str) -> int:
        with tempfile.TemporaryDirectory() as folder:
            return predict(bundle, file, str(Path(folder) / "scores.parquet"), lambda _done, _total: None).rows

    return score


def usual(model: str) -> Callable[[str], int]:
    import joblib

    pipeline = joblib.load(model)

    def score(file: str) -> int:
        rows = 0
        with tempfile.TemporaryDirectory() as folder:
            for number, batch in enumerate(pq.ParquetFile(file).iter_batches(100_000)):
                frame = batch.to_pandas()
                scores = frame[["encounter_id"]].assign(probability=pipeline.predict_proba(frame[NAMES])[:, 1])
                scores.to_parquet(Path(folder) / f"{number}.parquet")
                rows += len(scores)
        return rows

    return score


def table(middle: dict[str, dict[str, float]], others: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    names = {OURS: "`health-predict predict`", USUAL: "pandas + ColumnTransformer"}
    runs = [(names[side], found) for side, found in middle.items()] + [
        (f"{names[OURS]} {what}".strip(), found) for what, found in others.items()
    ]
    lines = [
        "| route | rows | rows/s | CPU per row, us | peak memory, MiB |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {r['rows']:,.0f} | {r['per_second']:,.0f} | {r['cpu']:.1f} | {r['peak']:,.0f} |"
            for name, r in runs
        ),
        "",
        f"CPU per row, usual / ours: {middle[USUAL]['cpu'] / middle[OURS]['cpu']:.1f}. Wanted were at least 8, 200,000 "
        "rows a second on two cores, and ten million within 1,024 MiB.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
