"""Does a loop unlearn what its own flags prevent: outcomes taken as they were, against those read without follow-up.

    health-predict data fetch && health-predict data validate && health-predict data split
    python -m benchmarks.follow_up

Writes its section of docs/results.md. The scenario `effective_follow_up` over all batches of the future, each followed
by a retraining of one LightGBM with its defaults on everything that has matured, without a gate. Each loop flags its
own patients, and so makes its own outcomes; all are judged on what would have become of everybody without follow-up.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.markers import replace_section
from health_predict.data.cohort import label, outcome, select_cohort
from health_predict.data.follow_up import FollowUp, for_training, represent, with_representation
from health_predict.data.splits import pool, retraining
from health_predict.evaluation.metrics import auroc
from health_predict.monitoring.follow_up import effect_of
from health_predict.params import Params
from health_predict.settings import Settings
from health_predict.simulation.scenarios import follow_up
from health_predict.store import layout
from health_predict.store.replay import future_batches, read_future
from health_predict.store.storage import Storage, open_storage
from health_predict.store.tables import read_table
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import Fitted, fit, prepare

PAGE = Path("docs/results.md")
PARAMS = Params()
Treated = tuple[pl.DataFrame, NDArray[np.bool_], FollowUp]
NOBODY, NAIVE, AWARE = "nobody is followed up", "naive", "aware"


@dataclass(frozen=True)
class Row:
    """One batch of a loop, on outcomes without follow-up; `flagged` is O/E among those that the model flags."""

    auroc: float
    observed_expected: float
    flagged: float
    flag_rate: float
    effect: str = ""


def main() -> None:
    settings = Settings()
    storage = open_storage(settings.storage, settings.s3_endpoint)
    initial = [read_table(storage, key) for key in (layout.INITIAL_TRAIN, layout.INITIAL_VALIDATION)]
    rest = read_table(storage, layout.INITIAL_TEST)
    first = trained(*initial)
    loops = {name: run(storage, name, first, pl.concat([*initial, rest])) for name in (NOBODY, NAIVE, AWARE)}
    replace_section(PAGE, "follow-up", table(loops))


def run(storage: Storage, name: str, first: Fitted, initial: pl.DataFrame) -> list[Row]:
    model, matured, rows, treated = first, [initial], list[Row](), list[Treated]()
    for number in future_batches(storage):
        if number > 1:
            held = pool(matured[1:], pl.concat([table["encounter_id"] for table in matured[:-1]]), *PARTS)
            parts = retraining(matured, held, *PARTS)
            model = trained(for_training(parts.train, treated, PARAMS.follow_up), parts.validation)
        batch = select_cohort(read_future(storage, number))
        became, care, row = judged(batch, model, number, name)
        matured.append(became)
        if name == AWARE and care is not None:
            treated.append((became, outcome(became), care))
        rows.append(row)
        sys.stderr.write(f"{name}, batch {number}: AUROC {row.auroc:.4f}, O/E {row.observed_expected:.3f}\n")
    return rows


PARTS = PARAMS.assembly, PARAMS.gate


def trained(train: pl.DataFrame, validation: pl.DataFrame) -> Fitted:
    candidate = CANDIDATES["lightgbm"]
    parts = label(train, "lt30"), label(validation, "lt30")
    prepared = prepare(candidate.encoding, *parts, PARAMS.preprocessor)
    return fit(
        "lightgbm", candidate.default(len(prepared.fold.y_train)), prepared, PARAMS.search, PARAMS.bundle.capacity
    )


def judged(batch: pl.DataFrame, model: Fitted, number: int, name: str) -> tuple[pl.DataFrame, FollowUp | None, Row]:
    """What the loop sees of a batch once it has matured, and how good its model was."""
    risks, untreated = model.predict_proba(batch), outcome(batch)
    flagged = risks >= model.threshold
    row = Row(
        auroc=auroc(untreated, risks),
        observed_expected=_ratio(untreated, risks),
        flagged=_ratio(untreated[flagged], risks[flagged]),
        flag_rate=float(flagged.mean()),
    )
    if name == NOBODY:
        return batch, None, row
    followed_up, became = follow_up(batch["readmitted"], flagged, number - 1, PARAMS.scenario)
    seen = batch.with_columns(became)
    care = FollowUp.of(risks, model.threshold, pl.Series(followed_up))
    patients = batch["patient_nbr"].to_numpy()
    effect = effect_of(outcome(seen), care, patients, PARAMS.follow_up, PARAMS.bootstrap)
    row = replace(row, effect="" if effect is None else str(effect.ratio))
    if name == NAIVE:
        return seen, care, row
    return with_representation(seen, represent(outcome(seen), care, PARAMS.follow_up).weights), care, row


def table(loops: dict[str, list[Row]]) -> str:
    """Markdown: a row a batch, then the means, and the means of the second half.

    All loops score the first batch with the same model.
    """
    names = list(loops)
    heads = [f"{what}, {name}" for what in ("AUROC", "O/E", "O/E of the flagged") for name in names]
    lines = [f"| batch | {' | '.join(heads)} | risk ratio |", "|---" * (len(heads) + 2) + "|"]
    for number, rows in enumerate(zip(*loops.values(), strict=True), start=1):
        lines.append(_line(str(number), _figures([[row] for row in rows]), rows[-1].effect))
    half = len(loops[AWARE]) // 2
    lines.append(_line("mean", _figures(list(loops.values())), ""))
    lines.append(_line(f"mean of {half + 1} to {2 * half}", _figures([rows[half:] for rows in loops.values()]), ""))
    off = {name: np.mean([abs(row.observed_expected - 1) for row in rows]) for name, rows in loops.items()}
    apart = {name: _apart(loops[name], loops[NOBODY]) for name in (NAIVE, AWARE)}
    rates = {name: np.mean([row.flag_rate for row in rows]) for name, rows in loops.items()}
    lines += [
        "",
        f"O/E of the flagged apart from where nobody is followed up, mean of the absolute differences: "
        f"{_named(apart, '.3f')}. Mean |O/E - 1|: {_named(off, '.3f')}. Flagged: {_named(rates, '.1%')}.",
    ]
    return "\n".join(lines)


def _apart(rows: Sequence[Row], others: Sequence[Row]) -> np.floating:
    return np.mean([abs(row.flagged - other.flagged) for row, other in zip(rows[1:], others[1:], strict=True)])


def _figures(loops: Sequence[Sequence[Row]]) -> list[str]:
    found = [f"{np.mean([row.auroc for row in rows]):.4f}" for rows in loops]
    found += [f"{np.mean([row.observed_expected for row in rows]):.3f}" for rows in loops]
    return [*found, *(f"{np.mean([row.flagged for row in rows]):.3f}" for rows in loops)]


def _line(name: str, figures: list[str], effect: str) -> str:
    return f"| {' | '.join([name, *figures, effect])} |"


def _named(values: dict[str, np.floating], form: str) -> str:
    return ", ".join(f"{format(value, form)} {name}" for name, value in values.items())


def _ratio(observed: NDArray[np.bool_], risks: NDArray[np.float64]) -> float:
    return float(observed.sum() / risks.sum())


if __name__ == "__main__":
    main()
