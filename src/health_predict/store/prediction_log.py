"""The prediction log: what the service scored, kept for monitoring, off the request's path.

One object in the store is a batch of JSON lines below `predictions/online/<day>/`; one line is a
`ScoredEncounter`. Patient and encounter are in it as keyed digests only: the same patient has the same digest, and
without the key nobody can tell who it is. With the key, the outcome of an encounter finds what was predicted of it.
"""

import hmac
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from health_predict.data.field import Value
from health_predict.errors import DataError, StorageError
from health_predict.store.background import Background
from health_predict.store.layout import ONLINE_PREDICTIONS
from health_predict.store.storage import Storage

CAPACITY = 10_000  # lines of about 1 kB that wait for a slow store: 10 MiB
BATCH = 2_000  # lines in one object
PERIOD = 10.0  # seconds until a smaller batch is written


class ScoredEncounter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line: an encounter as received (by field name, without identifiers) and its probability."""

    time: str  # UTC, ISO 8601
    request_id: str
    model_version: str
    bundle_sha256: str
    probability: float
    patient: str | None  # from `pseudonym`
    encounter: dict[str, Value | None]
    encounter_pseudonym: str | None = None  # from `pseudonym`, of encounter_id: its outcome is joined by it


def pseudonym(identifier: int, key: bytes) -> str:
    """HMAC-SHA256 of a patient or encounter number, as 64 hexadecimal digits."""
    return hmac.digest(key, str(identifier).encode(), "sha256").hex()


class PredictionLog:
    """Writes lines to the store from a thread. A full queue or a failing store loses lines, counted in `dropped`."""

    def __init__(self, storage: Storage, report: Callable[[str], None], period: float = PERIOD):
        """`report` is told why a batch could not be written."""
        self._storage, self._report = storage, report
        self._queue = Background("prediction-log", self._write, CAPACITY, period, BATCH)

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    @property
    def written(self) -> int:
        return self._queue.written

    def put(self, scored: ScoredEncounter) -> None:
        self._queue.put(msgspec.json.encode(scored))

    def close(self, timeout: float) -> None:
        """Write what is left, for at most `timeout` seconds."""
        self._queue.close(timeout)

    def _write(self, lines: list[bytes]) -> bool:
        now = datetime.now(UTC)
        key = f"{ONLINE_PREDICTIONS}{now:%Y-%m-%d}/{now:%H%M%S}-{secrets.token_hex(4)}.jsonl"
        try:
            self._storage.write(key, b"\n".join(lines) + b"\n")
        except Exception as error:  # noqa: BLE001  # what it was is reported, and the next batch is tried
            # Only our own errors are written to be read: the message of any other may hold a value.
            self._report(str(error) if isinstance(error, StorageError) else type(error).__name__)
            return False
        return True


def read_predictions(storage: Storage, day: str = "") -> Iterator[ScoredEncounter]:
    """Encounters scored on a day (`2026-01-31`), or on all days, in the order in which they were written.

    Raises StorageError when the store fails, DataError when an object is not a prediction log.
    """
    decoder = msgspec.json.Decoder(ScoredEncounter)
    for key in storage.list(f"{ONLINE_PREDICTIONS}{day}/" if day else ONLINE_PREDICTIONS):
        try:
            yield from decoder.decode_lines(storage.read(key))
        except msgspec.MsgspecError:
            # `from None`: the original error may hold a value.
            raise DataError(f"{storage.path(key)} is not a prediction log") from None
