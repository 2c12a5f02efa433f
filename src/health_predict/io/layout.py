"""Where everything is below the storage root. Nothing else knows a path.

Batches are numbered from 1, in order of arrival.
"""

RAW = "raw_data/dataset."
RAW_MANIFEST = "raw_data/manifest.json"

VALIDATED = "processed_data/encounters.parquet"
QUARANTINE = "processed_data/quarantine.csv"
VALIDATION_MANIFEST = "processed_data/validation.json"

INITIAL_TRAIN = "processed_data/initial_train.parquet"
INITIAL_VALIDATION = "processed_data/initial_validation.parquet"
INITIAL_TEST = "processed_data/initial_test.parquet"
FUTURE = "processed_data/future/"
SPLIT_MANIFEST = "processed_data/split.json"

TRAINING = "reports/training.json"  # of the newest training; older ones are in MLflow
LEDGER = "promotions.jsonl"
TRACKING_DATABASE = "mlflow.db"
TRACKING_ARTIFACTS = "mlartifacts"


def raw_data(suffix: str) -> str:
    """The dataset as received; the suffix is `zip` or `csv`."""
    return f"{RAW}{suffix}"


def future_batch(number: int) -> str:
    return f"{FUTURE}batch_{number:02d}.parquet"


def predictions(number: int) -> str:
    return f"predictions/batch_{number:02d}.parquet"


def outcomes(number: int) -> str:
    return f"outcomes/batch_{number:02d}.parquet"


def drift_report(number: int) -> str:
    """For people."""
    return f"drift_reports/batch_{number:02d}/report.html"


def drift_numbers(number: int) -> str:
    """For programs."""
    return f"drift_reports/batch_{number:02d}/drift.json"


def evaluation_report(name: str) -> str:
    return f"reports/evaluation/{name}.json"


def gate_report(name: str) -> str:
    return f"reports/gate/{name}.json"


def retraining_report(name: str) -> str:
    return f"reports/retraining/{name}.json"
