"""`health-predict status`: what is there, and what to do next."""

from dataclasses import dataclass
from typing import Any

from health_predict.io import layout
from health_predict.io.ledger import Entry, read_ledger
from health_predict.io.registry import PRODUCTION, Registry, Version
from health_predict.io.storage import Storage
from health_predict.io.tables import read_json


@dataclass(frozen=True)
class Status:
    """`steps` are the steps with their results so far, in order; None: not done."""

    storage: str
    tracking_uri: str
    steps: dict[str, Any]
    production: Version | None
    previous: str | None
    decisions: tuple[Entry, ...]  # newest first
    advice: str


def status(storage: Storage, registry: Registry) -> Status:
    """Reads only, except that aliases are made to follow the ledger."""
    steps = {
        name: read_json(storage, key) if storage.exists(key) else None
        for name, key in (
            ("data fetch", layout.RAW_MANIFEST),
            ("data validate", layout.VALIDATION_MANIFEST),
            ("data split", layout.SPLIT_MANIFEST),
            ("train", layout.TRAINING),
        )
    }
    ledger = read_ledger(storage)
    registry.follow(ledger.production, ledger.previous)
    pending = next((name for name, result in steps.items() if result is None), None)
    if pending is None:
        pending = "serve" if ledger.production else "evaluate` and then `health-predict promote"
    return Status(
        storage=storage.root,
        tracking_uri=registry.tracking_uri,
        steps=steps,
        production=registry.at(PRODUCTION),
        previous=ledger.previous,
        decisions=tuple(reversed(ledger.entries)),
        advice=f"run `health-predict {pending}`",
    )
