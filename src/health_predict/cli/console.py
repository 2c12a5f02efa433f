"""Output of a command: results on stdout, all else on stderr; progress bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from health_predict.params import Family, SearchParams

if TYPE_CHECKING:
    from health_predict.steps.model.train import Progress as Listeners
    from health_predict.store.reports import BestModel
    from health_predict.training.search import Trial

Advance = Callable[[float, float | None, str], None]  # done so far, of how much if known, what is being done
PLAIN_WIDTH = 160  # characters, where there is no terminal to fit into
PLAIN_INTERVAL = 5.0  # seconds between two lines about the same work


class Output:
    """One command's output. With `json`, stdout gets one JSON document, as its last line, and nothing else."""

    def __init__(self, json: bool = False):
        self.json = json
        self.stdout = _console(sys.stdout)
        self.stderr = _console(sys.stderr)

    def say(self, text: RenderableType) -> None:
        """Print a message on stderr. A stderr that is full or closed does not end the command."""
        with suppress(OSError):
            self.stderr.print(text)

    def result(self, report: Any, render: Callable[[Any], RenderableType]) -> None:
        """Print the command's report on stdout: as JSON, or rendered as text."""
        if self.json:
            sys.stdout.write(msgspec.json.encode(report, order="sorted").decode() + "\n")
            sys.stdout.flush()
        else:
            self.stdout.print(render(report))

    @contextmanager
    def progress(self, what: str) -> Iterator[Advance]:
        """Show the progress of a task while the block runs."""
        if not self.stderr.is_terminal:
            yield self._plain_lines(what)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.stderr, transient=True) as bars:
            task = bars.add_task(what, total=None)

            def advance(done: float, total: float | None, text: str) -> None:
                bars.update(task, completed=done, total=total, description=f"{what} {text}".strip())

            yield advance

    @contextmanager
    def training(self, search: SearchParams) -> Iterator["Listeners"]:
        """Show the trials of a search as they end, and each family's best model."""
        from health_predict.steps.model.train import Progress as Listeners  # noqa: PLC0415

        ended = 0
        with self.progress("train") as advance:

            def on_trial(family: Family, trial: "Trial") -> None:
                nonlocal ended
                ended += 1
                advance(ended, search.trials * len(search.families), f"trials, {family} AUROC {trial.score:.3f}")

            def on_model(model: "BestModel") -> None:
                self.say(f"{model.family}: best validation AUROC {model.metrics.auroc}")

            yield Listeners(on_trial, on_model)

    def _plain_lines(self, what: str) -> Advance:
        last = time.monotonic()

        def advance(done: float, total: float | None, text: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PLAIN_INTERVAL or done == total:
                last = now
                share = f"{done:,.0f} of {total:,.0f}" if total else f"{done:,.0f}"
                self.say(f"{what}: {share} {text}".rstrip())

        return advance


class _Console(Console):
    """Raises BrokenPipeError, which the command line turns into exit code 141."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stream: TextIO) -> Console:
    return _Console(file=stream, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)
