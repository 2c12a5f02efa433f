"""What the commands about models print."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from health_predict.cli.tables.parts import interval, labelled, skipped, table_of
from health_predict.training.candidates import TITLES

if TYPE_CHECKING:  # a table needs no reader of what it shows, and some of these take seconds to import
    from health_predict.evaluation.gate import Check, Comparison
    from health_predict.store.ledger import Entry
    from health_predict.store.reports import BestModel, EvaluationReport, TrainingReport

SHOWN_REASONS = 8  # of a decision, in an overview


def trained(report: "TrainingReport") -> RenderableType:
    at = ", ".join(f"{count} at step {step}" for step, count in report.stopped_at.items())
    early = f"{report.stopped} of {report.trials} trials stopped early" + (f" ({at})" if at else "")
    return labelled(
        report,
        models(report.models, report.winner),
        f"{early}{skipped(report)}\ntrained on {report.dataset}; the winner (*) is run {report.winner}",
    )


def models(found: "Iterable[BestModel]", winner: str) -> Table:
    """One row per family, with its metrics on the validation encounters; `*` marks the winner."""
    rows = [
        (
            ("* " if model.run_id == winner else "  ") + TITLES[model.family],
            interval(model.metrics.auroc),
            interval(model.metrics.average_precision),
            f"{model.metrics.brier.estimate:.4f}",
            f"{model.metrics.ece.estimate:.4f}",
            f"{model.onnx_difference:.0e}",
            model.run_id,
        )
        for model in found
    ]
    return table_of(
        ("family", "AUROC (95%)", "average precision (95%)", "Brier", "ECE", "ONNX differs by", "run"), rows
    )


def evaluated(report: "EvaluationReport") -> RenderableType:
    refused = [check for check in report.checks if not check.passed]
    verdict = "The gate would decline it." if refused else "The gate has no objection."
    subject = f"{TITLES[report.family]} of run {report.run_id}"
    against = f"against version {report.champion}" if report.champion else "with nothing in production yet"
    against += f"; question {report.comparison.look} to this hold-out" if report.comparison.look > 1 else ""
    against += "".join(f"; {seen:,} encounters left out, seen by {name}" for name, seen in report.left_out.items())
    return labelled(report, f"{subject}, {against}", scores(report.comparison), gate(report.checks), verdict)


def scores(comparison: "Comparison") -> Table:
    """One row per compared model or clinical score, with its metrics on the hold-out."""
    found = comparison.challenger
    rows: list[tuple[str, ...]] = [
        ("challenger", interval(found.auroc), interval(found.average_precision), interval(found.observed_expected))
    ]
    for name, other in (("champion", comparison.champion), ("first model", comparison.first)):
        if other:
            metrics = other.metrics
            intervals = (metrics.auroc, metrics.average_precision, metrics.observed_expected)
            rows.append((f"{name} (version {other.version})", *map(interval, intervals)))
    rows += [(name, interval(score.reference), "", "") for name, score in comparison.clinical.items()]
    headers = ("", "AUROC (95%)", "average precision (95%)", "observed / expected (95%)")
    return table_of(headers, rows, title=f"{comparison.rows:,} unseen encounters, {comparison.outcomes:,} readmissions")


def gate(checks: "Sequence[Check]") -> Table:
    """One row per rule of the gate, with estimate and limit."""
    return table_of(
        ("gate", "", "rule"), [(check.name, "yes" if check.passed else "NO", check.sentence) for check in checks]
    )


def promoted(report: Any) -> RenderableType:
    before = f"; version {report.previous} is kept for rollback" if report.previous else ""
    return f"version {report.version.version} of {report.version.name} is in production{before}{skipped(report)}"


def rolled_back(report: Any) -> RenderableType:
    version = report.version
    if report.skipped:
        return f"version {version.version} of {version.name} is in production: the rollback was done already"
    return f"version {version.version} of {version.name} is in production again; version {report.left} stays out"


def adopted(report: Any) -> RenderableType:
    said = "as this store's ledger says" if report.from_ledger else "as MLflow's alias said"
    return f"this store speaks for {report.version.name}; version {report.version.version} is in production, {said}"


def studied(report: Any) -> RenderableType:
    metrics = report.metrics
    named = {
        "AUROC": metrics.auroc,
        "average precision": metrics.average_precision,
        "Brier score": metrics.brier,
        "expected calibration error": metrics.ece,
        "observed / expected": metrics.observed_expected,
    }
    rows = [(name, interval(interval, 4)) for name, interval in named.items()]
    rows += [(f"AUROC of {name}", interval(score.reference, 4)) for name, score in report.clinical.items()]
    title = f"{TITLES[report.family]}, {report.protocol}, {metrics.rows:,} encounters"
    return labelled(report, table_of(("", "95% interval, patients resampled"), rows, title=title))


def status(report: Any) -> RenderableType:
    steps = table_of(("step", "done"), [(name, "yes" if done else "no") for name, done in report.steps.items()])
    found = report.production
    serving = f"version {found.version} (run {found.run_id}, bundle {found.sha256[:12]})" if found else "nothing"
    more = len(report.why) - SHOWN_REASONS
    lines = [
        *([f"simulation  {report.simulation}: nothing here is in production"] if report.simulation else []),
        f"storage     {report.storage}",
        f"tracking    {report.tracking_uri or 'nothing yet'}",
        f"production  {serving}",
        *(f"  because   {reason}" for reason in report.why[:SHOWN_REASONS]),
        *([f"            and {more} more rules that it passed (--json has them)"] if more > 0 else []),
        f"previous    {f'version {report.previous}' if report.previous else 'nothing'}",
        *([f"simulations {', '.join(report.simulations)}"] if report.simulations else []),
        *(f"PROBLEM     {problem}" for problem in report.problems),
    ]
    return Group(Text("\n".join(lines)), steps, decisions(report.decisions), Text(f"next: {report.advice}"))


def decisions(entries: "Iterable[Entry]") -> Table:
    rows = [(entry.at, entry.who, entry.decision, entry.production or "-", entry.subject.run_id) for entry in entries]
    return table_of(("decided", "by", "decision", "production", "run"), rows)
