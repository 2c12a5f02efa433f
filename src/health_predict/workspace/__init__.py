"""What is in production, and what the steps that decide about it work with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from health_predict.store import layout
from health_predict.store.read_once import ReadOnce
from health_predict.store.storage import Storage

if TYPE_CHECKING:  # MLflow takes seconds to import, and what the ledger knows needs none of it
    from health_predict.adapters.registry import Registry


@dataclass(frozen=True)
class Workspace:
    """A store, the registry with the model that the store's ledger speaks for, and this machine's cache of bundles.

    The registry is opened when it is first needed. `has_registry`: False where MLflow is a file that nothing was
    written to yet; what only reads must not make it.
    """

    storage: Storage
    open_registry: Callable[[], "Registry"]
    cache: Path
    has_registry: bool = True

    @cached_property
    def registry(self) -> "Registry":
        """Raises what `open_registry` raises: TrackingError where MLflow does not answer."""
        return self.open_registry()

    def reading_once(self) -> "Workspace":
        """The same for one step, which reads each document once (`store.read_once`)."""
        return replace(self, storage=ReadOnce(self.storage), open_registry=self.connect)

    def for_many_steps(self) -> "Workspace":
        """The same for a process that runs steps one after another: tables and bundles, named after their content, are
        read once."""
        kept = ReadOnce(self.storage, layout.BY_CONTENT)
        return replace(self, storage=kept, open_registry=self.connect)

    def connect(self) -> "Registry":
        """The registry, for what may turn out not to need it."""
        return self.registry
