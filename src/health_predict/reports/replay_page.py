"""The page of a replay: self-contained HTML, drawn with plotly."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from health_predict.data.follow_up import CAVEAT
from health_predict.evaluation.metrics import Interval
from health_predict.evaluation.operating_point import in_words
from health_predict.simulation.replay import Replay, Row

RETRAINED, NEVER, ESTIMATED = "#0072b2", "#d55e00", "#009e73"  # Okabe and Ito: distinct for the colour-blind
SHOWN_FIELDS = 25  # fields that drifted most


def page(replay: Replay) -> bytes:
    """HTML with quality by batch, a heat map of drift, and decisions with reasons. Loads nothing from outside."""
    title = f"Replay: {replay.scenario}" + (f" from batch {replay.from_batch} on" if replay.scenario != "none" else "")
    style = (files(__package__) / "pages" / "replay.css").read_text(encoding="utf-8")
    figures = [quality(replay.rows), drift(replay.rows)]
    drawn = [figure.to_html(full_html=False, include_plotlyjs=False) for figure in figures]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{style}</style><script>{get_plotlyjs()}</script></head><body>",
        f"<h1>{escape(title)}</h1>",
        '<p class="invented">Invented data: these numbers say nothing about patients.</p>' if replay.synthetic else "",
        f"<p>Simulation {escape(replay.simulation)}: nothing of this is in production.</p>"
        if replay.simulation
        else "",
        _summary(replay),
        "<h2>Quality of the answers</h2>",
        drawn[0],
        "<h2>Who was flagged</h2>",
        flagged(replay.rows),
        "<h2>How far each field moved</h2>",
        "<p>Distance from what the model in production was trained on; a dot marks what counts as drifted.</p>",
        drawn[1],
        "<h2>What was decided, and why</h2>",
        timeline(replay.rows),
        _caveat(replay),
        "</body></html>",
    ]
    return "\n".join(parts).encode()


def _caveat(replay: Replay) -> str:
    if not any(row.outcome and row.outcome.follow_up for row in replay.rows):
        return ""
    return f"<p>Outcomes are judged as they would have been without follow-up. {escape(CAVEAT)}</p>"


def quality(rows: Sequence[Row]) -> go.Figure:
    """AUROC and observed over expected by batch: retrained, never retrained, and estimated without outcomes."""
    known = [(row.batch, row.outcome) for row in rows if row.outcome is not None]
    batches = [batch for batch, _ in known]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, subplot_titles=("AUROC", "Observed / expected"))
    curves = [
        (1, "retrained", RETRAINED, [one.auroc for _, one in known], None),
        (1, "never retrained", NEVER, [one.auroc_never_retrained for _, one in known], None),
        (1, "estimated without outcomes", ESTIMATED, [one.auroc_estimated for _, one in known], "dot"),
        (2, "retrained", RETRAINED, [one.observed_expected for _, one in known], None),
        (2, "never retrained", NEVER, [one.observed_expected_never_retrained for _, one in known], None),
    ]
    for place, name, colour, values, dash in curves:
        line = {"color": colour, "dash": dash} if dash else {"color": colour}
        figure.add_scatter(
            x=batches, y=values, name=name, line=line, legendgroup=name, showlegend=place == 1, row=place, col=1
        )
    for row in rows:
        if row.promoted is not None:
            figure.add_vline(
                x=row.batch, line_width=1, line_dash="dash", line_color="#999", annotation_text=f"v{row.promoted}"
            )
    figure.add_hline(y=1, line_width=1, line_color="#999", row=2, col=1)
    figure.update_xaxes(title_text="batch", dtick=1, row=2, col=1)
    return figure.update_layout(template="simple_white", height=560, margin={"t": 40})


def flagged(rows: Sequence[Row]) -> str:
    """An HTML table with a line for each batch whose outcomes are known: the operating point, and eligible stays."""
    names = ("batch", "scored by", "flagged", "sensitivity", "positive predictive value", "flagged for each found",
             "in words", "AUROC, eligible index stays", "never retrained")  # fmt: skip
    lines = [
        (
            str(row.batch),
            f"version {row.version}",
            _share(found.flag_rate),
            _share(found.recall),
            _share(found.precision),
            _interval(found.number_to_follow_up),
            in_words(found.flag_rate.estimate, found.precision.estimate, found.recall.estimate),
            _number(found.auroc_eligible),
            _number(found.auroc_eligible_never_retrained),
        )
        for row in rows
        if (found := row.outcome)
    ]
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        f"<table><tr>{head}</tr>{body}</table><p>Intervals are of 95%, patients resampled. Eligible index stays ended "
        "neither with a transfer to acute care nor against medical advice.</p>"
    )


def _share(found: Interval) -> str:
    return f"{100 * found.estimate:.1f}% ({100 * found.lower:.1f} to {100 * found.upper:.1f})"


def _interval(found: Interval | None) -> str:
    return "-" if found is None else f"{found.estimate:.1f} ({found.lower:.1f} to {found.upper:.1f})"


def drift(rows: Sequence[Row]) -> go.Figure:
    """Heat map of drift: a line for each field, a column for each batch, the field that drifted most on top."""
    judged = [row for row in rows if row.distances]
    furthest = {
        field: max((row.distances or {}).get(field, 0.0) for row in judged)
        for field in (judged[0].distances or {} if judged else {})
    }
    fields = sorted(furthest, key=lambda field: furthest[field])[-SHOWN_FIELDS:]
    figure = go.Figure(
        go.Heatmap(
            x=[row.batch for row in judged],
            y=fields,
            z=[[(row.distances or {}).get(field) for row in judged] for field in fields],
            text=[["●" if field in row.drifted else "" for row in judged] for field in fields],
            texttemplate="%{text}",
            colorscale="Blues",
            colorbar={"title": "distance"},
        )
    )
    figure.update_xaxes(title_text="batch", dtick=1)
    return figure.update_layout(template="simple_white", height=140 + 20 * len(fields), margin={"l": 220, "t": 20})


def timeline(rows: Sequence[Row]) -> str:
    """An HTML table with a line for each batch."""
    names = ("batch", "encounters", "scored by", "monitor", "decision", "gate", "outcomes, once matured")
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"
    return f"<table>{head}{''.join(map(_line, rows))}</table>"


def _line(row: Row) -> str:
    if row.refused is not None:
        return f'<tr><td>{row.batch}</td><td colspan="6">Refused, not scored. {escape(row.refused)}</td></tr>'
    left_out = f" ({row.left_out:,} died or went to a hospice, left out)" if row.left_out else ""
    gate = f"version {escape(row.promoted)} promoted" if row.promoted else ""
    if row.answered_meanwhile:
        gate += f"; {row.answered_meanwhile:,} requests were answered until the service had it"
    if row.objections:
        gate = f"declined {_listed(row.objections)}"
    cells = [
        str(row.batch),
        f"{row.rows:,}{left_out}",
        f"version {escape(row.version or '-')}",
        _monitor(row),
        f"<b>{escape(row.action)}</b> {_listed(row.reasons)}",
        gate,
        _became(row),
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _monitor(row: Row) -> str:
    """HTML of a batch's findings, the new ones marked."""
    if row.waits:
        return "waits for more encounters"
    parts = [_listed(row.alarms) if row.alarms else "no drift"]
    parts += [f"<b>{'New alarm' if row.raised else 'New, no alarm'}</b> {_listed(row.new)}"] if row.new else []
    parts += [f"<details><summary>Known</summary>{_listed(row.known)}</details>"] if row.known else []
    return " ".join(parts)


def _became(row: Row) -> str:
    if row.unjudged is not None:
        return f"not judged: {escape(row.unjudged)}"
    if row.outcome is None:
        return "not matured yet"
    found = row.outcome
    parts = [f"AUROC {found.auroc:.3f}, O/E {found.observed_expected:.2f}"]
    parts += [f"without follow-up. {escape(str(found.follow_up))}"] if found.follow_up else []
    return " ".join([*parts, *([_listed(found.alarms)] if found.alarms else [])])


def _listed(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _summary(replay: Replay) -> str:
    rows = [
        ("mean AUROC", replay.mean_auroc_retrained, replay.mean_auroc_never_retrained),
        (
            "mean AUROC, eligible index stays",
            replay.mean_auroc_eligible_retrained,
            replay.mean_auroc_eligible_never_retrained,
        ),
        ("mean |observed / expected - 1|", replay.mean_abs_oe_deviation, replay.mean_abs_oe_deviation_never_retrained),
    ]
    lines = "".join(
        f'<tr><td>{name}</td><td class="number">{_number(first)}</td><td class="number">{_number(second)}</td></tr>'
        for name, first, second in rows
    )
    counts = (
        f"{len(replay.rows)} batches, {replay.alarms} alarms, {replay.new_alarms} of them for new or worse findings, "
        f"{replay.retrainings} retrainings, "
    )
    return (
        f"<p>{counts}{replay.recalibrations} recalibrations, {replay.promotions} promotions.</p>{_estimation(replay)}"
        f"<table><tr><th></th><th>retrained</th><th>never retrained</th></tr>{lines}</table>"
    )


def _estimation(replay: Replay) -> str:
    if replay.mean_estimation_error is None or replay.mean_abs_estimation_error is None:
        return ""
    return (
        "<p>AUROC estimated without outcomes was off the realised one by "
        f"{replay.mean_abs_estimation_error:.3f} on average (mean {replay.mean_estimation_error:+.3f}).</p>"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
