"""A store in which nothing is read twice: for a step, which reads many documents of the same few."""

from health_predict.errors import StorageError
from health_predict.store.storage import State, Storage


class ReadOnce:
    """A store for as long as one step takes. A key is asked for once, whether it is read or looked for, and a prefix
    is listed once, until this step writes there itself.

    So a step sees each document as it was at one moment. What waits for others to change something, as `settle` does,
    needs the store itself. Everything that was read stays in memory.

    With `prefixes`, for longer than a step: only what is there below these is remembered, keys that are named after
    their content.
    """

    def __init__(self, storage: Storage, prefixes: tuple[str, ...] = ()):
        self.root = storage.root
        self._prefixes = prefixes
        self._storage = storage
        self._found: dict[str, tuple[bytes, State] | None] = {}
        self._listed: dict[str, list[str]] = {}

    def read(self, key: str) -> bytes:
        found = self.read_with_state(key)
        if found is None:
            raise StorageError(f"{key} is not in {self.root}")
        return found[0]

    def read_with_state(self, key: str) -> tuple[bytes, State] | None:
        if key in self._found:
            return self._found[key]
        found = self._storage.read_with_state(key)
        if not self._prefixes or (found and key.startswith(self._prefixes)):
            self._found[key] = found
        return found

    def write(self, key: str, data: bytes) -> None:
        self._forget(key)
        self._storage.write(key, data)

    def write_if(self, key: str, data: bytes, state: State | None) -> None:
        self._forget(key)
        self._storage.write_if(key, data, state)

    def exists(self, key: str) -> bool:
        """As a rule what exists is read next, so that it is read here, and not asked for twice."""
        if self._prefixes and key not in self._found:
            return self._storage.exists(key)
        return self.read_with_state(key) is not None

    def list(self, prefix: str = "") -> list[str]:
        if self._prefixes:
            return self._storage.list(prefix)
        if prefix not in self._listed:
            self._listed[prefix] = self._storage.list(prefix)
        return list(self._listed[prefix])

    def delete(self, key: str) -> None:
        self._forget(key)
        self._storage.delete(key)

    def connect(self) -> None:
        self._storage.connect()

    def path(self, key: str) -> str:
        return self._storage.path(key)

    def below(self, key: str) -> Storage:
        return self._storage.below(key)

    def _forget(self, key: str) -> None:
        self._found.pop(key, None)
        for prefix in [one for one in self._listed if key.startswith(one)]:
            del self._listed[prefix]
