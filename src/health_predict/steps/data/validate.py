"""`health-predict data validate`: divides the stored dataset into typed encounters and a quarantine."""

import io
from dataclasses import asdict, dataclass

import polars as pl

from health_predict.adapters.download import extract_csv
from health_predict.data.decode import decode
from health_predict.data.schema import DISCHARGED_ON
from health_predict.data.validation import InvalidValues
from health_predict.data.validation import validate as validate_rows
from health_predict.params import ValidationParams
from health_predict.store import layout
from health_predict.store.intake import Clock, last_day, utc_now
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.storage import Storage
from health_predict.store.tables import SCHEMA_DIGEST, table_bytes


@dataclass(frozen=True)
class ValidationReport:
    """Counts of rows. `findings`: rows in the quarantine by reason; a row with two reasons is counted in both.

    `dated`: accepted rows with a day of discharge in the column `discharge_column` (None: there is no such column).
    """

    rows: int
    accepted: int
    quarantined: int
    findings: tuple[InvalidValues, ...]
    synthetic: bool
    skipped: bool = False
    dated: int = 0
    discharge_column: str | None = None


def validate(storage: Storage, params: ValidationParams, clock: Clock = utc_now) -> ValidationReport:
    """Write the valid encounters, the quarantined rows with their reasons, and the counts.

    Skipped when dataset, schema and parameters are unchanged. Raises StorageError before `fetch`, DataError when too
    large a share of the rows is invalid; then nothing is written.
    """
    raw = completed(storage, layout.RAW_MANIFEST, "data fetch")["result"]
    column = raw.get("discharge_column")  # absent from records of earlier versions
    inputs = {
        "dataset": raw["sha256"],
        "synthetic": raw["synthetic"],
        "schema": SCHEMA_DIGEST,
        "params": asdict(params),
        **({"discharge_column": column} if column else {}),
    }

    def make() -> Made[ValidationReport]:
        rows = decode(extract_csv(storage.read(raw["key"])), column or DISCHARGED_ON)
        validated = validate_rows(rows, params, last_day(clock))
        discharges = validated.discharges
        report = ValidationReport(
            rows=validated.encounters.height + validated.quarantined.height,
            accepted=validated.encounters.height,
            quarantined=validated.quarantined.height,
            findings=validated.summary,
            synthetic=raw["synthetic"],
            dated=0 if discharges is None else discharges[DISCHARGED_ON].count(),
            discharge_column=column,
        )
        files = {
            layout.VALIDATED: table_bytes(validated.encounters, layout.VALIDATED),
            layout.QUARANTINE: validated.quarantined.write_csv().encode(),
        }
        if discharges is not None:
            files[layout.DISCHARGES] = _parquet(discharges)
        return Made(report, files, replaces=layout.DISCHARGES)

    return rerunnable(storage, layout.VALIDATION_MANIFEST, inputs, ValidationReport, make)


def _parquet(table: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()
