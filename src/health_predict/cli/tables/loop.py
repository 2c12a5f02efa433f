"""What the commands of the loop print."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from health_predict.cli.tables.parts import interval, labelled, number, share, skipped, table_of

if TYPE_CHECKING:  # a table needs no reader of what it shows, and some of these take seconds to import
    from health_predict.monitoring.alarms import Alarm
    from health_predict.monitoring.follow_up import Effect
    from health_predict.simulation.replay import Replay, Row
    from health_predict.store.monitoring_reports import Judged, MonitoringReport


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
    return labelled(report, "\n".join([*lines, *_alarm(report.alarm)]), report.status)


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
    if found:
        lines.append(f"    {found.current.operating_point}")
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
            f"AUROC {interval(found.auroc)}, observed / expected {interval(found.observed_expected)}. "
            f"{found.operating_point}"
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
    return Group("\n".join(lines), *([table_of(headers, days)] if days else []))


def due(found: Any) -> RenderableType:
    """The reason; the last line is the due action."""
    about = "" if found.batch is None else f"batch {found.batch}: "
    return Group(found.reason, f"{about}{found.action or 'nothing'}")


def done(actions: Sequence[Any]) -> RenderableType:
    if not actions:
        return "nothing was due"
    return table_of(
        ("batch", "action", "because"),
        [("" if one.batch is None else str(one.batch), one.action, one.reason) for one in actions],
    )


def decided(report: Any) -> RenderableType:
    reasons = [f"- {reason}" for reason in report.reasons]
    return Group(*reasons, f"batch {report.batch}, version {report.version}: {report.action}{skipped(report)}")


def assembled(report: Any) -> RenderableType:
    batches = ", ".join(map(str, report.matured)) or "none"
    return labelled(
        report,
        f"{report.dataset.name}: {report.train:,} encounters to train on, {report.validation:,} to tune and calibrate "
        f"on, {report.test:,} with {report.test_outcomes:,} readmissions to compare on{skipped(report)}",
        f"from the initial data and batches {batches}; {report.left_out:,} others of patients in the latter two",
    )


def recalibrated(report: Any) -> RenderableType:
    return labelled(
        report,
        f"run {report.run_id}: calibrated anew on {report.validation:,} encounters, intercept {report.intercept:+.3f}, "
        f"slope {report.slope:.3f}; {report.dataset.name} has {report.test:,} to compare on{skipped(report)}",
    )


def batch_scored(report: Any) -> RenderableType:
    return f"batch {report.batch}: {report.rows:,} encounters scored with version {report.version}{skipped(report)}"


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
        (
            "mean AUROC, eligible index stays",
            replay.mean_auroc_eligible_retrained,
            replay.mean_auroc_eligible_never_retrained,
        ),
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
    return labelled(replay, table_of(headers, rows), flagged(replay.rows), "\n".join(lines))


def flagged(rows: "Sequence[Row]") -> Table:
    """One row per batch whose outcomes are known: who was flagged and found, and AUROC on eligible index stays."""
    headers = (
        "batch",
        "scored by",
        "flagged (95%)",
        "sensitivity (95%)",
        "PPV (95%)",
        "to follow up for one found (95%)",
        "AUROC, eligible stays",
        "never",
    )
    lines = [
        (
            str(row.batch),
            row.version or "",
            share(found.flag_rate),
            share(found.recall),
            share(found.precision),
            interval(found.number_to_follow_up, 1) if found.number_to_follow_up else "",
            number(found.auroc_eligible),
            number(found.auroc_eligible_never_retrained),
        )
        for row in rows
        if (found := row.outcome)
    ]
    return table_of(headers, lines)


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
