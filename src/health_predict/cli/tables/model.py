"""What the commands about models print."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from health_predict.cli.tables.parts import interval, labelled, share, skipped, table_of
from health_predict.training.candidates import TITLES

if TYPE_CHECKING:  # a table needs no reader of what it shows, and some of these take seconds to import
    from health_predict.evaluation.gate import Comparison
    from health_predict.evaluation.metrics import Metrics
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


def _why(models: "Sequence[BestModel]") -> str:
    """Why the first of a training's models is its winner, and whether the next one is as good."""
    first = models[0]
    said = f"{TITLES[first.family]} has the lowest Brier score on the validation encounters, which is what decides"
    if len(models) == 1:
        return f"{said}; it is the only one."
    behind = models[1].brier_behind
    if behind is None:
        return f"{said}."
    beyond = "the interval is above 0" if behind.lower > 0 else "a tie: the interval contains 0"
    return (
        f"{said}. That of {TITLES[models[1].family]}, the next, is {behind.estimate:.5f} higher "
        f"(95%: {behind.lower:+.5f} to {behind.upper:+.5f}): {beyond}."
    )


def models(found: "Sequence[BestModel]", winner: str) -> Group:
    """One row per family, with its metrics on the validation encounters; `*` marks the winner. Then why it is."""
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
    headers = ("family", "AUROC (95%)", "average precision (95%)", "Brier", "ECE", "ONNX differs by", "run")
    return Group(table_of(headers, rows), _why(found))


def evaluated(report: "EvaluationReport") -> RenderableType:
    refused = [check for check in report.checks if not check.passed]
    verdict = "The gate would decline it." if refused else "The gate has no objection."
    subject = f"{TITLES[report.family]} of run {report.run_id}"
    against = f"against version {report.champion}" if report.champion else "with nothing in production yet"
    against += f"; question {report.comparison.look} to this hold-out" if report.comparison.look > 1 else ""
    against += "".join(f"; {seen:,} encounters left out, seen by {name}" for name, seen in report.left_out.items())
    return labelled(
        report,
        f"{subject}, {against}",
        scores(report),
        gate(report),
        verdict,
    )


def scores(report: "EvaluationReport") -> Group:
    """Metrics on the hold-out, who is flagged, in numbers and in words, and metrics by subgroup."""
    found = report.comparison
    return Group(_ranks(found), _flagged(found), report.operating_point, _subgroups(found))


def _ranks(comparison: "Comparison") -> Table:
    """One row per compared model or clinical score, with its metrics on the hold-out."""
    rows: list[tuple[str, ...]] = [
        (name, interval(found.auroc), interval(found.average_precision), interval(found.observed_expected))
        for name, found in _measured(comparison)
    ]
    rows += [(name, interval(score.reference), "", "") for name, score in comparison.clinical.items()]
    headers = ("", "AUROC (95%)", "average precision (95%)", "observed / expected (95%)")
    return table_of(headers, rows, title=_compared(comparison))


def _flagged(comparison: "Comparison") -> Table:
    """One row per compared model, with who is flagged at its threshold and who of them is readmitted."""
    rows = [
        (
            name,
            share(found.flag_rate),
            share(found.recall),
            share(found.precision),
            interval(found.number_to_follow_up, 1) if found.number_to_follow_up else "",
        )
        for name, found in _measured(comparison)
    ]
    headers = ("", "flagged (95%)", "sensitivity (95%)", "PPV (95%)", "to follow up for one found (95%)")
    capacity = "" if comparison.capacity is None else f", for a capacity of {comparison.capacity:.0%} of discharges"
    return table_of(headers, rows, title=f"Who is flagged{capacity}")


def _subgroups(comparison: "Comparison") -> Table:
    """One row per subgroup; those too small to judge with their counts alone."""
    rows = [
        (
            f"{one.attribute} {one.group}",
            f"{one.rows:,}",
            f"{one.outcomes:,}",
            interval(one.auroc) if one.auroc else "too few readmissions to judge",
            interval(one.auroc_difference) if one.auroc_difference else "",
            share(one.flag_rate) if one.flag_rate else "",
            share(one.precision) if one.precision else "",
        )
        for one in comparison.subgroups
    ]
    headers = (
        "subgroup",
        "encounters",
        "readmitted",
        "AUROC (95%)",
        "minus champion (95%)",
        "flagged (95%)",
        "PPV (95%)",
    )
    return table_of(headers, rows)


def _measured(comparison: "Comparison") -> "Iterator[tuple[str, Metrics]]":
    """The compared models with their metrics: on all stays, then on eligible index stays."""
    yield "challenger", comparison.challenger
    for name, other in (("champion", comparison.champion), ("first model", comparison.first)):
        if other:
            yield f"{name} (version {other.version})", other.metrics
    found = comparison.eligible
    if found and found.challenger:
        yield "challenger, eligible index stays", found.challenger
    if found and found.champion:
        yield f"champion (version {found.champion.version}), eligible index stays", found.champion.metrics


def _compared(comparison: "Comparison") -> str:
    told = f"{comparison.rows:,} unseen encounters, {comparison.outcomes:,} readmissions"
    found = comparison.eligible
    return told if found is None else f"{told}; {found.rows:,} eligible index stays, {found.outcomes:,} readmissions"


def gate(report: "EvaluationReport") -> Group:
    """One row per rule of the gate, with estimate and limit; then whether the challenger is better, or a tie."""
    rows = [(check.name, "yes" if check.passed else "NO", check.sentence) for check in report.checks]
    return Group(table_of(("gate", "", "rule"), rows), report.stance)


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
    parts = (report.metrics, report.eligible)
    named = {
        "AUROC": "auroc",
        "average precision": "average_precision",
        "Brier score": "brier",
        "expected calibration error": "ece",
        "observed / expected": "observed_expected",
        "flagged": "flag_rate",
        "sensitivity": "recall",
        "positive predictive value": "precision",
    }
    rows = [(name, *(interval(getattr(part, metric), 4) for part in parts)) for name, metric in named.items()]
    rows += [(f"AUROC of {name}", interval(score.reference, 4), "") for name, score in report.clinical.items()]
    counts = [
        f"{name}, {part.rows:,} (95%)" for name, part in zip(("all stays", "eligible index stays"), parts, strict=True)
    ]
    title = f"{TITLES[report.family]}, {report.protocol}"
    return labelled(report, table_of(("", *counts), rows, title=title), report.operating_point)


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
