"""Quality of every family's defaults on the whole cohort, by both protocols: the table in docs/results.md.

health-predict data fetch && health-predict data validate
python -m benchmarks.quality
"""

import sys
from pathlib import Path

from benchmarks.markers import replace_section
from health_predict.evaluation.metrics import Interval
from health_predict.params import Params, Protocol
from health_predict.settings import Settings
from health_predict.steps.model.study import StudyReport, study
from health_predict.store.storage import open_storage
from health_predict.training.candidates import TITLES

PAGE = Path("docs/results.md")
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
