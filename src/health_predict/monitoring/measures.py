"""Measurements of a monitoring report, as numbers comparable between reports: the larger, the worse."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log, sqrt
from typing import Literal

from scipy.stats import norm

from health_predict.evaluation.metrics import Interval
from health_predict.monitoring.drift import Drift, FieldDrift, lost, matters, recoded
from health_predict.monitoring.performance import Performance, PredictionDrift
from health_predict.monitoring.separation import Separation
from health_predict.params import Params

Kind = Literal[
    "field",
    "missing",
    "unknown",
    "combinations",
    "scores",
    "flag_rate",
    "estimated_auroc",
    "auroc",
    "observed_expected",
    "calibration_slope",
]
Key = tuple[Kind, str]


@dataclass(frozen=True)
class Measure:
    """One measurement of a report; `found`: whether it is a finding.

    `subject` is a field, or a direction for two-sided measures. The larger `level`, the worse; from `limit` on it can
    be a finding. `error` is the standard error of `level` from sampling the batch's patients. `weight` is the share of
    the model's reliance for a drifted field, 1 for a reason for an alarm by itself, 0 for a note. `text` is the finding
    as a phrase with its numbers.
    """

    kind: Kind
    subject: str
    level: float
    limit: float
    error: float
    found: bool
    weight: float
    text: str

    @property
    def key(self) -> Key:
        return self.kind, self.subject


def measures(
    drift: Drift,
    separation: Separation,
    predictions: PredictionDrift,
    outcomes: Iterable[tuple[str, Performance]],
    params: Params,
) -> tuple[Measure, ...]:
    """All measures of a report. `outcomes`: performance of the version in production, each with its patients' name.

    Of several performances the worst value of a measure counts, findings before others.
    """
    realised: dict[Key, Measure] = {}
    for whose, performance in outcomes:
        for one in _realised(whose, performance, params):
            other = realised.get(one.key)
            if other is None or (one.found, one.level) > (other.found, other.level):
                realised[one.key] = one
    fields = (one for field in drift.fields for one in _field(field, drift.rows, params))
    return (*fields, _combinations(separation, params), *_promised(predictions, params), *realised.values())


def _field(field: FieldDrift, rows: int, params: Params) -> tuple[Measure, ...]:
    drift, name = params.drift, field.field
    deviation = sqrt(drift.design_effect / rows)
    weight = float(matters(field, drift))
    role = "administrative" if field.administrative else f"{field.importance:.0%} of the model's reliance"
    risen = field.missing - field.missing_reference
    return (
        Measure(
            kind="field",
            subject=name,
            level=field.effect,
            limit=drift.min_effect,
            error=deviation,  # standard error of a Wasserstein distance in standard deviations, and of Cohen's w
            found=field.drifted,
            weight=0.0 if field.administrative else field.importance,
            text=f"{name} (effect {field.effect:.2f}, {role})",
        ),
        Measure(
            kind="missing",
            subject=name,
            level=risen,
            limit=drift.max_missing_rise,
            error=deviation * sqrt(field.missing * (1 - field.missing)),
            found=lost(field, drift),
            weight=weight,
            text=f"{name} missing in {field.missing:.0%} of encounters, in training {field.missing_reference:.0%}",
        ),
        Measure(
            kind="unknown",
            subject=name,
            level=field.unknown,
            limit=drift.max_unknown,
            error=deviation * sqrt(field.unknown * (1 - field.unknown)),
            found=recoded(field, drift),
            weight=weight,
            text=f"{name} with {field.unknown:.0%} of values never seen in training",
        ),
    )


def _combinations(found: Separation, params: Params) -> Measure:
    return Measure(
        kind="combinations",
        subject="",
        level=found.auroc - 0.5,
        limit=found.threshold - 0.5,
        error=sqrt(params.drift.design_effect / (3 * found.rows)),  # of an AUROC with equal numbers on both sides
        found=found.detected,
        weight=1.0,
        text=f"told from the training encounters with AUROC {found.auroc:.3f}",
    )


def _promised(found: PredictionDrift, params: Params) -> tuple[Measure, ...]:
    """Measures of the scores, without outcomes."""
    variance = params.drift.design_effect / found.rows
    least = 1 / found.rows
    flagged, planned = max(found.flag_rate, least), max(found.flag_rate_planned, least)
    flags = f"{found.flag_rate:.1%} of encounters flagged, planned {found.flag_rate_planned:.1%}"
    error, limit = sqrt(variance * (1 - min(flagged, 1.0)) / flagged), log(params.performance.max_flag_rate_ratio)
    ratio, off = log(flagged / planned), "flag_rate" in found.alarms
    fall = found.estimated_auroc_reference - found.estimated_auroc
    return (
        Measure(
            kind="scores",
            subject="",
            level=found.psi,
            limit=params.performance.max_score_psi,
            error=2 * sqrt(max(found.psi, 0.0) * variance),  # the index is about the square of Cohen's w
            found="scores" in found.alarms,
            weight=1.0,
            text=f"stability index of scores {found.psi:.2f}, mean {found.mean:.3f}, was {found.mean_reference:.3f}",
        ),
        Measure("flag_rate", "more", ratio, limit, error, off and ratio > 0, 1.0, flags),
        Measure("flag_rate", "fewer", -ratio, limit, error, off and ratio < 0, 1.0, flags),
        Measure(
            kind="estimated_auroc",
            subject="",
            level=fall,
            limit=params.performance.max_estimated_auroc_fall,
            error=params.alarms.estimate_error,
            found="estimated_auroc" in found.alarms,
            weight=1.0,
            text=f"AUROC estimated from scores {found.estimated_auroc:.3f}, was {found.estimated_auroc_reference:.3f}",
        ),
    )


def _realised(whose: str, found: Performance, params: Params) -> tuple[Measure, ...]:
    """Measures of the performance on outcomes."""
    current, limits = found.current, params.performance
    width = float(norm.ppf(0.5 + params.bootstrap.level / 2))
    fall = Measure(
        kind="auroc",
        subject="",
        level=-found.auroc_change.estimate,
        limit=limits.max_auroc_fall,
        error=(found.auroc_change.upper - found.auroc_change.lower) / (2 * width),
        found="auroc" in found.alarms,
        weight=1.0,
        text=f"AUROC {current.auroc}{whose}, {found.reference.auroc.estimate:.3f} at approval",
    )
    return (
        fall,
        *_two_sided(
            "observed_expected",
            current.observed_expected,
            limits.observed_expected,
            width,
            "observed_expected" in found.alarms,
            f"observed/expected {current.observed_expected}{whose}, "
            f"{found.reference.observed_expected.estimate:.2f} at approval",
        ),
        *(
            _two_sided(
                "calibration_slope",
                current.calibration_slope,
                limits.calibration_slope,
                width,
                "calibration_slope" in found.alarms,
                f"calibration slope {current.calibration_slope}{whose}",
            )
            if current.calibration_slope is not None
            else ()
        ),
    )


def _two_sided(
    kind: Kind, value: Interval, bounds: tuple[float, float], width: float, off: bool, text: str
) -> tuple[Measure, ...]:
    """Two measures of a ratio that should be 1, one for each direction, in logarithms."""
    estimate = max(value.estimate, 1e-9)
    level, error = log(estimate), (value.upper - value.lower) / (2 * width * estimate)
    return (
        Measure(kind, "above 1", level, log(bounds[1]), error, off and level > 0, 1.0, text),
        Measure(kind, "below 1", -level, -log(bounds[0]), error, off and level < 0, 1.0, text),
    )
