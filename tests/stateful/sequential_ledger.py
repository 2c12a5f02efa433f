"""What the commands that decide promise, without files, without MLflow and without anybody else: a few lines of it."""

from dataclasses import dataclass, replace
from typing import Any

Answer = tuple[str, str | None]  # what was done, and what is in production


@dataclass(frozen=True)
class SequentialLedger:
    """`arrived` came into production, in order of the first time; `out` were rolled back."""

    production: str
    previous: str | None
    arrived: tuple[str, ...]
    out: frozenset[str] = frozenset()
    rolled_back: bool = False  # is the newest move a rollback

    def after(self, asked: tuple[Any, ...]) -> tuple["SequentialLedger", Answer]:
        """The ledger after a command, and the command's answer."""
        match asked:
            case ("promote", name, champion):
                return self._promote(name, champion)
            case ("rollback", to, left):
                return self._rollback(to, left)
        return self, ("seen", self.production)

    def _promote(self, name: str, champion: str) -> tuple["SequentialLedger", Answer]:
        if self.production == name:
            return self, ("skipped", name)
        if name in self.out:
            return self, ("declined", None)
        if self.production != champion:
            return self, ("conflict", None)
        arrived = (*self.arrived, name)
        return SequentialLedger(name, self.production, arrived, self.out), ("done", name)

    def _rollback(self, to: str | None, left: str | None) -> tuple["SequentialLedger", Answer]:
        target = to or self.previous
        if self._has_left(to, left):
            return self, ("skipped", self.production)
        if left not in (None, self.production) or target is None:
            return self, ("conflict", None)
        if target in self.out:
            return self, ("declined", None)
        out = self.out | {self.production}
        earlier = self.arrived[: self.arrived.index(target)]
        previous = next((name for name in reversed(earlier) if name not in out), None)
        moved = replace(self, production=target, previous=previous, out=out, rolled_back=True)
        return moved, ("done", target)

    def _has_left(self, to: str | None, left: str | None) -> bool:
        """Was done before what a rollback asks for."""
        if to is None and left is None:
            return self.rolled_back
        return to == self.production or (left != self.production and left in self.out)
