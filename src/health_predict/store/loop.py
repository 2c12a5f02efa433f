"""The loop's record of each batch: what has been done with an open batch, and how a closed one ended."""

from dataclasses import asdict, replace

import msgspec

from health_predict.errors import DataError
from health_predict.monitoring.next_action import FIRST, BatchRecord, LoopState, first_model
from health_predict.store import layout
from health_predict.store.answered import UnjudgedAnswers
from health_predict.store.batches import arrived, matured, scored
from health_predict.store.datasets import INITIAL
from health_predict.store.ledger import read_ledger
from health_predict.store.monitoring_reports import judged_batches
from health_predict.store.read_once import ReadOnce
from health_predict.store.storage import Storage
from health_predict.store.tables import read_json, write_json

NO_ANSWERS = UnjudgedAnswers()


def read_state(storage: Storage, answers: UnjudgedAnswers = NO_ANSWERS) -> LoopState:
    """Where the loop is, from what the store holds, and what is to be judged of the service's answers. Writes nothing.

    A batch whose outcomes have matured without its having been scored has nothing to be judged.
    """
    storage = ReadOnce(storage)
    ended, production = set(_numbers(storage)), read_ledger(storage).production
    judged, said, became = set(judged_batches(storage)), set(scored(storage)), matured(storage)
    return LoopState(
        production=production,
        unjudged=[number for number in became if number in said and number not in judged],
        open=[read_open(storage, number) for number in arrived(storage) if number not in ended],
        first=read_open(storage, FIRST),
        unjudged_answers=answers.known,
        judged_answers=answers.judged,
        hint=answers.hint,
        early=[number for number in became if number not in said],
    )


def read_open(storage: Storage, number: int) -> BatchRecord:
    """The record of a batch that has not ended; nothing was done yet where there is none."""
    key = layout.loop_open(number)
    if storage.exists(key):
        return _record(storage, key)
    return first_model(INITIAL.name) if number == FIRST else BatchRecord(number)


def read_ended(storage: Storage, number: int) -> BatchRecord | None:
    """The record of a batch that has ended; None while it is open."""
    if storage.exists(key := layout.loop_ended(number)):
        return _record(storage, key)
    if storage.exists(key := layout.replayed(number)):
        ended = _record(storage, key)  # of an earlier version, which wrote nothing before the batch was scored
        return replace(ended, scored=not ended.refused)
    return None


def write_record(storage: Storage, record: BatchRecord) -> None:
    """Write a batch's record. The record of a batch that has ended replaces its open one."""
    if record.has_ended:
        write_json(storage, layout.loop_ended(record.batch), asdict(record))
        storage.delete(layout.loop_open(record.batch))
    else:
        write_json(storage, layout.loop_open(record.batch), asdict(record))


def _numbers(storage: Storage) -> list[int]:
    prefixes = (layout.LOOP_ENDED, layout.REPLAYED)
    names = (key.removeprefix(prefix).removesuffix(".json") for prefix in prefixes for key in storage.list(prefix))
    return sorted({int(name) for name in names if name.isdigit()})


def _record(storage: Storage, key: str) -> BatchRecord:
    try:
        return msgspec.convert(read_json(storage, key), BatchRecord)
    except msgspec.ValidationError as error:
        raise DataError(f"{storage.path(key)} is not what this version writes: {error}") from error
