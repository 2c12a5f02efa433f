"""Keys of everything below the storage root. No other module knows a path.

Batches are numbered from 1, in order of arrival.
"""

NUMBER = 2  # of this layout; a store says in its first manifest which one it has

RAW = "raw_data/dataset."
RAW_MANIFEST = "raw_data/manifest.json"

VALIDATED = "processed_data/encounters.parquet"
QUARANTINE = "processed_data/quarantine.csv"
DISCHARGES = "processed_data/discharges.parquet"  # days of discharge, where the dataset has them
VALIDATION_MANIFEST = "processed_data/validation.json"

INITIAL_TRAIN = "processed_data/initial_train.parquet"
INITIAL_VALIDATION = "processed_data/initial_validation.parquet"
INITIAL_TEST = "processed_data/initial_test.parquet"
FUTURE = "processed_data/future/"
RECALIBRATIONS = "processed_data/recalibration_"
SPLIT_MANIFEST = "processed_data/split.json"

ARRIVALS, PREDICTIONS, OUTCOMES = "arrivals/batch_", "predictions/batch_", "outcomes/batch_"
ONLINE_PREDICTIONS = "predictions/online/"  # what the service scored, a folder a day

REPLAY = "reports/replay/replay.json"  # what is replayed, and from which version on
REPLAY_NUMBERS = "reports/replay/results.json"
REPLAY_PAGE = "reports/replay/index.html"

_LONGEST_STEM = 150  # bytes of UTF-8: a file's name may have 255

TABLES = "tables/"  # what models were trained on and compared on, by content
BUNDLES = "bundles/"  # what was ever in production, by content
BY_CONTENT = (TABLES, BUNDLES)
SIMULATIONS = "simulations/"  # the worlds of replays, each a store of its own
SIMULATION = "simulation.json"  # in such a world: what is replayed there
HOLDOUTS = "holdouts/"  # ids of encounters that a gate was to be asked about: no later one is
DRIFT_REPORTS = "drift_reports/batch_"  # of batches; those of files are elsewhere below
LOGGED_REPORTS = "drift_reports/files/logged-"  # of what the service scored on a day
INTAKE = "intake.jsonl"  # what a hospital handed over
KNOWN = "intake/known.parquet"  # ids of the encounters in it: an index that can be made again
LOOP_ENDED = "loop/batch_"  # how batches ended
LOOP_TURN = "loop/turn.json"  # which process works on the loop
REPLAYED = "reports/replay/batch_"  # the same, where an earlier version wrote it
PERFORMANCE = "performance/"  # what became of each matured batch
ANSWERS_MANIFEST = "reports/answers.json"  # of the newest judgement on what the service answered

TRAINING = "reports/training.json"  # of the newest training; older ones are in MLflow
LEDGER = "promotions.jsonl"
TRACKING_DATABASE = "mlflow.db"
TRACKING_ARTIFACTS = "mlartifacts"


def raw_data(suffix: str) -> str:
    """The dataset as received; the suffix is `zip` or `csv`."""
    return f"{RAW}{suffix}"


def table(digest: str) -> str:
    """A table by the SHA-256 of its file."""
    return f"{TABLES}{digest}.parquet"


def bundle(digest: str) -> str:
    """The folder of a bundle, by the SHA-256 of its bundle.json."""
    return f"{BUNDLES}{digest}"


def future_batch(number: int) -> str:
    return f"{FUTURE}batch_{number:02d}.parquet"


def batch(number: int) -> str:
    """Name of a batch, as in its files and reports."""
    return f"batch_{number:02d}"


def arrival(number: int) -> str:
    """A batch as it arrived: without outcomes. Its manifest ends in `.json`, as those of the next two do."""
    return f"arrivals/{batch(number)}.parquet"


def predictions(number: int) -> str:
    return f"predictions/{batch(number)}.parquet"


def outcomes(number: int) -> str:
    return f"outcomes/{batch(number)}.parquet"


def manifest(key: str) -> str:
    """Of a table that is a step's only file."""
    return key.removesuffix(".parquet") + ".json"


def performance(number: int) -> str:
    """How good the version that scored a batch was on it; written once, when the batch had matured."""
    return f"{PERFORMANCE}{batch(number)}.json"


def holdout(digest: str) -> str:
    """Named after what the hold-out was drawn from."""
    return f"{HOLDOUTS}{digest[:16]}.parquet"


def judged_file(stem: str, digest: str) -> str:
    """Name of a file's reports: apart from those of batches, and another for other content.

    Of a stem that is no part of a key, what stands in its way is replaced; of a long one, its beginning is taken.
    """
    allowed = "".join(sign if sign.isprintable() and sign not in "/\\" else "_" for sign in stem)
    short = allowed.encode()[:_LONGEST_STEM].decode(errors="ignore")
    return f"files/{'_' if short.startswith('.') else ''}{short}-{digest[:12]}"


def drift_report(name: str) -> str:
    """For people."""
    return f"drift_reports/{name}/report.html"


def drift_numbers(name: str) -> str:
    """For programs."""
    return f"drift_reports/{name}/drift.json"


def drift_manifest(name: str) -> str:
    return f"drift_reports/{name}/manifest.json"


def retraining_data(number: int, part: str) -> str:
    """What was matured when a batch had arrived; the part is train, validation or test."""
    return f"processed_data/retraining_{number:02d}/{part}.parquet"


def retraining_manifest(number: int) -> str:
    return f"processed_data/retraining_{number:02d}/manifest.json"


def recalibration_data(number: int, part: str) -> str:
    """Of the newest batch that was matured when a batch had arrived; the part is validation or test."""
    return f"{RECALIBRATIONS}{number:02d}/{part}.parquet"


def recalibration_manifest(number: int) -> str:
    return f"{RECALIBRATIONS}{number:02d}/manifest.json"


def training_report(fingerprint: str) -> str:
    """Of a training, by all that decides what it gives."""
    return f"reports/training/{fingerprint}.json"


def evaluation_report(name: str) -> str:
    return f"reports/evaluation/{name}.json"


def answers_report(digest: str) -> str:
    """A judgement on what the service answered, by the answers and outcomes that it is about."""
    return f"reports/answers/{digest[:16]}.json"


def retraining_report(name: str) -> str:
    return f"reports/retraining/{name}.json"


def quarantine(digest: str) -> str:
    """Rows of a file of encounters that did not fit, by their content."""
    return f"intake/quarantine_{digest[:16]}.csv"


def loop_open(number: int) -> str:
    """How far the loop is with a batch that has not ended."""
    return f"loop/open/{batch(number)}.json"


def loop_ended(number: int) -> str:
    """How a batch ended; the loop is beyond it where this is there."""
    return f"{LOOP_ENDED}{number:02d}.json"


def replayed(number: int) -> str:
    """How a batch of a replay ended, as an earlier version wrote it."""
    return f"{REPLAYED}{number:02d}.json"
