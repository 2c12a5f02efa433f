"""What the commands that score print."""

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from health_predict.cli.tables.parts import labelled


def scored(report: Any) -> RenderableType:
    blank = f" ({report.blank_lines:,} blank lines at the end)" if report.blank_lines else ""
    lines = [
        f"{report.lines:,} encounters read{blank}, {report.rows:,} scored with version {report.version} to "
        f"{report.target}, {report.refused:,} refused"
    ]
    if report.unknown:
        lines.append(f"values that the model does not know, scored as unknown: {_by_field(report.unknown)}")
    if report.missing:
        lines.append(f"values missing: {_by_field(report.missing)}")
    if report.not_measured:
        lines.append(f"empty values taken for not measured: {_by_field(report.not_measured)}")
    if report.outside_cohort:
        lines.append(f"{report.outside_cohort:,} died or went to hospice: the model was not made for them")
    lines += [f"WARNING: {warning}" for warning in report.warnings]
    return labelled(report, Text("\n".join(lines)))


def _by_field(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in counts.items())


def verified(log: Any) -> RenderableType:
    return f"{log.lines:,} lines, unbroken; head {log.head}"
