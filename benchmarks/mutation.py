"""Would the tests notice? Changes one thing at a time in the modules that decide, and counts what the tests find.

    make mutate                  # all modules, one after the other
    make mutate MODULE=gate      # one of them

mutmut works in a copy of the tree that is deleted afterwards. The tables of docs/mutation.md are replaced; what was
said there about a mutant that lives is kept as long as that mutant lives. Ends with 1 when fewer mutants of a module
are killed than is required, or when nothing is said about one that lives.
"""

import argparse
import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.markers import replace_section

PAGE = Path("docs/mutation.md")
REQUIRED = 0.85  # of all mutants
UNSAID = "(to be said)"


@dataclass(frozen=True)
class Module:
    """A file to mutate, and the tests that are to notice."""

    path: str
    tests: tuple[str, ...]
    conftest: bool = False  # whether the tests need those of the tree, which import everything


MODULES: Mapping[str, Module] = {
    "gate": Module("evaluation/gate.py", ("tests/unit/evaluation/test_gate.py",)),
    "metrics": Module("evaluation/metrics.py", ("tests/unit/evaluation/test_metrics.py",)),
    "policy": Module(
        "monitoring/retraining.py",
        ("tests/unit/monitoring/test_retraining.py", "tests/unit/monitoring/test_retraining_reasons.py"),
    ),
    "ledger": Module("store/ledger.py", ("tests/integration/test_ledger.py",), conftest=True),
    "registry": Module("adapters/registry.py", ("tests/integration/test_registry.py",), conftest=True),
}


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test noticed."""

    function: str
    was: str
    became: str

    @property
    def cells(self) -> str:
        return f"| `{self.function}` | {_code(self.was)} | {_code(self.became)} |"


@dataclass(frozen=True)
class Found:
    killed: int
    timed_out: int
    survivors: tuple[Survivor, ...]
    minutes: float

    @property
    def share(self) -> float:
        killed = self.killed + self.timed_out
        return killed / (killed + len(self.survivors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="*", choices=[*MODULES, []], default=[], help="all of them if left out")
    complete = True
    for name in parser.parse_args().module or MODULES:
        with tempfile.TemporaryDirectory() as scratch:
            found = _mutate(MODULES[name], Path(scratch))
        said = _said(PAGE.read_text())
        replace_section(PAGE, name, table(MODULES[name], found, said))
        complete &= found.share >= REQUIRED and all(survivor.cells in said for survivor in found.survivors)
        sys.stderr.write(f"{name}: {found.share:.1%} of mutants killed, {len(found.survivors)} live\n")
    sys.exit(not complete)


def table(module: Module, found: Found, said: Mapping[str, str]) -> str:
    """Markdown: how many were killed, and a row for each that lives."""
    total = found.killed + found.timed_out + len(found.survivors)
    lines = [
        f"`{module.path}`, by `{' '.join(module.tests)}`: {found.killed + found.timed_out} of {total} mutants killed "
        f"({found.share:.1%}), {found.timed_out} of them because the tests did not end; {found.minutes:.0f} minutes.",
    ]
    if found.survivors:
        lines += ["", "| in | was | became | why it may live |", "|---|---|---|---|"]
        lines += [f"{survivor.cells} {said.get(survivor.cells, UNSAID)} |" for survivor in found.survivors]
    return "\n".join(lines)


def _said(page: str) -> dict[str, str]:
    """Why each survivor of an earlier run may live, by its first three cells."""
    rows = (line.rstrip(" |").rpartition(" | ") for line in page.splitlines() if line.startswith("| `"))
    return {f"{cells} |": reason for cells, _, reason in rows if reason != UNSAID}


def _mutate(module: Module, tree: Path) -> Found:
    _copy(tree, module)
    started = time.monotonic()
    _run(tree)
    minutes = (time.monotonic() - started) / 60
    meta = json.loads((tree / "mutants/src/health_predict" / f"{module.path}.meta").read_text())
    codes = meta["exit_code_by_key"]
    lives = [name for name, code in codes.items() if code in (0, 5, 33)]  # 5 and 33: no test reaches it
    killed = sum(code in (1, 3) for code in codes.values())
    functions = _functions(tree / "mutants/src/health_predict" / module.path)
    survivors = tuple(_survivor(functions, name) for name in lives)
    return Found(killed, len(codes) - killed - len(lives), survivors, minutes)


def _functions(path: Path) -> dict[str, list[str]]:
    """Lines of every function that mutmut has written, from its arguments on: originals, and their mutants."""
    found = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return {
        node.name: [line for part in (node.args, *node.body) for line in ast.unparse(part).splitlines()]
        for node in found
    }


def _copy(tree: Path, module: Module) -> None:
    """What the tests need, with a configuration for one module."""
    for part in ("src", "tests", "docs"):
        shutil.copytree(part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    if not module.conftest:
        (tree / "tests/conftest.py").unlink()
    (tree / "pyproject.toml").write_text(Path("pyproject.toml").read_text() + _configuration(module))


def _configuration(module: Module) -> str:
    """Tests run on a folder alone: the modules do not know which storage they have, and S3 takes most of the time."""
    return f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/health_predict/{module.path}"]
also_copy = ["src", "docs"]
pytest_add_cli_args = ["-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "not s3"]
pytest_add_cli_args_test_selection = {json.dumps(module.tests)}
process_isolation = "forkserver"
forkserver_warmup = "collect"
timeout_multiplier = 30.0
timeout_constant = 3.0
use_git_change_detection = false
"""


def _survivor(functions: Mapping[str, Sequence[str]], name: str) -> Survivor:
    mangled = name.rpartition(".")[2]
    stem = mangled.rpartition("__mutmut_")[0]
    lines = list(difflib.ndiff(functions[f"{stem}__mutmut_orig"], functions[mangled]))
    return Survivor(_function(stem), _changed(lines, "-"), _changed(lines, "+"))


def _function(stem: str) -> str:
    """`xǁComparisonǁto_dict` is `Comparison.to_dict`."""
    return stem.removeprefix("xǁ").replace("ǁ", ".").removeprefix("x_")


def _changed(lines: Sequence[str], sign: str) -> str:
    return " ".join(line[2:].strip() for line in lines if line.startswith(f"{sign} "))


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|').replace('`', chr(39))}`"


def _run(tree: Path) -> None:
    stores = tree / "stores"  # trained once, by the tests of the unchanged module
    stores.mkdir()
    single = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, "PYTHONPATH": "", "TEST_STORES": str(stores), **single}
    command = [str(Path(sys.executable).parent / "mutmut"), "run", "--max-children", "1"]
    subprocess.run(command, cwd=tree, env=environment, stdout=sys.stderr, check=True)


if __name__ == "__main__":
    main()
