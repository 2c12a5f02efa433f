"""Quality of every family's defaults on the whole cohort, by both protocols, and of LightGBM without some fields: the
tables in docs/results.md.

health-predict data fetch && health-predict data validate
python -m benchmarks.quality
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.markers import replace_section
from health_predict.evaluation.metrics import Interval
from health_predict.params import (
    BootstrapParams,
    Params,
    PreprocessorParams,
    Protocol,
    SearchParams,
    StudyParams,
)
from health_predict.settings import Settings
from health_predict.steps.model.study import StudyReport, study
from health_predict.store.storage import Storage, open_storage
from health_predict.training.candidates import TITLES

PAGE = Path("docs/results.md")
LEFT_OUT = ((), ("race",), ("payer_code",), ("payer_code", "race"))
SEEDS = 1  # of folds, encodings and trees
PROTOCOLS: tuple[Protocol, ...] = ("grouped-cv", "chronological")


def main() -> None:
    settings = Settings()
    storage = open_storage(settings.storage, settings.s3_endpoint)
    for protocol in PROTOCOLS:
        reports = []
        for family in TITLES:
            report = study(storage, Params(), protocol, family, "lt30", lambda _done, _folds: None)
            reports.append(report)
            sys.stderr.write(f"{protocol} {family}: AUROC {report.metrics.auroc}\n")
        replace_section(PAGE, protocol, table(reports))
    replace_section(PAGE, "left-out", left_out(storage))


def left_out(storage: Storage) -> str:
    """Markdown: a row for each choice of fields that LightGBM does not read, means over the seeds."""
    found = {}
    for fields in LEFT_OUT:
        figures = [
            [value for protocol in PROTOCOLS for value in _ranks(storage, protocol, fields, seed)]
            for seed in range(SEEDS)
        ]
        found[fields] = np.mean(figures, axis=0)
        sys.stderr.write(f"without {', '.join(fields) or 'nothing'}: {found[fields]}\n")
    lines = [
        "| left out | grouped: AUROC | average precision | chronological: AUROC | average precision |",
        "|---|---|---|---|---|",
    ]
    for fields, means in found.items():
        cells = [
            f"{mean:.4f}" + (f" ({mean - whole:+.4f})" if fields else "")
            for mean, whole in zip(means, found[()], strict=True)
        ]
        lines.append(f"| {' and '.join(fields) or 'nothing'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ranks(storage: Storage, protocol: Protocol, fields: tuple[str, ...], seed: int) -> tuple[float, float]:
    params = Params(
        preprocessor=PreprocessorParams(exclude=fields, seed=seed),
        search=SearchParams(seed=seed),
        study=StudyParams(seed=seed),
        bootstrap=BootstrapParams(replicates=20),  # the estimates alone are used
    )
    metrics = study(storage, params, protocol, "lightgbm", "lt30", lambda _done, _folds: None).metrics
    return metrics.auroc.estimate, metrics.average_precision.estimate


def table(reports: list[StudyReport]) -> str:
    """Markdown: a row a family, best AUROC first, then the clinical scores on the same encounters."""
    lines = [
        "| model | AUROC | average precision | AUROC, eligible stays | average precision, eligible stays "
        "| Brier | ECE |",
        "|---|---|---|---|---|---|---|",
    ]
    for report in sorted(reports, key=lambda report: -report.metrics.auroc.estimate):
        metrics, eligible = report.metrics, report.eligible
        ranks = (metrics.auroc, metrics.average_precision, eligible.auroc, eligible.average_precision)
        cells = [_cell(interval) for interval in (*ranks, metrics.brier, metrics.ece)]
        lines.append(f"| {TITLES[report.family]} | {' | '.join(cells)} |")
    lines += [f"| {name} | {_cell(score.reference)} | | | | | |" for name, score in reports[0].clinical.items()]
    found, eligible = reports[0].metrics, reports[0].eligible
    lines += [
        "",
        f"{found.rows:,} encounters scored, {found.outcomes:,} readmissions; {eligible.rows:,} of them are eligible "
        f"index stays, {eligible.outcomes:,} readmissions.",
    ]
    return "\n".join(lines)


def _cell(interval: Interval) -> str:
    return f"{interval.estimate:.4f} ({interval.lower:.4f} to {interval.upper:.4f})"


if __name__ == "__main__":
    main()
