"""What a replay asks of its store, step by step: with each step reading a document once, and as often as it needs it.

    python -m benchmarks.storage

Writes its section of docs/performance.md. Counts calls to the storage (on S3 each is a request, but for listings of
more than 1,000 keys) while invented encounters are replayed: three batches, with retrainings of LightGBM.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.markers import replace_section
from health_predict.cli.console import Output
from health_predict.cli.simulate import Options
from health_predict.cli.simulate import run as simulate
from health_predict.params import Params, SearchParams, SplitParams
from health_predict.settings import Settings
from health_predict.steps.data.fetch import fetch
from health_predict.steps.data.split import split
from health_predict.steps.data.validate import validate
from health_predict.store.read_once import ReadOnce
from health_predict.store.storage import Folder

PAGE = Path("docs/performance.md")
ROWS, BATCHES = 24_000, 3
# Little to train on, and much to compare on: a retraining brings much, and the gate can tell.
SPLIT = SplitParams(initial_share=0.35, train_share=0.35, validation_share=0.20, batches=BATCHES)
PARAMS = Params(search=SearchParams(families=("lightgbm",), trials=1), split=SPLIT)
CALLS = ("read", "read_with_state", "exists", "list", "write", "write_if", "delete")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        once = _replayed(Path(scratch) / "once")
        with patch.multiple(ReadOnce, **{name: _straight(name) for name in CALLS}):
            asked = _replayed(Path(scratch) / "asked")
    replace_section(PAGE, "storage", table(once, asked))


def table(once: Counter[str], asked: Counter[str]) -> str:
    """Markdown: a row a step, and the sum."""
    rows = [(name, asked[name], once[name]) for name in sorted(asked, key=lambda name: -asked[name])]
    rows.append(("all", asked.total(), once.total()))
    return "\n".join(
        [
            "| step | calls, as often as needed | each document once | ratio |",
            "|---|---|---|---|",
            *(f"| {name} | {before:,} | {after:,} | {after / before:.2f} |" for name, before, after in rows),
        ]
    )


def _replayed(root: Path) -> Counter[str]:
    """Calls by step while the batches are replayed; `the loop itself` is what happens between the steps."""
    settings, storage = Settings(storage=str(root), tracking_uri=None, cache=root / "cache"), Folder(str(root))
    fetch(storage, None, settings.dataset_url, ROWS, lambda _received, _total: None)
    validate(storage, PARAMS.validation)
    split(storage, PARAMS.split)
    calls: Counter[str] = Counter()
    with _counting(calls):
        simulate(settings, PARAMS, Options(api=False), Output())
    return calls


@contextmanager
def _counting(calls: Counter[str]) -> Iterator[None]:
    inside = False  # a call within a call of the folder is not another request

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(Folder, name)

        def call(self: Folder, *arguments: Any) -> Any:
            nonlocal inside
            if inside:
                return method(self, *arguments)
            calls[_step()] += 1
            inside = True
            try:
                return method(self, *arguments)
            finally:
                inside = False

        return call

    with patch.multiple(Folder, **{name: counted(name) for name in CALLS}):
        yield


def _step() -> str:
    """Name of the step that is running, from the call stack."""
    frame: Any = sys._getframe()
    while frame:
        path = Path(frame.f_code.co_filename)
        if "steps" in path.parts:
            return f"`{path.stem}`"
        frame = frame.f_back
    return "the loop itself"


def _straight(name: str) -> Callable[..., Any]:
    """The store's own method, in place of one that remembers."""
    return lambda self, *arguments: getattr(self._storage, name)(*arguments)


if __name__ == "__main__":
    main()
