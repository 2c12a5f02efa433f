"""Our LightGBM on the public benchmark form of the dataset, beside published results: a table in docs/results.md.

    health-predict data fetch && health-predict data validate
    python -m benchmarks.anchor

The form is that of OpenML 46922 ("Diabetes130US", target EarlyReadmission), which TabArena measures: the first
encounter of each patient by encounter_id, those who died or went to hospice included, readmission within 30 days.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import polars as pl
from sklearn.model_selection import StratifiedShuffleSplit

from benchmarks.markers import replace_section
from health_predict.data.cohort import LabelledEncounters, label
from health_predict.evaluation.metrics import auroc, average_precision
from health_predict.features.encounters import engineer
from health_predict.features.preprocessor import Preprocessor
from health_predict.params import Params
from health_predict.settings import Settings
from health_predict.store import layout
from health_predict.store.storage import open_storage
from health_predict.store.tables import read_table
from health_predict.training.candidate import Fold, predict_proba
from health_predict.training.candidates import CANDIDATES

PAGE = Path("docs/results.md")
SECTION = "anchor"
FAMILY = "lightgbm"
SEEDS = (1, 2, 3)  # of the splits and of the model
SPLITS = 3  # for each seed
TEST_SHARE = 0.30
PUBLISHED = {"AutoGluon, best preset (published)": 0.6844, "LightGBM (published)": 0.6732}  # AUROC


def main() -> None:
    settings = Settings()
    data = first_encounters(read_table(open_storage(settings.storage, settings.s3_endpoint), layout.VALIDATED))
    scores = []
    for score in measure(data, SEEDS, SPLITS):
        scores.append(score)
        sys.stderr.write(f"split {len(scores)}: AUROC {score[0]:.4f}, average precision {score[1]:.4f}\n")
    replace_section(PAGE, SECTION, table(data, scores))


def first_encounters(encounters: pl.DataFrame) -> LabelledEncounters:
    """The encounter with the lowest encounter_id of each patient, with its outcome."""
    first = encounters.sort("encounter_id").unique("patient_nbr", keep="first", maintain_order=True)
    return label(first, "lt30")


def measure(data: LabelledEncounters, seeds: tuple[int, ...], splits: int) -> Iterator[tuple[float, float]]:
    """AUROC and average precision of each split, on its test part; `splits` stratified splits for each seed."""
    params, candidate = Params(), CANDIDATES[FAMILY]
    features, y = engineer(data.encounters), data.outcomes
    for seed in seeds:
        divided = StratifiedShuffleSplit(splits, test_size=TEST_SHARE, random_state=seed)
        for train, test in divided.split(y, y):
            preprocessor = Preprocessor(candidate.encoding, params.preprocessor)
            X_train = preprocessor.fit_transform(features[train], y[train])
            # Intermediate results decide nothing here, so they are measured on the training part itself.
            fold = Fold(X_train, y[train], X_train, y[train])
            model = candidate.fit(candidate.default(len(train)), fold, 1, seed, lambda _step, _auroc: None)
            y_proba = predict_proba(model, preprocessor.transform(features[test]))
            yield auroc(y[test], y_proba), average_precision(y[test], y_proba)


def table(data: LabelledEncounters, scores: list[tuple[float, float]]) -> str:
    """Markdown: a row a model, best AUROC first; ours with the standard deviation over the splits."""
    aurocs, precisions = zip(*scores, strict=True)
    ours = f"{CANDIDATES[FAMILY].title}, defaults (ours)"
    rows = [
        (mean(aurocs), f"| {ours} | {mean(aurocs):.4f} ({stdev(aurocs):.4f}) | {mean(precisions):.4f} |"),
        *((value, f"| {name} | {value:.4f} | |") for name, value in PUBLISHED.items()),
    ]
    lines = ["| model | AUROC (standard deviation over splits) | average precision |", "|---|---|---|"]
    lines += [line for _, line in sorted(rows, reverse=True)]
    told = f"{len(data.outcomes):,} first encounters, {int(data.outcomes.sum()):,} readmissions within 30 days, mean of"
    return "\n".join([*lines, "", f"{told} {len(scores)} splits."])


if __name__ == "__main__":
    main()
