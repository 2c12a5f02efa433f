"""Named drifts, injected into real batches to test the monitor.

Covariate and label shift select among the batch's encounters, which makes the batch smaller. So every row stays real,
and the relation of features to outcomes (covariate shift), or the features given the outcome (label shift), stay
exactly the same. The other drifts change values, to values that the field allows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from health_predict.data.schema import AGE_BANDS, DIAGNOSES, OUTCOME
from health_predict.errors import DataError
from health_predict.params import ScenarioParams

Floats = NDArray[np.float64]
Inject = Callable[[pl.DataFrame, int, Generator, ScenarioParams], pl.DataFrame]

# The dataset's commonest codes in ICD-10-CM, as on the day of the change (in the USA 2015-10-01).
ICD10: Mapping[str, str] = {
    "428": "I50", "414": "I25", "276": "E87", "427": "I48", "401": "I10", "786": "R07", "410": "I21", "486": "J18",
    "599": "N39", "496": "J44", "403": "I12", "491": "J44.1", "715": "M19", "682": "L03", "434": "I63", "780": "R55",
    "996": "T82", "584": "N17", "585": "N18", "38": "A41", "707": "L89", "518": "J96", "285": "D64", "272": "E78",
    "250": "E11", "250.02": "E11", "250.01": "E10", "250.6": "E11.4", "250.8": "E11.6",
}  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """A named drift. `needs_outcomes`: whether it is visible only once outcomes have matured.

    Raises ValueError for a name that cannot be part of a world's name, and without a description.
    """

    name: str
    description: str
    inject: Inject
    needs_outcomes: bool = False
    refused: bool = False  # whether the batch no longer fits the schema
    follow_up: bool = False  # whether the flagged are followed up: outcomes then depend on the version in production

    def __post_init__(self) -> None:
        if not (self.name.isidentifier() and self.name.islower()):
            raise ValueError(f"scenario {self.name!r} is not named with small letters, digits and underscores")
        if not self.description:
            raise ValueError(f"scenario {self.name!r} of simulation/scenarios.py does not say what happens")


def inject(name: str, batch: pl.DataFrame, elapsed: int, params: ScenarioParams) -> pl.DataFrame:
    """The batch as it would arrive under the scenario, row order kept; the same arguments give the same table.

    `batch` holds typed encounters with their outcomes. `elapsed` is the number of batches since the drift began, 0
    for the first. Encounter ids stay unique and every value one that its field allows; only `schema_break` returns
    a table that does not fit the schema. Raises DataError for an unknown name and for `elapsed` below 0.
    """
    if name not in SCENARIOS:
        raise DataError(f"there is no scenario {name!r}; known are {', '.join(SCENARIOS)}")
    if elapsed < 0:
        raise DataError(f"elapsed is {elapsed}; a scenario begins with batch 0 of itself")
    return SCENARIOS[name].inject(batch, elapsed, np.random.default_rng((params.seed, elapsed)), params)


def follow_up(
    readmitted: pl.Series, flagged: NDArray[np.bool_], elapsed: int, params: ScenarioParams
) -> tuple[NDArray[np.bool_], pl.Series]:
    """Whether each encounter of a batch is followed up, and its outcome then; shape (rows,), deterministic.

    `readmitted` are the outcomes without follow-up. Of the flagged, a random share `follow_up_share` is followed up,
    which prevents a share 1 - `follow_up_ratio` of their readmissions within 30 days.
    """
    rng = np.random.default_rng((params.seed, elapsed))
    chance = rng.random((2, len(flagged)))  # the same for each encounter, whichever the model flags
    followed_up = flagged & (chance[0] < params.follow_up_share)
    prevented = followed_up & (chance[1] >= params.follow_up_ratio) & (readmitted == "<30").to_numpy()
    became = np.where(prevented, "NO", readmitted.to_numpy())
    return followed_up, pl.Series(OUTCOME, became, dtype=readmitted.dtype)


def illness(encounters: pl.DataFrame) -> Floats:
    """Age and illness of each patient as one score, shape (rows,), standardised in the table; 0 if all are alike."""
    decade = encounters["age"].replace_strict(AGE_BANDS, range(len(AGE_BANDS)), return_dtype=pl.Float64).to_numpy()
    stays = np.minimum(encounters["number_inpatient"].to_numpy(), 4)
    days = encounters["time_in_hospital"].to_numpy()
    points: Floats = decade / 2 + stays + days / 4 + encounters["number_diagnoses"].to_numpy() / 2
    standardised: Floats = (points - points.mean()) / max(float(points.std()), 1e-9)
    return standardised


def _unchanged(batch: pl.DataFrame, _elapsed: int, _rng: Generator, _params: ScenarioParams) -> pl.DataFrame:
    return batch


def _abrupt(batch: pl.DataFrame, _elapsed: int, rng: Generator, params: ScenarioParams) -> pl.DataFrame:
    return _iller(batch, params.covariate_strength, rng, params)


def _gradual(batch: pl.DataFrame, elapsed: int, rng: Generator, params: ScenarioParams) -> pl.DataFrame:
    done = min((elapsed + 1) / params.gradual_batches, 1.0)
    return _iller(batch, done * params.covariate_strength, rng, params)


def _iller(batch: pl.DataFrame, strength: float, rng: Generator, params: ScenarioParams) -> pl.DataFrame:
    """A sample of the rows without replacement, weighted towards older and sicker patients.

    Efraimidis and Spirakis, Information Processing Letters 2006;97:181.
    """
    keys = np.log(rng.random(len(batch))) / np.exp(strength * illness(batch))
    return _rows(batch, np.argsort(-keys)[: round(params.kept_share * len(batch))])


def _label_shift(batch: pl.DataFrame, _elapsed: int, rng: Generator, params: ScenarioParams) -> pl.DataFrame:
    """All readmissions within 30 days, and a sample of the others, so that the outcome rate is multiplied."""
    readmitted = (batch[OUTCOME] == "<30").to_numpy()
    share = min(params.label_shift * readmitted.mean(), 1.0)
    others = np.flatnonzero(~readmitted)
    kept = round(readmitted.sum() * (1 - share) / share) if share else len(others)
    return _rows(batch, np.append(np.flatnonzero(readmitted), rng.permutation(others)[:kept]))


def _concept_shift(batch: pl.DataFrame, _elapsed: int, rng: Generator, params: ScenarioParams) -> pl.DataFrame:
    """The batch with outcomes of some rows reassigned, the worst to the least ill; their counts stay the same."""
    changed = np.flatnonzero(rng.random(len(batch)) < params.concept_share)
    worst_first = batch[OUTCOME].to_numpy()[changed]
    worst_first = worst_first[np.argsort([("<30", ">30", "NO").index(outcome) for outcome in worst_first])]
    least_ill_first = np.argsort(illness(batch)[changed] + rng.normal(0, 0.5, len(changed)))
    outcomes = batch[OUTCOME].to_numpy().copy()
    outcomes[changed[least_ill_first]] = worst_first
    return batch.with_columns(pl.Series(OUTCOME, outcomes, dtype=batch.schema[OUTCOME]))


def _coding_change(batch: pl.DataFrame, _elapsed: int, _rng: Generator, _params: ScenarioParams) -> pl.DataFrame:
    return batch.with_columns(pl.col(*DIAGNOSES).replace(ICD10))


def _missing_feed(batch: pl.DataFrame, _elapsed: int, _rng: Generator, params: ScenarioParams) -> pl.DataFrame:
    return batch.with_columns(pl.lit(None, batch.schema[params.missing_field]).alias(params.missing_field))


def _schema_break(batch: pl.DataFrame, _elapsed: int, _rng: Generator, _params: ScenarioParams) -> pl.DataFrame:
    return batch.rename({"time_in_hospital": "length_of_stay"})


def _rows(batch: pl.DataFrame, chosen: NDArray[np.intp]) -> pl.DataFrame:
    return batch[np.sort(chosen)]


def _by_name(*scenarios: Scenario) -> Mapping[str, Scenario]:
    found = {scenario.name: scenario for scenario in scenarios}
    if len(found) < len(scenarios):
        raise ValueError("two scenarios of simulation/scenarios.py have the same name")
    return found


SCENARIOS: Mapping[str, Scenario] = _by_name(
    Scenario("none", "Nothing is changed.", _unchanged),
    Scenario("gradual_covariate_shift", "Patients get older and sicker from batch to batch.", _gradual),
    Scenario("abrupt_covariate_shift", "Patients are older and sicker at once.", _abrupt),
    Scenario("label_shift", "More readmissions, of the same kinds of patients.", _label_shift, True),
    Scenario("concept_shift", "Readmissions strike other patients than before.", _concept_shift, True),
    Scenario(
        "effective_follow_up",
        "Of those the model in production flags, some are followed up, and fewer of these readmitted.",
        _unchanged,
        needs_outcomes=True,
        follow_up=True,
    ),
    Scenario("coding_change", "Common diagnoses arrive in ICD-10.", _coding_change),
    Scenario("missing_feed", "A column arrives empty.", _missing_feed),
    Scenario("schema_break", "A column arrives under another name.", _schema_break, refused=True),
)
