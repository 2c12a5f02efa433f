"""`health-predict data split`: the cohort into initial data and batches to replay."""

from dataclasses import asdict, dataclass

import polars as pl

from health_predict.data.batches import batches
from health_predict.data.cohort import outcome, select_cohort
from health_predict.data.splits import split as split_cohort
from health_predict.params import GateParams, SplitParams
from health_predict.store import layout
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.storage import Storage
from health_predict.store.tables import read_table, table_bytes


@dataclass(frozen=True)
class Part:
    """One file. `outcomes` are readmissions within 30 days; rates are shares of the encounters, 0 to 1."""

    key: str
    rows: int
    patients: int
    outcomes: int
    readmitted_within_30_days: float
    readmitted: float


@dataclass(frozen=True)
class SplitReport:
    """`rows` of the cohort, `excluded` ones who died or went to a hospice, and the parts in file order.

    `gate_can_decide`: are there enough encounters and readmissions in the test part for the gate to compare on.
    """

    rows: int
    excluded: int
    parts: tuple[Part, ...]
    gate_can_decide: bool
    synthetic: bool
    skipped: bool = False


def split(storage: Storage, params: SplitParams, gate: GateParams | None = None) -> SplitReport:
    """Write initial train, validation and test data, and the future in batches.

    Skipped when the validated encounters and the parameters are what they were. Raises StorageError before
    `validate`, DataError when there are too few encounters; then nothing is written.
    """
    validated = completed(storage, layout.VALIDATION_MANIFEST, "data validate")
    synthetic = validated["result"]["synthetic"]
    inputs = {"encounters": validated["files"][layout.VALIDATED], "synthetic": synthetic, "params": asdict(params)}

    def make() -> Made[SplitReport]:
        report, tables = _divided(storage, params, gate or GateParams(), synthetic)
        files = {key: table_bytes(table, key) for key, table in tables.items()}
        return Made(report, files, replaces=layout.FUTURE)

    return rerunnable(storage, layout.SPLIT_MANIFEST, inputs, SplitReport, make)


def plan_split(storage: Storage, params: SplitParams, gate: GateParams | None = None) -> SplitReport:
    """What `split` would give; nothing is written. Raises as `split`."""
    validated = completed(storage, layout.VALIDATION_MANIFEST, "data validate")
    return _divided(storage, params, gate or GateParams(), validated["result"]["synthetic"])[0]


def _divided(
    storage: Storage, params: SplitParams, gate: GateParams, synthetic: bool
) -> tuple[SplitReport, dict[str, pl.DataFrame]]:
    encounters = read_table(storage, layout.VALIDATED)
    cohort = select_cohort(encounters)
    tables = _tables(cohort, params)
    parts = {key: _part(key, table) for key, table in tables.items()}
    test = parts[layout.INITIAL_TEST]
    report = SplitReport(
        rows=cohort.height,
        excluded=encounters.height - cohort.height,
        parts=tuple(parts.values()),
        gate_can_decide=test.rows >= gate.min_rows and test.outcomes >= gate.min_outcomes,
        synthetic=synthetic,
    )
    return report, tables


def _tables(cohort: pl.DataFrame, params: SplitParams) -> dict[str, pl.DataFrame]:
    splits = split_cohort(cohort, params)
    future = enumerate(batches(splits.future, params), start=1)
    return {
        layout.INITIAL_TRAIN: splits.train,
        layout.INITIAL_VALIDATION: splits.validation,
        layout.INITIAL_TEST: splits.test,
        **{layout.future_batch(number): batch for number, batch in future},
    }


def _part(key: str, encounters: pl.DataFrame) -> Part:
    return Part(
        key=key,
        rows=encounters.height,
        patients=encounters["patient_nbr"].n_unique(),
        outcomes=int(outcome(encounters, "lt30").sum()),
        readmitted_within_30_days=float(outcome(encounters, "lt30").mean()),
        readmitted=float(outcome(encounters, "any").mean()),
    )
