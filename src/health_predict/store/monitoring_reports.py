"""Reports of the monitor on batches and on their outcomes, as JSON in the store."""

import re
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from health_predict.errors import DataError, StorageError
from health_predict.monitoring.alarms import Alarm
from health_predict.monitoring.drift import Drift
from health_predict.monitoring.follow_up import Effect
from health_predict.monitoring.performance import Performance, PredictionDrift
from health_predict.monitoring.separation import Separation
from health_predict.store import layout
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json, write_json

Status = Literal["NO_DRIFT", "DRIFT_DETECTED"]
Document = TypeVar("Document")


@dataclass(frozen=True)
class Judged:
    """What became of a matured batch (None: of a file's encounters) under the version that scored it.

    Counts are encounters: `rows` are those whose outcomes count; `left_out` ended in death or a hospice; the version
    was trained on those `seen`, which say nothing about it. `decisions` is how many lines the ledger had when the batch
    was scored. `unjudged` says why there is no performance: too few encounters or outcomes, or follow-up of which
    nobody can know what it changed. `follow_up` is what following up the flagged seems to have done, where that is
    known; the performance is then about outcomes without it.
    """

    batch: int | None
    version: str
    decisions: int
    rows: int
    left_out: int
    seen: int
    performance: Performance | None
    unjudged: str | None = None
    follow_up: Effect | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """The findings on the outcomes, in sentences that name the batch."""
        about = "" if self.batch is None else f"Batch {self.batch}: "
        return tuple(f"{about}{reason}" for reason in self.performance.reasons) if self.performance else ()


@dataclass(frozen=True)
class MonitoringReport:
    """One batch (None: a file) under `version`, which was in production after so many `decisions` of the ledger.

    `batches` arrived since the report before and are judged together: more than one where they are small. `left_out`
    encounters of it, `reference_left_out` of a file that it is compared with, ended in death or a hospice. `outcomes`
    are judgements on other batches, those that no earlier report has, or on the file's encounters whose outcomes were
    given.

    `reasons` are the findings, whether they are new or not; none: no drift. `alarm` says which of them are new or worse
    under this version, and is what somebody should read (None: written before there were alarms). `trained_on` is the
    SHA-256 of the table that the version was fitted on, `learnt` are the batches that had matured when that was made.
    """

    name: str
    status: Status
    reasons: tuple[str, ...]
    batch: int | None
    batches: tuple[int, ...]
    version: str
    decisions: int
    synthetic: bool
    simulation: str | None  # name of the replay in whose world this was found
    left_out: int
    reference_left_out: int
    drift: Drift
    separation: Separation
    predictions: PredictionDrift
    outcomes: tuple[Judged, ...]
    trained_on: str = ""
    learnt: tuple[int, ...] = ()
    alarm: Alarm | None = None
    skipped: bool = False


def read_monitoring(storage: Storage, name: str) -> MonitoringReport:
    """Raises StorageError before `monitor`."""
    key = layout.drift_numbers(name)
    if not storage.exists(key):
        raise StorageError(f"{key} is not in {storage.root}; run `health-predict monitor` first")
    return _document(storage, key, MonitoringReport)


def read_watched(storage: Storage) -> list[MonitoringReport]:
    """The finished reports of all batches, in the order of their numbers."""
    keys = set(storage.list(layout.DRIFT_REPORTS))
    kept = sorted({name for key in keys if layout.drift_manifest(name := key.split("/")[1]) in keys})
    return sorted((read_monitoring(storage, name) for name in kept), key=lambda report: report.batch or 0)


def read_watched_days(storage: Storage, day: str) -> list[MonitoringReport]:
    """The finished reports of what the service scored on days before this one, in their order."""
    names = {"/".join(key.split("/")[1:3]) for key in storage.list(layout.LOGGED_REPORTS)}
    days = {name: found[1] for name in names if (found := re.fullmatch(r"files/logged-(\d{4}-\d\d-\d\d)-\w+", name))}
    kept = [name for name in sorted(days) if days[name] < day and storage.exists(layout.drift_manifest(name))]
    return [read_monitoring(storage, name) for name in kept]


def read_judged(storage: Storage, number: int) -> Judged | None:
    """The judgement on the outcomes of a batch; None before there is one."""
    key = layout.performance(number)
    return _document(storage, key, Judged) if storage.exists(key) else None


def judged_batches(storage: Storage) -> list[int]:
    """Numbers of the batches whose outcomes were judged."""
    prefix = f"{layout.PERFORMANCE}batch_"
    names = (key.removeprefix(prefix).removesuffix(".json") for key in storage.list(prefix))
    return sorted(int(name) for name in names if name.isdigit())


def read_judgements(storage: Storage) -> list[Judged]:
    """The judgements on the outcomes of all batches, in the order of their numbers."""
    found = [_document(storage, key, Judged) for key in storage.list(layout.PERFORMANCE)]
    return sorted(found, key=lambda judged: judged.batch or 0)


def write_judged(storage: Storage, number: int, judged: Judged) -> None:
    write_json(storage, layout.performance(number), msgspec.to_builtins(judged))


def _document(storage: Storage, key: str, kind: type[Document]) -> Document:
    try:
        return msgspec.convert(read_json(storage, key), kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{storage.path(key)} is not what this version writes: {error}") from error
