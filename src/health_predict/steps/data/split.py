"""`health-predict data split`: the cohort into initial data and batches to replay."""

import io
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl

from health_predict.data.batches import batches
from health_predict.data.cohort import outcome, select_cohort
from health_predict.data.maturity import WINDOW
from health_predict.data.order import by_file, by_time
from health_predict.data.schema import DISCHARGED_ON
from health_predict.data.splits import split as split_cohort
from health_predict.errors import DataError
from health_predict.params import GateParams, IntakeParams, SplitParams
from health_predict.store import layout
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.storage import Storage
from health_predict.store.tables import read_table, table_bytes

LAG = IntakeParams.reporting_lag
LARGEST = 2**63 - 1  # no encounter_id is larger


@dataclass(frozen=True)
class Part:
    """One table that `split` writes. `outcomes`: readmissions within 30 days; rates: shares of encounters, 0 to 1.

    `first_day` and `last_day` are days of discharge, ISO 8601; None where the dataset has no days.
    """

    key: str
    rows: int
    patients: int
    outcomes: int
    readmitted_within_30_days: float
    readmitted: float
    first_day: str | None = None
    last_day: str | None = None


@dataclass(frozen=True)
class SplitReport:
    """`rows` of the cohort, `excluded` encounters that ended in death or a hospice, and the parts in order.

    `by_date` is the column that encounters were ordered by (None: file order); the `undated` ones of the cohort, which
    have no day in it, are in no part. `warnings` are sentences on doubts about the order or the outcomes.
    `gate_can_decide`: whether the test part has enough encounters and readmissions for the gate to compare models.
    """

    rows: int
    excluded: int
    parts: tuple[Part, ...]
    gate_can_decide: bool
    synthetic: bool
    by_date: str | None = None
    undated: int = 0
    warnings: tuple[str, ...] = ()
    skipped: bool = False


def split(
    storage: Storage, params: SplitParams, gate: GateParams | None = None, by_date: str | None = None
) -> SplitReport:
    """Write the initial training, validation and test tables, and the future in batches.

    The parts follow each other in file order, or by the days in the column `by_date`. Skipped when the validated
    encounters and the parameters are unchanged. Raises StorageError before `validate`; DataError when there are too few
    encounters, the order is not chronological, or there is no such column; then nothing is written.
    """
    validated, gate = completed(storage, layout.VALIDATION_MANIFEST, "data validate"), gate or GateParams()
    inputs = {
        "encounters": validated["files"][layout.VALIDATED],
        "discharges": validated["files"].get(layout.DISCHARGES),
        "by_date": by_date,
        "synthetic": validated["result"]["synthetic"],
        "params": asdict(params),
        "reporting_lag": LAG,
        "gate": {"min_rows": gate.min_rows, "min_outcomes": gate.min_outcomes},
    }

    def make() -> Made[SplitReport]:
        report, tables = _divided(storage, params, gate, by_date, validated)
        files = {key: table_bytes(table, key) for key, table in tables.items()}
        return Made(report, files, replaces=layout.FUTURE)

    return rerunnable(storage, layout.SPLIT_MANIFEST, inputs, SplitReport, make)


def plan_split(
    storage: Storage, params: SplitParams, gate: GateParams | None = None, by_date: str | None = None
) -> SplitReport:
    """The report that `split` would return; nothing is written. Raises as `split`."""
    validated = completed(storage, layout.VALIDATION_MANIFEST, "data validate")
    return _divided(storage, params, gate or GateParams(), by_date, validated)[0]


def _divided(
    storage: Storage, params: SplitParams, gate: GateParams, by_date: str | None, validated: Any
) -> tuple[SplitReport, dict[str, pl.DataFrame]]:
    encounters = read_table(storage, layout.VALIDATED)
    everyone = select_cohort(encounters)
    days, column = _days(storage, everyone, validated), validated["result"].get("discharge_column")
    if by_date is None:
        cohort, warnings = everyone, by_file(everyone, days, column, params)
    elif days is None or column != by_date:
        raise DataError(
            f"the dataset has no column {by_date} that was read as days of discharge ({column or 'none'} was): name it "
            "in HEALTH_PREDICT_DISCHARGE_COLUMN, and run `data fetch` and `data validate` again"
        )
    else:
        cohort, warnings = by_time(everyone, days, column, params, WINDOW + LAG)
        params = replace(params, first_unordered_id=LARGEST)  # days order encounters of both id schemes
    tables = _tables(cohort, params)
    dates = dict(zip(everyone["encounter_id"], days, strict=True)) if days is not None else {}
    parts = {key: _part(key, table, dates) for key, table in tables.items()}
    test = parts[layout.INITIAL_TEST]
    report = SplitReport(
        rows=everyone.height,
        excluded=encounters.height - everyone.height,
        parts=tuple(parts.values()),
        gate_can_decide=test.rows >= gate.min_rows and test.outcomes >= gate.min_outcomes,
        synthetic=validated["result"]["synthetic"],
        by_date=by_date,
        undated=everyone.height - cohort.height,
        warnings=tuple(warnings),
    )
    return report, tables


def _days(storage: Storage, cohort: pl.DataFrame, validated: Any) -> pl.Series | None:
    """Day of discharge of each encounter, in order; None where the dataset has no such column."""
    if layout.DISCHARGES not in validated["files"]:
        return None
    known = pl.read_parquet(io.BytesIO(storage.read(layout.DISCHARGES)))
    return cohort.select("encounter_id").join(known, on="encounter_id", how="left", maintain_order="left")[
        DISCHARGED_ON
    ]


def _tables(cohort: pl.DataFrame, params: SplitParams) -> dict[str, pl.DataFrame]:
    splits = split_cohort(cohort, params)
    future = enumerate(batches(splits.future, params), start=1)
    return {
        layout.INITIAL_TRAIN: splits.train,
        layout.INITIAL_VALIDATION: splits.validation,
        layout.INITIAL_TEST: splits.test,
        **{layout.future_batch(number): batch for number, batch in future},
    }


def _part(key: str, encounters: pl.DataFrame, dates: dict[int, Any]) -> Part:
    days = [day for number in encounters["encounter_id"] if (day := dates.get(number)) is not None]
    return Part(
        key=key,
        rows=encounters.height,
        patients=encounters["patient_nbr"].n_unique(),
        outcomes=int(outcome(encounters, "lt30").sum()),
        readmitted_within_30_days=float(outcome(encounters, "lt30").mean()),
        readmitted=float(outcome(encounters, "any").mean()),
        first_day=str(min(days)) if days else None,
        last_day=str(max(days)) if days else None,
    )
