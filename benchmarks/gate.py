"""How often the gate is wrong: equal challengers that it refuses, worse ones that it lets through.

    HEALTH_PREDICT_RAW_DATA=dataset_diabetes.zip python -m benchmarks.gate

Patients of the cohort are divided in two: on 40% two LightGBMs are trained with the family's untuned defaults, the
others are the pool. A hold-out is drawn from the pool, patient by patient with replacement, until it has 4,000
encounters, so the pool's own figures are the truth that every hold-out is uncertain about.

Equal: two boosters trained on bootstrap resamples of the same training patients, in random roles, so that neither is
better on average. All rules of the gate, against one champion.

Worse: the champion's log-odds with noise, recalibrated on the pool. The noise is tuned for each candidate so that its
AUROC on the pool falls short of the champion's by just more than the margin: the candidates that are hardest to refuse
among those that may not pass. Twenty of them ask one hold-out, one after the other.

Writes the tables of docs/gate.md; about four minutes on one quiet core. Nothing of the gate was tuned on these tables.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.markers import replace_section
from health_predict.data.cohort import LabelledEncounters, label, select_cohort
from health_predict.evaluation.gate import Comparison, Scores, checks, compare_models
from health_predict.evaluation.metrics import Differences, auroc, average_precision, compare
from health_predict.evaluation.operating_point import threshold_at
from health_predict.features.calibration import log_odds
from health_predict.features.encounters import engineer
from health_predict.features.preprocessor import Preprocessor
from health_predict.params import BootstrapParams, GateParams, Params
from health_predict.settings import Settings
from health_predict.steps.data.fetch import fetch
from health_predict.steps.data.validate import validate
from health_predict.store import layout
from health_predict.store.storage import Folder
from health_predict.store.tables import read_table
from health_predict.training.candidate import Fold, predict_proba
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import calibrate

PAGE = Path("docs/gate.md")
PARAMS = Params()
ROWS = 4_000  # as in a retraining's hold-out
TRAINING_SHARE = 0.40  # of patients
CANDIDATES_ASKED = 20
BEYOND = 0.0002  # AUROC below the margin
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Encounters that no model was trained on, and which rows each patient has."""

    data: LabelledEncounters
    rows: Sequence[NDArray[np.intp]]

    @classmethod
    def of(cls, data: LabelledEncounters) -> "Pool":
        order = np.argsort(data.patients, kind="stable")
        _, starts = np.unique(data.patients[order], return_index=True)
        return cls(data, np.split(order, starts[1:]))

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """A hold-out: rows, and whose each is. A patient who is drawn twice counts as two."""
        drawn = [self.rows[patient] for patient in rng.integers(len(self.rows), size=ROWS)]
        owners = np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])
        return np.concatenate(drawn)[:ROWS], owners[:ROWS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--equal", type=int, default=60, help="hold-outs for two equal models; 0 leaves them out")
    parser.add_argument("--worse", type=int, default=80, help="hold-outs for twenty worse ones; 0 leaves them out")
    parser.add_argument("--replicates", type=int, default=200, help="of the bootstrap for the worse ones")
    options = parser.parse_args()
    training, pool = _divide(_cohort(), np.random.default_rng(PARAMS.split.seed))
    first, second = (_resampled_booster(training, pool.data, seed) for seed in (1, 2))
    if options.equal:
        replace_section(PAGE, "equal", equal_table(_equal(pool, first, second, options.equal), pool, first, second))
    if options.worse:
        bootstrap = BootstrapParams(replicates=options.replicates)
        candidates = [_worse(pool, first, seed) for seed in range(CANDIDATES_ASKED)]
        truth = [auroc(pool.data.outcomes, candidate) - _auroc(pool, first) for candidate in candidates]
        asked = list(_asked(pool, first, candidates, options.worse, bootstrap))
        replace_section(PAGE, "worse", worse_table(asked))
        replace_section(PAGE, "coverage", coverage_table(asked, truth))


def _cohort() -> LabelledEncounters:
    settings = Settings()
    with tempfile.TemporaryDirectory() as scratch:
        storage = Folder(scratch)
        fetch(storage, settings.raw_data, settings.dataset_url, None, lambda _received, _total: None)
        validate(storage, PARAMS.validation)
        return label(select_cohort(read_table(storage, layout.VALIDATED)), "lt30")


def _divide(cohort: LabelledEncounters, rng: np.random.Generator) -> tuple[LabelledEncounters, Pool]:
    people = rng.permutation(np.unique(cohort.patients))
    trained = np.isin(cohort.patients, people[: round(TRAINING_SHARE * len(people))])
    return _take(cohort, np.flatnonzero(trained)), Pool.of(_take(cohort, np.flatnonzero(~trained)))


def _take(data: LabelledEncounters, rows: NDArray[np.intp]) -> LabelledEncounters:
    return LabelledEncounters(data.encounters[rows], data.outcomes[rows])


def _resampled_booster(training: LabelledEncounters, scored: LabelledEncounters, seed: int) -> Floats:
    """Risks of a LightGBM trained on a bootstrap resample of the training patients."""
    people = Pool.of(training)
    drawn = np.random.default_rng(seed).integers(len(people.rows), size=len(people.rows))
    sample = _take(training, np.concatenate([people.rows[patient] for patient in drawn]))
    candidate = CANDIDATES["lightgbm"]
    preprocessor = Preprocessor(candidate.encoding, PARAMS.preprocessor)
    X = preprocessor.fit_transform(engineer(sample.encounters), sample.outcomes)
    fold = Fold(X, sample.outcomes, X, sample.outcomes)
    model = candidate.fit(candidate.default(len(X)), fold, 1, seed, lambda _step, _auroc: None)
    return predict_proba(model, preprocessor.transform(engineer(scored.encounters)))


def _worse(pool: Pool, champion: Floats, seed: int) -> Floats:
    """Calibrated risks whose AUROC on the pool is below the champion's by the margin and a little."""
    y = pool.data.outcomes
    noise = np.random.default_rng(1_000 + seed).normal(size=len(champion))
    wanted = _auroc(pool, champion) - PARAMS.gate.max_auroc_loss - BEYOND
    low, high = 0.0, 4.0
    for _ in range(30):
        scale = (low + high) / 2
        low, high = (scale, high) if auroc(y, log_odds(champion) + scale * noise) > wanted else (low, scale)
    scores = log_odds(champion) + high * noise
    return calibrate(scores, y).apply(scores)


def _auroc(pool: Pool, y_proba: Floats) -> float:
    return auroc(pool.data.outcomes, y_proba)


def _equal(pool: Pool, one: Floats, other: Floats, holdouts: int) -> Iterator[Comparison]:
    rng = np.random.default_rng(7)
    flagged_from = {id(risks): threshold_at(PARAMS.bundle.capacity, risks) for risks in (one, other)}
    for _ in range(holdouts):
        rows, owners = pool.draw(rng)
        encounters = pool.data.encounters[rows].with_columns(patient_nbr=pl.Series(owners))
        challenger, champion = (one, other) if rng.random() < 0.5 else (other, one)
        yield compare_models(
            encounters,
            pool.data.outcomes[rows],
            Scores("challenger", challenger[rows], flagged_from[id(challenger)], capacity=PARAMS.bundle.capacity),
            champion=Scores("champion", champion[rows], flagged_from[id(champion)], capacity=PARAMS.bundle.capacity),
            first=None,
            trained_on=encounters["encounter_id"].head(0),
            fingerprints={},
            capacity=PARAMS.bundle.capacity,
            gate=PARAMS.gate,
            bootstrap=PARAMS.bootstrap,
        )


def equal_table(compared: Iterator[Comparison], pool: Pool, one: Floats, other: Floats) -> str:
    """Markdown: how often equal models are accepted, and which rules refuse them, look by look."""
    found = list(compared)
    looks = range(1, PARAMS.gate.max_looks + 1)
    rules = {
        "AUROC": "AUROC against",
        "average precision": "average precision against",
        "eligible stays": "eligible index stays",
        "flag rate": "flag rate",
        "PPV": "positive predictive value",
        "Brier": "Brier",
        "subgroups": "AUROC loss,",
    }
    lines = [
        f"| look | accepted | refused by {' | '.join(rules)} |",
        f"|---|---|{'---|' * len(rules)}",
    ]
    for look in looks:
        asked = [_failed(replace(comparison, look=look)) for comparison in found]
        refused = [_share([any(rule in name for name in names) for names in asked]) for rule in rules.values()]
        lines.append(f"| {look} | {_share([not names for names in asked])} | {' | '.join(refused)} |")
    uncorrected = _share([_subgroup_shown_alone(comparison) for comparison in found])
    difference = _auroc(pool, one) - _auroc(pool, other)
    lines += [
        "",
        f"{len(found)} hold-outs of {ROWS:,} encounters. The two models differ by {abs(difference):.4f} in AUROC on "
        f"the pool of {len(one):,} ({_auroc(pool, one):.4f} and {_auroc(pool, other):.4f}; average precision "
        f"{average_precision(pool.data.outcomes, one):.4f} and {average_precision(pool.data.outcomes, other):.4f}). "
        f"Without the correction for their number, the subgroup rules would have refused {uncorrected}.",
    ]
    return "\n".join(lines)


def _failed(comparison: Comparison) -> list[str]:
    return [check.name for check in checks(comparison, PARAMS.gate) if not check.passed]


def _subgroup_shown_alone(comparison: Comparison) -> bool:
    """Whether any subgroup's loss trips its rule when it is taken as the only one."""
    losses = [one.auroc_difference for one in comparison.subgroups if one.auroc_difference is not None]
    return any(loss.estimate < -PARAMS.gate.max_subgroup_auroc_loss and loss.upper < 0 for loss in losses)


def _asked(
    pool: Pool, champion: Floats, candidates: Sequence[Floats], holdouts: int, bootstrap: BootstrapParams
) -> Iterator[list[Differences]]:
    """For each hold-out what every candidate's comparison with the champion found."""
    rng = np.random.default_rng(11)
    for _ in range(holdouts):
        rows, owners = pool.draw(rng)
        y = pool.data.outcomes[rows]
        yield [compare(y, candidate[rows], champion[rows], owners, bootstrap) for candidate in candidates]


def worse_table(asked: Sequence[Sequence[Differences]]) -> str:
    """Markdown: probability that at least one candidate that is too bad passes, after so many looks."""
    unlimited = replace(PARAMS.gate, max_looks=CANDIDATES_ASKED)
    lines = [
        "| looks at one hold-out | each at 2.5% | each half of the one before | and five at most (shipped) |",
        "|---|---|---|---|",
    ]
    kinds = ((unlimited, False), (unlimited, True), (PARAMS.gate, True))
    passed = [[[_passes(one, look, *kind) for look, one in enumerate(row, 1)] for row in asked] for kind in kinds]
    for looks in (1, 2, 5, 10, CANDIDATES_ASKED):
        lines.append(f"| {looks} | {' | '.join(_share([any(row[:looks]) for row in kind]) for kind in passed)} |")
    return "\n".join([*lines, "", f"{len(asked)} hold-outs of {ROWS:,} encounters."])


def _passes(found: Differences, look: int, gate: GateParams, spending: bool) -> bool:
    """The rule on AUROC alone, which is the one that the candidates are made to be beyond."""
    tail = gate.tail * 0.5 ** (look - 1) if spending else gate.tail
    lower = found.auroc.lower if tail == gate.tail else found.auroc.at(tail).lower
    return look <= gate.max_looks and lower > -gate.max_auroc_loss


def coverage_table(asked: Sequence[Sequence[Differences]], truth: Sequence[float]) -> str:
    """Markdown: how often a bound lies on the wrong side of the true difference, for the level of each look."""
    lines = ["| look | stated | lower bound above the truth | upper bound below it |", "|---|---|---|---|"]
    pairs = [(one.auroc, true) for row in asked for one, true in zip(row, truth, strict=True)]
    for look in range(1, PARAMS.gate.max_looks + 1):
        tail = PARAMS.gate.tail * 0.5 ** (look - 1)
        bounds = [(one if look == 1 else one.at(tail), true) for one, true in pairs]
        above = np.mean([bound.lower > true for bound, true in bounds])
        below = np.mean([bound.upper < true for bound, true in bounds])
        lines.append(f"| {look} | {tail:.2%} | {above:.2%} | {below:.2%} |")
    return "\n".join([*lines, "", f"{len(pairs):,} comparisons, {len(asked)} hold-outs."])


def _share(happened: Sequence[bool]) -> str:
    """With its 95% interval (Wilson, JASA 1927;22:209)."""
    n, rate, z = len(happened), float(np.mean(happened)), 1.96
    centre, reach = rate + z**2 / (2 * n), z * np.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    low, high = ((centre + side * reach) / (1 + z**2 / n) for side in (-1, 1))
    return f"{rate:.1%} ({abs(low):.1%} to {high:.1%})"


if __name__ == "__main__":
    main()
