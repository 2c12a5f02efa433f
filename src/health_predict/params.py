"""Every choice that shapes a result, with its unit and its reason.

Places and secrets are in `settings.py`. A class here is handed to the function that needs it; nothing
reads a parameter from a global.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Target = Literal["lt30", "any"]
Protocol = Literal["grouped-cv", "chronological"]
Encoding = Literal["target", "one_hot"]  # how categories become numbers (features/preprocessor.py)
Family: TypeAlias = str  # name of a model family; training/candidates.py has them

LIVE_TARGET: Target = "lt30"  # what CMS penalises, and known 30 days after discharge; the other is for study
OUTCOMES: dict[Target, str] = {"lt30": "readmission within 30 days", "any": "readmission at any time"}

CAPACITIES = (0.01, 0.99)  # shares that may be planned for: outside, everybody or hardly anybody is flagged

SEED = 20080630  # any fixed number; this is the last month that the dataset covers


@dataclass(frozen=True)
class ValidationParams:
    max_quarantined_share: float = 0.01  # share of rows; the public dataset has none


@dataclass(frozen=True)
class IntakeParams:
    max_quarantined_share: float = 0.01  # of a file's rows; more say that the file as a whole is not what it should be
    min_known: float = 0.95  # share of a batch's encounters whose outcomes count, from which the batch has matured
    reporting_lag: int = 60  # days until a readmission is reported: after one month 48% of Medicare's claims of
    # inpatient stays are final, after two 91%, after five 98% (CCW, Medicare Claims Maturity, 2017; claims of 2010)


@dataclass(frozen=True)
class SplitParams:
    initial_share: float = 0.20  # of the cohort, in file order; the rest is replayed
    train_share: float = 0.70  # of the initial patients
    validation_share: float = 0.15  # of the initial patients; the rest is the test set
    batches: int = 10  # parts of the replayed rest, in file order; 0: everything is initial, and nothing is replayed
    first_unordered_id: int = 293_626_538  # from this encounter_id on, ids do not follow time (docs/data.md)
    max_undated_share: float = 0.01  # of the cohort, left out where it is ordered by date; more would be a selection
    days_off: int = 31  # from its place in time; stays are ordered by admission or entry as well, a few days apart
    max_share_off: float = 0.05  # of encounters so far from their place: from there on an order is not that of time
    seed: int = SEED


@dataclass(frozen=True)
class BootstrapParams:
    replicates: int = 500  # patients resampled; the 2.5% quantile moves < .002 from 500 to 5,000
    level: float = 0.95
    seed: int = SEED


@dataclass(frozen=True)
class GateParams:
    """Bounds are those of intervals that resample patients; differences are paired. docs/gate.md has their levels.

    Their standard errors on real splits, for retrained boosters | different families:
    AUROC .004 | .008 and average precision .005 | .009 on 2,980 rows with 340 readmissions; AUROC .002 to .005 |
    .004 and average precision .002 to .010 | .005 on 7,950 with 900. AUROC minus HOSPITAL's: .015 and .010.
    """

    target: Target = "lt30"  # what production predicts; `any` is known too late for a stream, and is for study only
    tail: float = 0.025  # outside each bound of a 95% interval, at the first question to a hold-out; every further
    # question gets half of the one before, so that all together stay below .05, however many are asked
    max_looks: int = 5  # questions to one hold-out; at the fifth an equal challenger passes less than every second time
    min_rows: int = 2_000  # below it the 95% interval of AUROC is wider than +-.035
    min_outcomes: int = 200  # readmissions; as above
    max_auroc_loss: float = 0.015  # the lower bound of the paired difference stays above its negative; the error is
    # .006 on a retraining's 4,000 rows, where .010 refused three of five challengers as good as their champion
    max_average_precision_loss: float = 0.025  # likewise; wider, as its error is (.009)
    max_auroc_loss_from_first: float = 0.020  # against the first approved model: small losses cannot add up
    observed_expected: tuple[float, float] = (0.80, 1.25)  # calibration in the large, outcomes / sum of risks
    max_subgroup_auroc_loss: float = 0.050  # estimate, per sex, race, age band, against the champion, if shown (< 0)
    min_subgroup_auroc: float = 0.50  # upper bound of the subgroup's interval may not be below chance
    min_subgroup_outcomes: int = 50  # smaller subgroups are reported, not judged: their loss has an error above .025
    min_eligible_share: float = 0.80  # of min_outcomes, among the eligible index stays: these have 96% of the
    # readmissions, so that a hold-out with just enough of them would often be refused if all were needed
    max_flag_rate_ratio: float = (
        1.25  # of flag rate and capacity, either way: a care team that plans for 20 of 100 gets
    )
    # 16 to 25. A capacity of .20 of 2,500 validation rows is met on 4,000 with an error of 5%, one of .05 with 11%
    max_ppv_loss: float = (
        0.020  # estimate, among as many flagged as the capacity, against the champion, if shown (< 0):
    )
    # two readmissions fewer found among 100 flagged. Its error, for two boosters on 4,000 rows, is .009 where a fifth
    # is flagged, .016 a tenth, .025 a twentieth


@dataclass(frozen=True)
class PreprocessorParams:
    exclude: tuple[str, ...] | None = None  # fields that the model may not read; None: as for the model in production
    target_smoothing: float = 50.0  # encounters of prior weight; "auto" and 10 gave .001 to .002 less average precision
    folds: int = 5  # of the cross-fitting inside TargetEncoder
    decimals: int = 6  # encoded rates are rounded: neighbours stay apart in float32 (see encoder.py)
    min_frequency: int = 20  # rows; rarer categories share one column of the one-hot encoding
    min_of_each_outcome: int = 10  # encounters, of training and of validation: fewer fit and calibrate nothing
    seed: int = SEED


@dataclass(frozen=True)
class SearchParams:
    families: tuple[Family, ...] = ()  # none named: all that there are
    trials: int = 8  # per family; the first is the family's good default
    minutes: float | None = None  # wall time of each family's search, of which one trial is always finished
    reports: int = 9  # intermediate results per full trial: rungs at 1, 3 and 9
    reduction_factor: int = 3  # ASHA keeps the best third at each rung
    random_trials: int = 4  # after the default; then Optuna proposes from what it saw
    seed: int = SEED


@dataclass(frozen=True)
class BundleParams:
    max_onnx_difference: float = 1e-6  # absolute, of the probability, on every validation row
    golden_rows: int = 20  # stored with their scores; the service scores them again before it is ready
    capacity: float = 0.20  # share of discharges that the care team can follow up; a training without it takes that of
    # the version in production. A default to begin with: only the hospital knows how many it can call or visit
    low_share: float = 0.625  # of those below the threshold: low, the others moderate. With a capacity of .20 low is
    # everybody below the median
    very_high_share: float = 0.25  # of those from the threshold on, the others high; with .20, the top twentieth
    reference_min_share: float = 0.05  # of the training encounters, with a value that a reference patient may have;
    # at .10 no diagnosis is left (heart failure: .07), and some models' median is out of reach
    reference_tolerance: float = 0.5  # percentiles of validation scores, from the median to the reference patient's
    # risk; the percentile that the service returns is a whole number
    reference_changes: int = 3  # fields at most; of fifteen models of the dataset eleven need two, one needs three

    def __post_init__(self) -> None:
        least, most = CAPACITIES
        if not least <= self.capacity <= most:
            raise ValueError(f"capacity is a share of discharges from {least} to {most}, not {self.capacity}")


@dataclass(frozen=True)
class StudyParams:
    folds: int = 5  # patient-grouped
    holdout_share: float = 0.20  # chronological: the last rows of the cohort in file order
    seed: int = SEED


@dataclass(frozen=True)
class FigureParams:
    calibration_folds: int = 5  # of the validation patients: each is drawn as calibrated on the others


@dataclass(frozen=True)
class DriftParams:
    false_alarm_rate: float = 0.05  # of a batch without drift, over all checks of inputs and scores together
    replicates: int = 200  # divisions of the reference's patients in two; the null's scale is then known to 10%
    null_rows: int = 20_000  # of the reference that are divided; the null is free of the size, more only takes time
    min_cell_share: float = 0.002  # of the reference; rarer values share a cell (28 of 14,000: Cochran's 5 and more)
    min_effect: float = 0.10  # Cohen's w (1988: small) or standard deviations (Evidently's default): less is harmless
    min_importance: float = 0.05  # of the model's reliance on the drifted clinical fields together
    max_missing_rise: float = 0.05  # of encounters, and beyond chance; a feed that fails loses more
    max_unknown: float = 0.02  # of given values; new diagnosis codes of the data pass it only after eight batches
    min_rows: int = 500  # of batch and reference; below, a small effect (.1) is missed more often than found
    min_separation_auroc: float = 0.60  # no drift .51, abrupt covariate shift .61, real batches .74 and more
    separation_rows: int = 4_000  # per side
    separation_trees: int = 50
    design_effect: float = 1.3  # variance of scores and ranks over that of independent rows: encounters per patient
    report_rows: int = 5_000  # of each side drawn in the report for people; no picture changes with more
    shown: int = 5  # fields named in a sentence
    seed: int = SEED


@dataclass(frozen=True)
class MissingParams:
    """When a field of encounters to be scored is missing far more often than in the training encounters."""

    max_rise: float = 0.05  # of encounters; a join that fails upstream loses more
    max_chance: float = 0.001  # probability of a file or window with as many and nothing wrong
    least_share: float = 0.0002  # that is taken for usual: a field never missing in 14,000 encounters may be in one
    window: int = 500  # encounters that the service judges together, besides each request: a failed join is in all


@dataclass(frozen=True)
class PerformanceParams:
    """Falls are differences to the champion's own reference window, whose error counts as well."""

    level: float = 0.90  # one-sided confidence of a finding; the policy wants it more than once
    alarm_level: float = 0.99  # one-sided confidence of a finding that is an alarm about a single batch: three measures
    # are looked at, and the status keeps to 2 alarms in 20 batches without drift (docs/results.md)
    severe_level: float = 0.995  # one-sided confidence of a finding that need not be seen twice
    max_auroc_fall: float = 0.015  # estimate; smaller ones cost less than a retraining may lose at the gate
    observed_expected: tuple[float, float] = (0.90, 1.10)  # bounds of no finding; the gate refuses at .80 and 1.25
    calibration_slope: tuple[float, float] = (0.80, 1.25)  # its 95% interval on 8,000 encounters is +-.14
    max_estimated_auroc_fall: float = 0.02  # without outcomes; a quiet batch strayed by .008
    max_flag_rate_ratio: float = 1.25  # either way, against the capacity that the model was made for
    max_score_psi: float = 0.10  # of scores in tenths of the reference; .1 to .25 is "some change" (Siddiqi 2006)


@dataclass(frozen=True)
class AlarmParams:
    """When a finding that is known under a champion has become worse, and when it has gone."""

    growth: float = 1.0  # times its limit: as far again as made it a finding, so a field's effect has grown by .10
    certainty: float = 0.999  # one-sided confidence that it grew, or went; some 50 findings are possible in a batch
    estimate_error: float = 0.008  # of AUROC estimated without outcomes: so far did a quiet batch stray


@dataclass(frozen=True)
class RetrainingParams:
    window: int = 5  # newest batches with outcomes under the present champion that count
    needed: int = 2  # of them with the same finding, the newest among them
    growth: float = 0.135  # new matured rows over those trained on: seven trainings in the replay's ten batches; at
    # .19 there were six and mean AUROC .0007 lower (three seeds), at .25 five and .003 lower
    max_age: int = 4  # batches since training that brought data to learn from; also sets the pace once growth slows
    min_importance: float = 0.25  # reliance on drifted clinical fields; counts only beside changed scores


@dataclass(frozen=True)
class AssemblyParams:
    """How the newest matured encounters are divided for a retraining; all others are trained on as a whole.

    The hold-out, test and validation, takes encounters that no model of the comparison has seen and no earlier
    hold-out had, from the newest batch, and from as many before it as are needed.

    Replayed with every batch followed by a retraining, mean AUROC was .6731 with no test part, .6720 with 3,500 and
    3,000 rows, .6714 with 2,500 and 2,000; one seed each.
    """

    test_rows: int = 4_000  # that the gate compares on: AUROC differences then have an error of .005
    validation_rows: int = 2_500  # that calibrate and choose the threshold: observed over expected to 6%
    max_share: float = 0.90  # of the encounters that may be held out, for both together; fewer are divided in
    # proportion, down to what the gate needs (GateParams.min_rows, min_outcomes): below that, nothing is trained
    seed: int = SEED


@dataclass(frozen=True)
class FollowUpParams:
    """How outcomes of encounters are read that care followed up because of their risk (data/follow_up.py)."""

    reading: Literal["aware", "naive"] = "aware"  # naive takes outcomes as they were, and unlearns; for comparison
    strata: int = 5  # of the risk that care saw, among the flagged; five remove 90% of the confounding by one variable
    # (Cochran, Biometrics 1968;24:295)
    min_share: float = 0.05  # of a stratum that had no follow-up: one encounter then stands for 20 at most
    min_rows: int = 20  # likewise, encounters
    min_events: int = 5  # readmissions on each side, before the effect of follow-up is estimated
    assumed_ratio: float | None = None  # risk with follow-up over risk without, where a stratum has too few encounters
    # without it; None: nothing is assumed, and its batch is neither learnt from nor judged on


@dataclass(frozen=True)
class ScenarioParams:
    covariate_strength: float = 1.0  # log-odds of being kept per standard deviation of age and illness
    kept_share: float = 0.60  # of a batch; the rest makes room for a choice
    gradual_batches: int = 4  # until a gradual shift is where an abrupt one begins
    label_shift: float = 1.5  # times the share of readmissions
    concept_share: float = 0.30  # of encounters whose outcomes are dealt out again; .50 turned AUROC .64 into .45
    missing_field: str = "diag_1"  # must be one that may be missing
    follow_up_share: float = 0.50  # of the flagged that are followed up, by chance; more leave fewer to learn from
    follow_up_ratio: float = 0.70  # of their readmissions that happen all the same: 8.3 for 11.9% within 30 days in the
    # trial of Coleman et al., Archives of Internal Medicine 2006;166:1822
    seed: int = SEED


@dataclass(frozen=True)
class Params:
    validation: ValidationParams = field(default_factory=ValidationParams)
    intake: IntakeParams = field(default_factory=IntakeParams)
    split: SplitParams = field(default_factory=SplitParams)
    bootstrap: BootstrapParams = field(default_factory=BootstrapParams)
    gate: GateParams = field(default_factory=GateParams)
    preprocessor: PreprocessorParams = field(default_factory=PreprocessorParams)
    search: SearchParams = field(default_factory=SearchParams)
    bundle: BundleParams = field(default_factory=BundleParams)
    study: StudyParams = field(default_factory=StudyParams)
    figures: FigureParams = field(default_factory=FigureParams)
    drift: DriftParams = field(default_factory=DriftParams)
    missing: MissingParams = field(default_factory=MissingParams)
    performance: PerformanceParams = field(default_factory=PerformanceParams)
    alarms: AlarmParams = field(default_factory=AlarmParams)
    retraining: RetrainingParams = field(default_factory=RetrainingParams)
    assembly: AssemblyParams = field(default_factory=AssemblyParams)
    follow_up: FollowUpParams = field(default_factory=FollowUpParams)
    scenario: ScenarioParams = field(default_factory=ScenarioParams)
