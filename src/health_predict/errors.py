"""The errors a user can meet, and the exit code each one ends a command with.

    HealthPredictError              (never raised itself)
    ├── DataError            10     the data does not fit: columns, types, too many bad rows
    ├── StorageError         11     the storage root, or stdout, cannot be read or written
    ├── TrackingError        12     MLflow does not answer, or answers no
    ├── BundleError          13     a bundle or its parts are missing, incomplete or altered
    ├── ConflictError        14     somebody else changed production meanwhile
    ├── ServiceError         15     the API, or a Ray cluster, does not start or does not answer
    ├── InstallationError    16     an extra of the package is not installed
    └── Declined             99     a rule said no; nothing is broken (Airflow shows it as skipped)

0 is success, 1 a bug of ours (with its traceback), 2 a command line that cannot be understood, 130 an interruption,
141 output whose reader has left (`| head -1`).
"""


class HealthPredictError(Exception):
    """Base of all errors whose message is written for the person at the command line."""

    exit_code = 1


class DataError(HealthPredictError):
    exit_code = 10


class StorageError(HealthPredictError):
    exit_code = 11


class TrackingError(HealthPredictError):
    exit_code = 12


class BundleError(HealthPredictError):
    exit_code = 13


class ConflictError(HealthPredictError):
    exit_code = 14


class ServiceError(HealthPredictError):
    exit_code = 15


class InstallationError(HealthPredictError):
    exit_code = 16


class Declined(HealthPredictError):
    """A rule said no, with its reasons. Not a failure."""

    exit_code = 99

    def __init__(self, what: str, reasons: list[str]):
        super().__init__("\n".join([what, *(f"- {reason}" for reason in reasons)]))
        self.reasons = reasons
