"""Commands at the same time, one step of one at a time, in an order that is chosen: every interleaving can be tried.

Each command runs in a thread of its own, as an actor that waits for its turn before every access that decides
something: of the ledger, of a registered model, its versions, tags and aliases.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Semaphore, Thread
from typing import Any

from failpoints import Actor, Death, Killed, acting
from linearizability import NEVER, Operation

from health_predict.store import layout

DECISIVE = ("registered_model", "model_version", layout.LEDGER)
PATIENCE = 120.0  # seconds until a command that does not come back is taken for one that waits for another


@dataclass
class Command:
    """`asked` and what `run` returns go into the history."""

    asked: Any
    run: Callable[[], Any]
    death: Death | None = None
    go: Semaphore = field(default_factory=lambda: Semaphore(0))
    ended: bool = False
    result: Any = None
    failure: BaseException | None = None


def interleave(commands: Mapping[str, Command], turns: Iterable[int]) -> list[Operation]:
    """Run the commands, and say what was asked and answered when.

    Each number says which of the commands that are not finished takes the next step, modulo how many there are; when
    there are no more numbers it is the first. Raises what a command raised, other than `Killed`.
    """
    back, chosen, now = Semaphore(0), iter(turns), 0
    for command in commands.values():
        Thread(target=_work, args=(command, back), daemon=True).start()
    called: dict[str, int] = {}
    returned: dict[str, int] = {}
    while waiting := [name for name in commands if name not in returned]:
        name, now = waiting[next(chosen, 0) % len(waiting)], now + 2
        called.setdefault(name, now)
        commands[name].go.release()
        assert back.acquire(timeout=PATIENCE), f"{name} waits for another command, or for ever"
        if commands[name].ended:
            returned[name] = now + 1
    for command in commands.values():
        if command.failure and not isinstance(command.failure, Killed):
            raise command.failure
    return [
        Operation(name, one.asked, one.result, called[name], NEVER if one.failure else returned[name])
        for name, one in commands.items()
    ]


def _work(command: Command, back: Semaphore) -> None:
    def turn(access: str) -> None:
        if any(part in access for part in DECISIVE):
            back.release()
            command.go.acquire()

    command.go.acquire()
    try:
        with acting(Actor(command.death, turn)):
            command.result = command.run()
    except BaseException as error:  # noqa: BLE001  # `interleave` raises it, in the test's own thread
        command.failure = error
    command.ended = True
    back.release()
