"""Is a history of concurrent operations one that a sequential object could have had? (Wing and Gong 1993)

A history is a list of operations with the moments of their call and their return. It is linearizable if every
operation can be thought to happen at one moment between the two, so that each result is what the sequential model
gives. Operations of killed processes have no return: they may have happened, then or never.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NEVER = float("inf")


@dataclass(frozen=True)
class Operation:
    """What was asked and answered. `returned` is NEVER, and `result` means nothing, where the process was killed."""

    actor: str
    asked: Any
    result: Any
    called: float
    returned: float = NEVER


Step = Callable[[Any, Operation], Iterable[Hashable]]  # states after an operation whose result fits; none: it does not


def linearization(history: Sequence[Operation], first: Hashable, step: Step) -> list[Operation] | None:
    """An order of the operations that the sequential model agrees with; None where there is no such order.

    `step(state, operation)` gives the states that the operation may leave, with its result, in that state.
    """
    refuted: set[tuple[frozenset[int], Hashable]] = set()

    def search(left: frozenset[int], state: Hashable) -> list[Operation] | None:
        if all(history[one].returned == NEVER for one in left):
            return []  # what was killed need not have happened
        if (left, state) in refuted:
            return None
        earliest = min(history[one].returned for one in left)
        for one in sorted(left, key=lambda number: history[number].called):
            if history[one].called > earliest:
                continue  # another operation had ended before this one was called
            for after in step(state, history[one]):
                found = search(left - {one}, after)
                if found is not None:
                    return [history[one], *found]
        refuted.add((left, state))
        return None

    return search(frozenset(range(len(history))), first)
