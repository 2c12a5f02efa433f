"""Divides a report's findings into new, worse and known; an alarm is raised for new and worse ones.

The status of a report says whether a batch differs from the champion's reference. A stream that has changed for good
differs in every batch, and nobody reads a status that never changes. So each report is taken apart into measures that
are comparable between reports, and an alarm is raised for findings that no earlier report told of.

Earlier reports are those under the same champion. Reports under other versions count for findings about inputs only,
and only where the champion was fitted on the same encounters (a recalibration) or trained on the reported batches. So a
new champion makes a finding new again only where it did not learn from the batches that showed it. Findings about
scores and outcomes belong to one champion: none is known before its first report.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot

from scipy.stats import norm

from health_predict.monitoring.measures import Key, Kind, Measure
from health_predict.params import AlarmParams, Params

# Findings about inputs, which do not depend on the model.
INPUTS: frozenset[Kind] = frozenset({"field", "missing", "unknown", "combinations"})

ADVICE: Mapping[Kind, str] = {
    "field": "Find out whether other patients came or the same are recorded otherwise (report.html shows the values): "
    "what is recorded otherwise is corrected at its source; for other patients, wait for what outcomes say.",
    "missing": "Ask who delivers the field why it is empty, and score these encounters again once it is delivered.",
    "unknown": "Ask whether the coding system changed: translate the codes, or retrain once encounters with the new "
    "ones have matured.",
    "combinations": "No single field says why: compare how encounters come in (sites, wards, extracts) with what the "
    "model was trained on, and look at outcomes as soon as they mature.",
    "scores": "Read it with the fields that drifted: expect other flags than planned, and check calibration when "
    "outcomes mature.",
    "flag_rate": "Tell the care team how many to expect; the next version flags their capacity again, or another one "
    "with `health-predict train --capacity`.",
    "estimated_auroc": "Wait for outcomes: this is what the scores promise, not what happened, and never retrains.",
    "auroc": "See what `health-predict loop decide` said of this batch: a fall that comes again, or is beyond doubt, "
    "retrains. Until then, flags find fewer of the readmissions.",
    "observed_expected": "Do not read risks as probabilities until a recalibration is promoted, which `health-predict "
    "loop decide` asks for if this comes again; the order of patients is not affected.",
    "calibration_slope": "Do not read very high or very low risks as they stand until a recalibration is promoted, "
    "which `health-predict loop decide` asks for if this comes again.",
}


@dataclass(frozen=True)
class Watched:
    """The measures of one report, in any order.

    `name` of the report in a sentence ("batch 3"), `batches` that it covers (none: a file). `trained_on` is the SHA-256
    of the table that `version` was fitted on, `learnt` are the batches that had matured when that table was assembled.
    """

    name: str
    version: str
    trained_on: str
    batches: tuple[int, ...]
    learnt: tuple[int, ...]
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Item:
    """One finding. `level` is that of `Measure`; `before` is the level at which it was last reported as new or worse
    (None: it is new). `since` is the name of the report that told of it first."""

    kind: Kind
    subject: str
    level: float
    since: str
    before: float | None
    text: str


@dataclass(frozen=True)
class Alarm:
    """A report's findings, each in one of `new`, `worse` and `known`, the heaviest first.

    `raised`: whether somebody should look. As for the status, one drifted field is not enough: the fields that drifted
    since the last alarm must together carry `DriftParams.min_importance` of the model's reliance. `gone` are known
    findings that are now below their limit by more than noise. `changed` has sentences that compare with the previous
    report, under any version. `advice` has a sentence for each kind of finding that is new or worse.
    """

    raised: bool
    new: tuple[Item, ...]
    worse: tuple[Item, ...]
    known: tuple[Item, ...]
    gone: tuple[Item, ...]
    changed: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class _Standing:
    """What earlier reports told of a finding; `told`: whether in an alarm that was raised."""

    since: str
    level: float
    error: float
    told: bool


def news(report: Watched, earlier: Sequence[Watched], params: Params) -> Alarm:
    """The alarm of a report, given the `earlier` ones, oldest first. The order of measures does not matter."""
    standing: dict[Key, _Standing] = {}
    for one in earlier:
        standing, _ = _told(standing, one.name, _comparable(one, report), params)
    _, alarm = _told(standing, report.name, report.measures, params)
    return Alarm(
        raised=alarm.raised,
        new=alarm.new,
        worse=alarm.worse,
        known=alarm.known,
        gone=alarm.gone,
        changed=_changed(report, earlier[-1]) if earlier else (),
        advice=alarm.advice,
    )


def _comparable(one: Watched, report: Watched) -> tuple[Measure, ...]:
    """Measures of the earlier report `one` that count as known under the champion of `report`."""
    if one.version == report.version:
        return one.measures
    alike = bool(one.trained_on) and one.trained_on == report.trained_on
    if alike or (one.batches and set(one.batches) <= set(report.learnt)):
        return tuple(measure for measure in one.measures if measure.kind in INPUTS)
    return ()


def _told(
    before: Mapping[Key, _Standing], name: str, found: Iterable[Measure], params: Params
) -> tuple[dict[Key, _Standing], Alarm]:
    """The findings told up to and including this report, and this report's alarm."""
    in_order = sorted(found, key=lambda one: (-one.weight, one.key))
    fresh = [one for one in in_order if one.found and _is_fresh(one, before.get(one.key), params.alarms)]
    stays = [one for one in in_order if one.found and one not in fresh]
    gone = [one for one in in_order if one.key in before and _is_gone(one, params.alarms)]
    untold = sum(one.weight for one in (*fresh, *(one for one in stays if not before[one.key].told)))
    raised = any(one.weight > 0 for one in fresh) and untold >= params.drift.min_importance
    after = dict(before)
    for one in gone:
        del after[one.key]
    for one in stays:
        old = before[one.key]
        after[one.key] = _Standing(old.since, old.level, old.error, old.told or raised)
    for one in fresh:
        since = before[one.key].since if one.key in before else name
        after[one.key] = _Standing(since, one.level, one.error, raised)
    alarm = Alarm(
        raised=raised,
        new=tuple(_item(one, name, None) for one in fresh if one.key not in before),
        worse=tuple(_item(one, before[one.key].since, before[one.key].level) for one in fresh if one.key in before),
        known=tuple(_item(one, before[one.key].since, before[one.key].level) for one in stays),
        gone=tuple(_item(one, before[one.key].since, before[one.key].level) for one in gone),
        changed=(),
        advice=tuple(sentence for kind, sentence in ADVICE.items() if any(one.kind == kind for one in fresh)),
    )
    return after, alarm


def _is_fresh(found: Measure, before: _Standing | None, params: AlarmParams) -> bool:
    """Whether a finding is new, or has grown since it was last told by more than the allowed growth and its noise."""
    if before is None:
        return True
    noise = _certain(params) * hypot(found.error, before.error)
    return found.level - before.level > max(params.growth * found.limit, noise)


def _is_gone(found: Measure, params: AlarmParams) -> bool:
    """Whether a measure is no finding and below its limit by more than noise; near its limit it stays known."""
    return not found.found and found.level < found.limit - _certain(params) * found.error


def _certain(params: AlarmParams) -> float:
    return float(norm.ppf(params.certainty))


def _item(found: Measure, since: str, before: float | None) -> Item:
    return Item(found.kind, found.subject, found.level, since, before, found.text)


def _changed(report: Watched, last: Watched) -> tuple[str, ...]:
    """Sentences on findings that came or went since the previous report, of measures that both reports have."""
    now, then = ({one.key: one for one in watched.measures} for watched in (report, last))
    both = sorted(now.keys() & then.keys())
    came = [_called(key) for key in both if now[key].found and not then[key].found]
    went = [_called(key) for key in both if then[key].found and not now[key].found]
    sentences = []
    if report.version != last.version:
        sentences.append(f"Version {report.version} is in production; {last.name} met version {last.version}.")
    if came:
        sentences.append(f"Not found in {last.name}: {', '.join(came)}.")
    if went:
        sentences.append(f"Found in {last.name}, and not here: {', '.join(went)}.")
    return tuple(sentences)


def _called(key: Key) -> str:
    kind, subject = key
    return subject if kind == "field" else f"{kind.replace('_', ' ')} {subject}".rstrip()
