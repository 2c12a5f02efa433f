"""A simulated machine room: one seed decides on the clock, on who goes on when, and on what fails.

Processes are actors, each in a thread of its own, of which one goes on at a time. At every access of the store or of
MLflow the seed decides whether another goes on first, whether the access fails (before it was done or after), stalls,
or is the last thing that the process did. So a seed is a world that can be had again.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from threading import Lock, Thread
from typing import Any

from health_predict.errors import ConflictError, StorageError
from health_predict.store.storage import State

FAULT = "a fault of the simulation"  # in the message of every error that the weather causes
BEGINS = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400.0
LAST = chr(0x10FFFF)  # sorts behind all that keys are made of
PATIENCE = 120.0  # seconds, of real time, until a process that does not come back is taken for one that never will


class Killed(BaseException):
    """The process is gone."""


@dataclass(frozen=True)
class Weather:
    """Chances at every access. `switches`: another process goes on first; `stalls`: for up to an hour."""

    switches: float = 0.0
    fails: float = 0.0
    stalls: float = 0.0
    kills: float = 0.0


CALM = Weather()


@dataclass
class Actor:
    """One process. `wakes`: when it goes on, in seconds."""

    number: int
    name: str
    wakes: float
    body: Callable[[], None]
    go: Any = field(default_factory=Lock)
    dead: bool = False
    ended: bool = False
    failure: BaseException | None = None


class Simulation:
    """Clock, scheduler and weather. `limit` accesses are more than any world needs: beyond it something never ends."""

    def __init__(self, seed: int, limit: int):
        self.random, self.now, self.weather = Random(seed), 0.0, CALM  # noqa: S311
        self.accesses, self.kills, self.faults, self.switches = 0, 0, 0, 0
        self.trace: list[str] | None = None  # of every access, where somebody wants to read it
        self._limit, self._count = limit, 0
        self._actors: list[Actor] = []
        self._current: Actor | None = None
        self._back = Lock()
        self._back.acquire()

    @property
    def today(self) -> datetime:
        return BEGINS + timedelta(seconds=self.now)

    @property
    def process(self) -> int:
        """Number of the process that is at work; 0 outside of all."""
        return self._current.number if self._current else 0

    def lives(self, number: int) -> bool:
        return number == 0 or any(one.number == number and not one.dead for one in self._actors)

    def start(self, name: str, body: Callable[[], None], after: float = 0.0) -> None:
        """A process that begins after so many seconds."""
        self._count += 1
        actor = Actor(self._count, name, self.now + after, body)
        actor.go.acquire()
        self._actors.append(actor)

    def run(self, respawn: Callable[[Actor], None] = lambda _killed: None) -> None:
        """Let the processes go on until all have ended; `respawn` is told of each that was killed.

        Raises what a process raised.
        """
        threads = []
        while waiting := [one for one in self._actors if not one.ended]:
            ready = [one for one in waiting if one.wakes <= self.now]
            if not ready:
                self.now = min(one.wakes for one in waiting)
                continue
            actor = ready[int(self.random.random() * len(ready))]
            self._current = actor
            if actor.body is not _STARTED:
                body, actor.body = actor.body, _STARTED
                threads.append(Thread(target=self._work, args=(actor, body), daemon=True))
                threads[-1].start()
            else:
                actor.go.release()
            assert self._back.acquire(timeout=PATIENCE), f"{actor.name} waits for another process, or for ever"
            self._current = None
            if isinstance(actor.failure, Killed):
                self.kills += 1
                respawn(actor)
            elif actor.failure is not None:
                self._end()
                raise actor.failure
        for thread in threads:
            thread.join()
        self._actors.clear()

    def sleep(self, seconds: float) -> None:
        """The process at work waits, and others go on."""
        actor = self._current
        if actor is None:
            self.now += seconds
            return
        actor.wakes = self.now + seconds
        self._back.release()
        actor.go.acquire()
        if actor.dead:
            raise Killed

    def access(self, name: str, do: Callable[[], Any], error: Callable[[str], Exception]) -> Any:
        """What the process at work does to the store or to MLflow, if the weather lets it."""
        actor, random = self._current, self.random.random
        if actor is None:
            return do()
        if actor.dead:
            raise Killed
        self.accesses += 1
        self.now += 0.05
        if self.trace is not None:
            self.trace.append(f"{self.now:12.2f} {actor.name}.{actor.number} {name}")
        assert self.accesses < self._limit, f"more than {self._limit} accesses: something never ends"
        weather, chance = self.weather, random()
        if chance < weather.switches:
            self.switches += 1
            self.sleep(0)
            return do()
        chance -= weather.switches
        if chance < weather.stalls:
            self.sleep(random() * 3_600)
            return do()
        chance -= weather.stalls
        if chance < weather.fails:
            self.faults += 1
            return self._fail(name, do, error)
        if chance - weather.fails < weather.kills:
            if random() < 0.5:
                do()
            actor.dead = True
            self._note(f"killed at {name}")
            raise Killed
        return do()

    def _fail(self, name: str, do: Callable[[], Any], error: Callable[[str], Exception]) -> Any:
        if self.random.random() < 0.5:
            do()
            self._note(f"fails after {name}")
        else:
            self._note(f"fails before {name}")
        raise error(f"{FAULT}: {name}")

    def _note(self, what: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{'':12} {what}")

    def _work(self, actor: Actor, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001  # `run` raises it, in the test's own thread
            actor.failure = error
        actor.ended = actor.dead = True
        self._back.release()

    def _end(self) -> None:
        """Nothing goes on after a failure."""
        for actor in self._actors:
            if not actor.ended and actor.body is _STARTED:
                actor.dead = True
                self._current = actor
                actor.go.release()
                self._back.acquire()
        self._current = None


def _STARTED() -> None:  # noqa: N802
    """Stands where the body of an actor was that has begun."""


class Memory:
    """A store in memory, as the `Storage` contract has it. `written(key, before, after)` is told of each change."""

    root = "memory://store"

    def __init__(
        self,
        simulation: Simulation,
        files: dict[str, bytes],
        written: Callable[[str, bytes | None, bytes | None], None] = lambda _key, _before, _after: None,
    ):
        self.files, self._simulation, self._written = files, simulation, written
        self._keys = sorted(files)

    def read(self, key: str) -> bytes:
        def do() -> bytes:
            if key not in self.files:
                raise StorageError(f"{key} is not in {self.root}")
            return self.files[key]

        return self._access("read", key, do)

    def read_with_state(self, key: str) -> tuple[bytes, State] | None:
        found = self._access("read", key, lambda: self.files.get(key))
        return None if found is None else (found, _state(found))

    def write(self, key: str, data: bytes) -> None:
        self._access("write", key, lambda: self._put(key, data))

    def write_if(self, key: str, data: bytes, state: State | None) -> None:
        def do() -> None:
            found = self.files.get(key)
            if (None if found is None else _state(found)) != state:
                raise ConflictError(f"{key} in {self.root} was changed by somebody else meanwhile; read it again")
            self._put(key, data)

        self._access("write_if", key, do)

    def exists(self, key: str) -> bool:
        return self._access("exists", key, lambda: key in self.files)

    def list(self, prefix: str = "") -> list[str]:
        def do() -> list[str]:
            first = bisect_left(self._keys, prefix)
            return self._keys[first : bisect_left(self._keys, prefix + LAST, first)]

        return self._access("list", prefix, do)

    def delete(self, key: str) -> None:
        self._access("delete", key, lambda: self._put(key, None))

    def connect(self) -> None:
        """Nothing takes time."""

    def path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def below(self, key: str) -> "Memory":
        raise NotImplementedError("a hospital has no replay in it")

    def _access(self, name: str, key: str, do: Callable[[], Any]) -> Any:
        return self._simulation.access(f"{name} {key}", do, StorageError)

    def _put(self, key: str, data: bytes | None) -> None:
        before = self.files.pop(key, None)
        if before is None and data is not None:
            insort(self._keys, key)
        elif before is not None and data is None:
            self._keys.remove(key)
        if data is not None:
            self.files[key] = data
        self._written(key, before, data)


@lru_cache(1_000)
def _state(data: bytes) -> State:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
