"""`health-predict data validate`: the stored dataset to typed encounters and a quarantine."""

from dataclasses import asdict, dataclass

from health_predict.adapters.download import extract_csv
from health_predict.data.decode import decode
from health_predict.data.validation import Finding
from health_predict.data.validation import validate as validate_rows
from health_predict.params import ValidationParams
from health_predict.store import layout
from health_predict.store.manifests import Made, completed, rerunnable
from health_predict.store.storage import Storage
from health_predict.store.tables import SCHEMA_DIGEST, table_bytes


@dataclass(frozen=True)
class ValidationReport:
    """Counts of rows; `findings` say why rows are in the quarantine, a row with two reasons in both."""

    rows: int
    accepted: int
    quarantined: int
    findings: tuple[Finding, ...]
    synthetic: bool
    skipped: bool = False


def validate(storage: Storage, params: ValidationParams) -> ValidationReport:
    """Write the encounters that are right, the rows that are not with their reasons, and the counts.

    Skipped when dataset, schema and parameters are what they were. Raises StorageError before `fetch`, DataError
    when too many rows are bad; then nothing is written.
    """
    raw = completed(storage, layout.RAW_MANIFEST, "data fetch")["result"]
    inputs = {
        "dataset": raw["sha256"],
        "synthetic": raw["synthetic"],
        "schema": SCHEMA_DIGEST,
        "params": asdict(params),
    }

    def make() -> Made[ValidationReport]:
        validated = validate_rows(decode(extract_csv(storage.read(raw["key"]))), params)
        report = ValidationReport(
            rows=validated.encounters.height + validated.quarantined.height,
            accepted=validated.encounters.height,
            quarantined=validated.quarantined.height,
            findings=validated.summary,
            synthetic=raw["synthetic"],
        )
        files = {
            layout.VALIDATED: table_bytes(validated.encounters, layout.VALIDATED),
            layout.QUARANTINE: validated.quarantined.write_csv().encode(),
        }
        return Made(report, files)

    return rerunnable(storage, layout.VALIDATION_MANIFEST, inputs, ValidationReport, make)
