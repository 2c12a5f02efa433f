"""What a replay showed: batch by batch, retrained beside never retrained, and the sum of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from health_predict.evaluation.metrics import Interval, auroc, compare_auroc
from health_predict.monitoring.follow_up import Effect
from health_predict.monitoring.performance import estimate_auroc
from health_predict.monitoring.retraining import Action
from health_predict.params import BootstrapParams

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Quality of one batch's answers. The difference is retrained minus never retrained, patients resampled.

    `alarms` are the monitor's reasons about them. Where the scenario has patients followed up, `follow_up` is what that
    seems to have done, and all else is judged on what would have become of everybody without, which only a simulation
    knows.
    """

    auroc: float
    auroc_never_retrained: float
    auroc_difference: Interval
    auroc_estimated: float  # from the scores alone, without outcomes
    observed_expected: float
    observed_expected_never_retrained: float
    alarms: tuple[str, ...] = ()
    follow_up: Effect | None = None

    @property
    def estimation_error(self) -> float:
        """How far the AUROC that the scores promised was above the realised one."""
        return self.auroc_estimated - self.auroc


@dataclass(frozen=True)
class Row:
    """One batch of a replay, in the order of what happened to it.

    `refused`: why it did not fit the schema, and nothing else happened. `alarms` are the monitor's reasons; `raised`:
    some of them are news, `new` and `known` (since when) are its findings in sentences. `distances`
    of the fields those of `FieldDrift`, `drifted` the fields that count as drifted. `promoted` is the version that
    the remedy brought into production, `answered_meanwhile` how many requests the service answered until it had taken
    it up, `objections` why the gate let none in. `version` scored the batch. `waits`: too few encounters have arrived
    to be judged, so they are judged with a later batch. `unjudged`: why its outcomes could not be. `left_out`
    encounters ended in death or a hospice.
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
    simulation: str | None  # name of the world that it is about
    rows: tuple[Row, ...]
    mean_auroc_retrained: float | None
    mean_auroc_never_retrained: float | None
    mean_auroc_difference: float | None
    mean_abs_oe_deviation: float | None
    mean_abs_oe_deviation_never_retrained: float | None
    mean_estimation_error: float | None  # AUROC estimated without outcomes minus realised
    mean_abs_estimation_error: float | None
    retrainings: int
    recalibrations: int
    promotions: int
    alarms: int
    new_alarms: int  # of them those with a finding of weight that is new or worse


def realised(
    y_true: NDArray[np.bool_],
    y_proba: Floats,
    never: Floats,
    patients: NDArray[np.int64],
    alarms: tuple[str, ...],
    bootstrap: BootstrapParams,
    follow_up: Effect | None = None,
) -> Outcome:
    """Compare what was answered with what the version that was never retrained would have answered. DataError."""
    observed = float(y_true.sum())
    return Outcome(
        auroc=auroc(y_true, y_proba),
        auroc_never_retrained=auroc(y_true, never),
        auroc_difference=compare_auroc(y_true, y_proba, never, patients, bootstrap).difference,
        auroc_estimated=estimate_auroc(y_proba),
        observed_expected=observed / float(y_proba.sum()),
        observed_expected_never_retrained=observed / float(never.sum()),
        alarms=alarms,
        follow_up=follow_up,
    )


def summarise(scenario: str, from_batch: int, synthetic: bool, simulation: str | None, rows: Sequence[Row]) -> Replay:
    """Add up the batches of a replay."""
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


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
