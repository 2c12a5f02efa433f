"""Results of a replay, by batch and in total: retrained beside never retrained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from health_predict.evaluation.metrics import Interval, auroc, compare_auroc, evaluate
from health_predict.monitoring.follow_up import Effect
from health_predict.monitoring.performance import estimate_auroc
from health_predict.monitoring.retraining import Action
from health_predict.params import BootstrapParams

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Quality of one batch's scores. The difference is retrained minus never retrained, patients resampled.

    `alarms` are the monitor's reasons from outcomes. Under a scenario with follow-up, `follow_up` is its estimated
    effect, and all other numbers are about outcomes without follow-up, which only a simulation knows.
    """

    auroc: float
    auroc_never_retrained: float
    auroc_difference: Interval
    auroc_estimated: float  # estimated from the scores, without outcomes
    observed_expected: float
    observed_expected_never_retrained: float
    flag_rate: Interval
    recall: Interval  # the sensitivity: share of the readmitted that were flagged
    precision: Interval  # the positive predictive value: share of the flagged that were readmitted
    number_to_follow_up: Interval | None  # flagged for each readmission found; None where nothing can be said
    alarms: tuple[str, ...] = ()
    follow_up: Effect | None = None
    auroc_eligible: float | None = None  # of eligible index stays; None where they have no, or only, readmissions
    auroc_eligible_never_retrained: float | None = None

    @property
    def estimation_error(self) -> float:
        """AUROC estimated from the scores minus the realised AUROC."""
        return self.auroc_estimated - self.auroc


@dataclass(frozen=True)
class Row:
    """One batch of a replay, its steps in order.

    `refused`: why it did not fit the schema, and was not processed. `alarms` are the monitor's reasons; `raised`:
    whether the report raised an alarm; `new` and `known` (since when) are its findings in sentences. `distances` of the
    fields as in `FieldDrift`, `drifted` are the fields that drifted. `promoted` is the version that the remedy brought
    into production, `answered_meanwhile` the number of requests answered until the service had loaded it, `objections`
    the gate's reasons against the remedy. `version` scored the batch. `waits`: too few encounters have arrived, so they
    are monitored with a later batch. `unjudged`: why its outcomes could not be judged. `left_out` encounters ended in
    death or a hospice.
    """

    batch: int
    rows: int
    left_out: int = 0
    refused: str | None = None
    waits: bool = False
    alarms: tuple[str, ...] = ()
    raised: bool = False
    new: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    distances: dict[str, float] | None = None
    drifted: tuple[str, ...] = ()
    action: Action = "none"
    reasons: tuple[str, ...] = ()
    promoted: str | None = None
    answered_meanwhile: int | None = None
    objections: tuple[str, ...] = ()
    version: str | None = None
    outcome: Outcome | None = None
    unjudged: str | None = None


@dataclass(frozen=True)
class Replay:
    """A replay so far. Means are over the batches that were scored; None where there are none."""

    scenario: str
    from_batch: int
    synthetic: bool
    simulation: str | None  # name of the replay's world
    rows: tuple[Row, ...]
    mean_auroc_retrained: float | None
    mean_auroc_never_retrained: float | None
    mean_auroc_difference: float | None
    mean_auroc_eligible_retrained: float | None  # of eligible index stays
    mean_auroc_eligible_never_retrained: float | None
    mean_abs_oe_deviation: float | None
    mean_abs_oe_deviation_never_retrained: float | None
    mean_estimation_error: float | None  # AUROC estimated without outcomes minus realised
    mean_abs_estimation_error: float | None
    retrainings: int
    recalibrations: int
    promotions: int
    alarms: int
    new_alarms: int  # number of these that were raised: with new or worse findings of weight


def realised(
    y_true: NDArray[np.bool_],
    y_proba: Floats,
    never: Floats,
    patients: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    threshold: float,
    alarms: tuple[str, ...],
    bootstrap: BootstrapParams,
    follow_up: Effect | None = None,
) -> Outcome:
    """Compare the scores given with those of the version that was never retrained, each of shape (rows,).

    `eligible`: which rows are eligible index stays. The scores given were flagged from `threshold` on. Raises DataError
    as `metrics.evaluate` does.
    """
    observed = float(y_true.sum())
    found = evaluate(y_true, y_proba, patients, threshold, bootstrap)
    judged = 0 < y_true[eligible].sum() < eligible.sum()
    return Outcome(
        auroc=found.auroc.estimate,
        auroc_never_retrained=auroc(y_true, never),
        auroc_difference=compare_auroc(y_true, y_proba, never, patients, bootstrap).difference,
        auroc_estimated=estimate_auroc(y_proba),
        observed_expected=observed / float(y_proba.sum()),
        observed_expected_never_retrained=observed / float(never.sum()),
        flag_rate=found.flag_rate,
        recall=found.recall,
        precision=found.precision,
        number_to_follow_up=found.number_to_follow_up,
        auroc_eligible=auroc(y_true[eligible], y_proba[eligible]) if judged else None,
        auroc_eligible_never_retrained=auroc(y_true[eligible], never[eligible]) if judged else None,
        alarms=alarms,
        follow_up=follow_up,
    )


def summarise(scenario: str, from_batch: int, synthetic: bool, simulation: str | None, rows: Sequence[Row]) -> Replay:
    """Totals and means over the batches of a replay."""
    known = [row.outcome for row in rows if row.outcome is not None]
    retrained, never = [one.auroc for one in known], [one.auroc_never_retrained for one in known]
    return Replay(
        scenario=scenario,
        from_batch=from_batch,
        synthetic=synthetic,
        simulation=simulation,
        rows=tuple(rows),
        mean_auroc_retrained=_mean(retrained),
        mean_auroc_never_retrained=_mean(never),
        mean_auroc_difference=_mean([a - b for a, b in zip(retrained, never, strict=True)]),
        mean_auroc_eligible_retrained=_mean([one.auroc_eligible for one in known]),
        mean_auroc_eligible_never_retrained=_mean([one.auroc_eligible_never_retrained for one in known]),
        mean_abs_oe_deviation=_mean([abs(one.observed_expected - 1) for one in known]),
        mean_abs_oe_deviation_never_retrained=_mean([abs(one.observed_expected_never_retrained - 1) for one in known]),
        mean_estimation_error=_mean([one.estimation_error for one in known]),
        mean_abs_estimation_error=_mean([abs(one.estimation_error) for one in known]),
        retrainings=sum(row.action == "retrain" for row in rows),
        recalibrations=sum(row.action == "recalibrate" for row in rows),
        promotions=sum(row.promoted is not None for row in rows),
        alarms=sum(bool(row.alarms) for row in rows),
        new_alarms=sum(row.raised for row in rows),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
