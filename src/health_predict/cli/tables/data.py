"""What the commands of the dataset and of the intake print."""

from typing import Any

from rich.console import RenderableType

from health_predict.cli.tables.parts import labelled, skipped, table_of


def fetched(report: Any) -> RenderableType:
    origin = "invented" if report.synthetic else "as published" if report.published else "NOT the published file"
    return labelled(report, f"{report.key}: {report.rows:,} encounters, {origin}{skipped(report)}")


def validated(report: Any) -> RenderableType:
    text = f"{report.accepted:,} of {report.rows:,} encounters accepted, {report.quarantined:,} in quarantine"
    if report.discharge_column:
        text += f"; {report.dated:,} have a day of discharge ({report.discharge_column})"
    findings = [f"  {finding.column}: {finding.reason} ({finding.rows:,} rows)" for finding in report.findings]
    return labelled(report, "\n".join([text + skipped(report), *findings]))


def split(report: Any) -> RenderableType:
    excluded = f"{report.excluded:,} more ended in death or hospice and are left out"
    if report.undated:
        excluded += f"; {report.undated:,} have no {report.by_date} and are in no part"
    dated = any(part.first_day for part in report.parts)
    rows = [
        (
            part.key,
            f"{part.rows:,}",
            f"{part.patients:,}",
            f"{part.outcomes:,}",
            f"{part.readmitted_within_30_days:.1%}",
            *([f"{part.first_day} to {part.last_day}"] if dated else []),
        )
        for part in report.parts
    ]
    headers = ("part", "encounters", "patients", "readmitted <30 days", "share", *(["discharged"] if dated else []))
    table = table_of(headers, rows)
    test = "enough" if report.gate_can_decide else "TOO LITTLE"
    gate = f"the test part is {test} for the gate to decide on"
    warnings = [f"WARNING: {warning}" for warning in report.warnings]
    return labelled(report, f"{report.rows:,} encounters; {excluded}{skipped(report)}", table, gate, *warnings)


def encounters_taken_in(report: Any) -> RenderableType:
    batch = f"batch {report.batch}" if report.batch is not None else "no batch, as nothing is new"
    lines = [
        f"{report.rows:,} rows: {report.accepted:,} encounters are {batch}, {report.known:,} were known, "
        f"{report.left_out:,} ended in death or a hospice, {report.quarantined:,} do not fit"
    ]
    lines += [f"- {one.column} {one.reason} in {one.rows:,} rows" for one in report.findings]
    if report.final_from:
        lines.append(
            f"outcomes of all of the batch are final from {report.final_from} on: discharge + 30 days + reporting lag"
        )
    if report.quarantine:
        lines.append(f"the rows that do not fit are in {report.quarantine}")
    if report.amended:
        lines.append(
            f"{report.amended:,} of those that were known have other values now; what arrived first stays, as it is "
            "what was scored"
        )
    return "\n".join(lines)


def outcomes_taken_in(report: Any) -> RenderableType:
    lines = [
        f"{report.rows:,} outcomes: {report.changed:,} are otherwise than was known, {report.repeated:,} were known, "
        f"{report.unknown:,} are of encounters that have not arrived"
    ]
    if report.overruled:
        lines.append(
            f"{report.overruled:,} say otherwise than a newer statement, which counts; where they are the newest, take "
            "them in with the day that they speak of (--as-of)"
        )
    if report.early:
        lines.append(
            f"{report.early:,} do not count yet: they are as of a day before discharge + 30 days + reporting lag, when "
            "a readmission may still come or be reported"
        )
    if report.without_day:
        lines.append(f"{report.without_day:,} of these are as of no known day: say it (--as-of, or a column as_of)")
    if report.followed_up:
        lines.append(f"{report.followed_up:,} encounters were followed up: what is learnt is the risk without that")
    lines += [
        f"batch {one.batch} has matured: {one.outcomes:,} outcomes count, {one.unknown:,} do not yet, "
        f"{one.corrected:,} were corrected"
        for one in report.batches
    ]
    return "\n".join(lines)
