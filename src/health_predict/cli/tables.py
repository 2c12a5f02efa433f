"""Renders the reports of steps as text and tables for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from health_predict.training.candidates import TITLES

if TYPE_CHECKING:  # a table needs no reader of what it shows, and some of these take seconds to import
    from health_predict.evaluation.gate import Check, Comparison
    from health_predict.evaluation.metrics import Interval
    from health_predict.monitoring.alarms import Alarm
    from health_predict.monitoring.follow_up import Effect
    from health_predict.simulation.replay import Replay, Row
    from health_predict.store.ledger import Entry
    from health_predict.store.monitoring_reports import Judged, MonitoringReport
    from health_predict.store.reports import BestModel, EvaluationReport, TrainingReport

SHOWN_REASONS = 8  # of a decision, in an overview
INVENTED = Text("INVENTED DATA: these numbers say nothing about patients.", style="bold red")


def fetched(report: Any) -> RenderableType:
    origin = "invented" if report.synthetic else "as published" if report.published else "NOT the published file"
    return _labelled(report, f"{report.key}: {report.rows:,} encounters, {origin}{_skipped(report)}")


def validated(report: Any) -> RenderableType:
    text = f"{report.accepted:,} of {report.rows:,} encounters accepted, {report.quarantined:,} in quarantine"
    if report.discharge_column:
        text += f"; {report.dated:,} have a day of discharge ({report.discharge_column})"
    findings = [f"  {finding.column}: {finding.reason} ({finding.rows:,} rows)" for finding in report.findings]
    return _labelled(report, "\n".join([text + _skipped(report), *findings]))


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
    table = _table(headers, rows)
    test = "enough" if report.gate_can_decide else "TOO LITTLE"
    gate = f"the test part is {test} for the gate to decide on"
    warnings = [f"WARNING: {warning}" for warning in report.warnings]
    return _labelled(report, f"{report.rows:,} encounters; {excluded}{_skipped(report)}", table, gate, *warnings)


def trained(report: "TrainingReport") -> RenderableType:
    at = ", ".join(f"{count} at step {step}" for step, count in report.stopped_at.items())
    early = f"{report.stopped} of {report.trials} trials stopped early" + (f" ({at})" if at else "")
    return _labelled(
        report,
        models(report.models, report.winner),
        f"{early}{_skipped(report)}\ntrained on {report.dataset}; the winner (*) is run {report.winner}",
    )


def models(found: "Iterable[BestModel]", winner: str) -> Table:
    """One row per family, with its metrics on the validation encounters; `*` marks the winner."""
    rows = [
        (
            ("* " if model.run_id == winner else "  ") + TITLES[model.family],
            _interval(model.metrics.auroc),
            _interval(model.metrics.average_precision),
            f"{model.metrics.brier.estimate:.4f}",
            f"{model.metrics.ece.estimate:.4f}",
            f"{model.onnx_difference:.0e}",
            model.run_id,
        )
        for model in found
    ]
    return _table(("family", "AUROC (95%)", "average precision (95%)", "Brier", "ECE", "ONNX differs by", "run"), rows)


def evaluated(report: "EvaluationReport") -> RenderableType:
    refused = [check for check in report.checks if not check.passed]
    verdict = "The gate would decline it." if refused else "The gate has no objection."
    subject = f"{TITLES[report.family]} of run {report.run_id}"
    against = f"against version {report.champion}" if report.champion else "with nothing in production yet"
    against += f"; question {report.comparison.look} to this hold-out" if report.comparison.look > 1 else ""
    against += "".join(f"; {seen:,} encounters left out, seen by {name}" for name, seen in report.left_out.items())
    return _labelled(report, f"{subject}, {against}", scores(report.comparison), gate(report.checks), verdict)


def scores(comparison: "Comparison") -> Table:
    """One row per compared model or clinical score, with its metrics on the hold-out."""
    found = comparison.challenger
    rows: list[tuple[str, ...]] = [
        ("challenger", _interval(found.auroc), _interval(found.average_precision), _interval(found.observed_expected))
    ]
    for name, other in (("champion", comparison.champion), ("first model", comparison.first)):
        if other:
            metrics = other.metrics
            intervals = (metrics.auroc, metrics.average_precision, metrics.observed_expected)
            rows.append((f"{name} (version {other.version})", *map(_interval, intervals)))
    rows += [(name, _interval(score.reference), "", "") for name, score in comparison.clinical.items()]
    headers = ("", "AUROC (95%)", "average precision (95%)", "observed / expected (95%)")
    return _table(headers, rows, title=f"{comparison.rows:,} unseen encounters, {comparison.outcomes:,} readmissions")


def gate(checks: "Sequence[Check]") -> Table:
    """One row per rule of the gate, with estimate and limit."""
    return _table(
        ("gate", "", "rule"), [(check.name, "yes" if check.passed else "NO", check.sentence) for check in checks]
    )


def promoted(report: Any) -> RenderableType:
    before = f"; version {report.previous} is kept for rollback" if report.previous else ""
    return f"version {report.version.version} of {report.version.name} is in production{before}{_skipped(report)}"


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
    rows = [(name, _interval(interval, 4)) for name, interval in named.items()]
    rows += [(f"AUROC of {name}", _interval(score.reference, 4)) for name, score in report.clinical.items()]
    title = f"{TITLES[report.family]}, {report.protocol}, {metrics.rows:,} encounters"
    return _labelled(report, _table(("", "95% interval, patients resampled"), rows, title=title))


def status(report: Any) -> RenderableType:
    steps = _table(("step", "done"), [(name, "yes" if done else "no") for name, done in report.steps.items()])
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
    return _table(("decided", "by", "decision", "production", "run"), rows)


def monitored(report: "MonitoringReport") -> RenderableType:
    """Reasons and notes; the last line is the status, for an orchestrator."""
    drift, predictions = report.drift, report.predictions
    lines = [
        f"{report.name}: {drift.rows:,} encounters against {drift.reference_rows:,} of version {report.version}",
        *(f"- {reason}" for reason in report.reasons),
        *(f"  {note}" for note in drift.notes),
        f"  AUROC estimated without outcomes {predictions.estimated_auroc:.3f}, "
        f"{predictions.flag_rate:.1%} flagged, told from the reference with AUROC {report.separation.auroc:.3f}",
    ]
    if len(report.batches) > 1:
        lines.append(f"  judged together, as they are small: batches {', '.join(map(str, report.batches))}")
    for count, where in ((report.left_out, ""), (report.reference_left_out, " of the reference")):
        if count:
            lines.append(f"  {count:,} encounters{where} ended in death or a hospice and are left out")
    lines += [line for judged in report.outcomes for line in _became(judged)]
    return _labelled(report, "\n".join([*lines, *_alarm(report.alarm)]), report.status)


def _alarm(alarm: "Alarm | None") -> list[str]:
    """Lines for new, worse, known and gone findings and for the advice; none without an alarm report."""
    if alarm is None:
        return []
    known: dict[str, list[str]] = {}
    for item in alarm.known:
        known.setdefault(item.since, []).append(item.text)
    lines = [
        "ALARM: there are new or worse findings" if alarm.raised else "no alarm: nothing of weight is new or worse"
    ]
    lines += [f"  new: {item.text}" for item in alarm.new]
    lines += [
        f"  worse ({item.before or 0:.2f} to {item.level:.2f}), known since {item.since}: {item.text}"
        for item in alarm.worse
    ]
    lines += [f"  known since {since}: {'; '.join(texts)}" for since, texts in known.items()]
    lines += [f"  gone: {item.text}" for item in alarm.gone]
    lines += [f"  {sentence}" for sentence in alarm.changed]
    return [*lines, *(f"  do: {sentence}" for sentence in alarm.advice)]


def _became(judged: "Judged") -> list[str]:
    """Lines for the performance on matured outcomes of a batch or file, and for the outcomes that are excluded."""
    whose = f"of batch {judged.batch}" if judged.batch else f"of {judged.rows:,} encounters"
    found = judged.performance
    numbers = f"AUROC {found.current.auroc}, O/E {found.current.observed_expected}" if found else "not judged"
    lines = [f"  outcomes {whose} under version {judged.version}: {numbers}"]
    if judged.unjudged:
        lines.append(f"    {judged.unjudged}")
    if judged.follow_up:
        lines.append(f"    {_without(judged.follow_up)}")
    if judged.left_out and not judged.batch:
        lines.append(f"    {judged.left_out:,} of those who died or went to a hospice are left out")
    if judged.seen:
        lines.append(f"    {judged.seen:,} encounters that version {judged.version} was trained on are left out")
    return lines


def _without(effect: "Effect") -> str:
    return f"judged on those not followed up, weighted to represent all. {effect} {_caveat()}"


def _caveat() -> str:
    from health_predict.data.follow_up import CAVEAT  # noqa: PLC0415  (polars takes a while to import)

    return CAVEAT


def judged(found: "Sequence[Judged]") -> RenderableType:
    """Performance on the outcomes of matured batches; the last line is the status."""
    lines = [line.strip() for one in found for line in (*_became(one), *(f"- {reason}" for reason in one.reasons))]
    known = any(one.performance for one in found)
    alarm = any(one.reasons for one in found)
    return Group("\n".join(lines), "DRIFT_DETECTED" if alarm else "NO_DRIFT" if known else "NOT_JUDGED")


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


def answers_judged(report: Any) -> RenderableType:
    lines = [
        f"{report.logged:,} answers: {report.waiting:,} wait for an outcome, {report.left_out:,} are about encounters "
        f"that ended in death or a hospice, {report.anonymous:,} came without an "
        f"encounter_id, {report.superseded:,} were given again, {report.seen:,} are of encounters that the version was "
        f"trained on, {report.untraceable:,} of a version that the store does not keep"
    ]
    for one in report.versions:
        found = one.metrics
        said = one.unjudged or (
            f"AUROC {_interval(found.auroc)}, observed / expected {_interval(found.observed_expected)}"
        )
        lines.append(f"version {one.version}, {one.rows:,} answers: {said}")
        if one.follow_up:
            lines.append(f"  {_without(one.follow_up)}")
    days = [
        (one.version, day.day, f"{day.rows:,}", f"{day.outcomes:,}", f"{day.expected:.1f}")
        for one in report.versions
        for day in one.days
    ]
    headers = ("version", "day", "answers", "readmitted", "expected")
    return Group("\n".join(lines), *([_table(headers, days)] if days else []))


def due(found: Any) -> RenderableType:
    """The reason; the last line is the due action."""
    about = "" if found.batch is None else f"batch {found.batch}: "
    return Group(found.reason, f"{about}{found.action or 'nothing'}")


def done(actions: Sequence[Any]) -> RenderableType:
    if not actions:
        return "nothing was due"
    return _table(
        ("batch", "action", "because"),
        [("" if one.batch is None else str(one.batch), one.action, one.reason) for one in actions],
    )


def decided(report: Any) -> RenderableType:
    reasons = [f"- {reason}" for reason in report.reasons]
    return Group(*reasons, f"batch {report.batch}, version {report.version}: {report.action}{_skipped(report)}")


def assembled(report: Any) -> RenderableType:
    batches = ", ".join(map(str, report.matured)) or "none"
    return _labelled(
        report,
        f"{report.dataset.name}: {report.train:,} encounters to train on, {report.validation:,} to tune and calibrate "
        f"on, {report.test:,} with {report.test_outcomes:,} readmissions to compare on{_skipped(report)}",
        f"from the initial data and batches {batches}; {report.left_out:,} others of patients in the latter two",
    )


def recalibrated(report: Any) -> RenderableType:
    return _labelled(
        report,
        f"run {report.run_id}: calibrated anew on {report.validation:,} encounters, intercept {report.intercept:+.3f}, "
        f"slope {report.slope:.3f}; {report.dataset.name} has {report.test:,} to compare on{_skipped(report)}",
    )


def batch_scored(report: Any) -> RenderableType:
    return f"batch {report.batch}: {report.rows:,} encounters scored with version {report.version}{_skipped(report)}"


def replayed(replay: "Replay") -> RenderableType:
    """One row per batch, then the means over batches."""
    rows = [_replayed_row(row) for row in replay.rows]
    headers = (
        "batch",
        "encounters",
        "monitor",
        "decision",
        "gate",
        "scored by",
        "AUROC",
        "never",
        "estimated",
        "O/E",
        "never",
    )
    means = [
        ("mean AUROC", replay.mean_auroc_retrained, replay.mean_auroc_never_retrained),
        ("mean |O/E - 1|", replay.mean_abs_oe_deviation, replay.mean_abs_oe_deviation_never_retrained),
    ]
    lines = [
        f"{name}: {first:.4f} retrained, {second:.4f} never retrained"
        for name, first, second in means
        if first is not None and second is not None
    ]
    counts = (
        f"{replay.alarms} alarms, {replay.new_alarms} of them for new or worse findings, {replay.retrainings} "
        f"retrainings, {replay.recalibrations} recalibrations, "
        f"{replay.promotions} promotions"
    )
    effects = [(row.batch, row.outcome.follow_up) for row in replay.rows if row.outcome and row.outcome.follow_up]
    lines += [counts, *(f"batch {batch}: {effect}" for batch, effect in effects), *([_caveat()] if effects else [])]
    return _labelled(replay, _table(headers, rows), "\n".join(lines))


def _replayed_row(row: "Row") -> tuple[str, ...]:
    if row.refused is not None:
        return (str(row.batch), "", "refused", *[""] * 8)
    if row.waits:
        return (str(row.batch), f"{row.rows:,}", "waits", "", "", row.version or "", *_quality(row))
    gate = f"version {row.promoted}" if row.promoted else "declined" if row.objections else ""
    monitor = "new" if row.raised else "known drift" if row.alarms else "no drift"
    return (str(row.batch), f"{row.rows:,}", monitor, row.action, gate, row.version or "", *_quality(row))


def _quality(row: "Row") -> tuple[str, ...]:
    found = row.outcome
    numbers = (
        (found.auroc, found.auroc_never_retrained, found.auroc_estimated, found.observed_expected,
         found.observed_expected_never_retrained)
        if found
        else ()
    )  # fmt: skip
    return tuple(f"{number:.3f}" for number in numbers) or ("",) * 5


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
    return _labelled(report, Text("\n".join(lines)))


def _by_field(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in counts.items())


def verified(log: Any) -> RenderableType:
    return f"{log.lines:,} lines, unbroken; head {log.head}"


def _labelled(report: Any, *parts: RenderableType) -> RenderableType:
    """The report below a warning, if the data are invented or the store is a simulation's."""
    labels = [INVENTED] if report.synthetic else []
    if simulation := getattr(report, "simulation", None):
        labels.append(Text(f"SIMULATION {simulation}: nothing of this is in production.", style="bold"))
    return Group(*labels, *parts)


def _skipped(report: Any) -> str:
    return " (was done already)" if report.skipped else ""


def _interval(interval: "Interval", decimals: int = 3) -> str:
    return f"{interval.estimate:.{decimals}f} ({interval.lower:.{decimals}f} to {interval.upper:.{decimals}f})"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    table = Table(*headers, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table
