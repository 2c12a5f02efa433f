"""The worker beside what a service without a model costs, and beside the usual ways to serve a pipeline.

    python -m benchmarks.serving                 requests a second, CPU, memory: a table in docs/performance.md
    python -m benchmarks.serving --soak 10       ten minutes at half of the limit: errors, latency, memory

The worker runs in an environment of its own that holds the extra `serving` only; BentoML in another. Both are
made once, below --cache. All sides run at once and are asked in turns, so that the machine's mood hits all alike;
medians of the rounds. The requests are a hundred invented encounters in turns, the same for every side.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.markers import replace_section
from benchmarks.serving.load import Target, ask
from benchmarks.serving.usual import bento_environment, make_bundle, make_pipeline, serving_environment
from health_predict.data.schema import CLINICAL
from health_predict.serving import command
from health_predict.serving.http.keys import new_key
from health_predict.simulation.synthetic import generate

PAGE = Path("docs/performance.md")
CONNECTIONS = (8, 1, 32)  # peers are asked at 8 only
NAMES = [field.name for field in CLINICAL]
ENCOUNTERS = generate(100, seed=9).select(NAMES).to_dicts()
BODIES = tuple(json.dumps(encounter).encode() for encounter in ENCOUNTERS)
WORKER, KEYS, AUDIT, BARE, FRAMEWORK = "worker", "worker, API key", "worker, API key and audit log", "bare echo", "echo"
AT_ONCE = {"HEALTH_PREDICT_DRAIN_SECONDS": "0"}  # nobody waits for a load balancer to notice
MLFLOW, BENTO = "`mlflow models serve`", "BentoML"


@dataclass(frozen=True)
class Side:
    target: Target
    line: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Round:
    per_second: float
    p99: float  # milliseconds
    cpu: float  # microseconds per request, of all its processes


@dataclass(frozen=True)
class Running:
    side: Side
    process: psutil.Process
    ready: float  # seconds until it answered

    def measure(self, connections: int, seconds: float, path: str = "") -> Round:
        target = self.side.target
        if path:
            target = Target(target.name, target.port, target.bodies, path, target.headers)
        before = self._cpu()
        times = sorted(ask(target, connections, seconds))
        cpu = self._cpu() - before
        return Round(len(times) / seconds, times[int(len(times) * 0.99)] * 1000, cpu / len(times) * 1e6)

    @property
    def resident(self) -> float:
        """MiB, of all its processes."""
        return sum(process.memory_info().rss for process in self._processes()) / 2**20

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def running(side: Side) -> Iterator[Running]:
    begun = time.perf_counter()
    process = subprocess.Popen(
        side.line, env={**os.environ, **AT_ONCE, **side.environment}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while True:
            try:
                ask(side.target, 1, 0.001)
                break
            except (OSError, SystemExit):
                if process.poll() is not None or time.perf_counter() - begun > 90:
                    raise SystemExit(f"{side.target.name} does not start") from None
                time.sleep(0.02)
        yield Running(side, psutil.Process(process.pid), time.perf_counter() - begun)
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # peers have children that outlive them
        process.wait()


def own_sides(python: Path, bundle: Path, scratch: Path) -> list[Side]:
    key, entry = new_key("bench")
    guarded = {"HEALTH_PREDICT_API_KEYS": entry}
    audited = {**guarded, "HEALTH_PREDICT_AUDIT_LOG": str(scratch / "audit.jsonl")}
    header = f"x-api-key: {key}\r\n"

    def worker(name: str, port: int, environment: dict[str, str], headers: str = "") -> Side:
        line = [str(python), *command(bundle, port=port)[1:]]
        return Side(Target(name, port, BODIES, headers=headers), line, environment)

    def echo(name: str, kind: str, port: int, python: Path) -> Side:
        line = [str(python), "-m", "benchmarks.serving.echo", kind, str(port)]
        return Side(Target(name, port, BODIES), line, {"PYTHONPATH": "."})

    return [
        worker(WORKER, 8971, {}),
        worker(KEYS, 8972, guarded, header),
        worker(AUDIT, 8973, audited, header),
        echo(FRAMEWORK, "fastapi", 8974, Path(sys.executable)),  # the service does without FastAPI
        echo(BARE, "worker", 8975, python),
    ]


def peers(scratch: Path, cache: Path) -> list[Side]:
    folder, bento = make_pipeline(scratch / "usual"), bento_environment(cache)
    mlflow = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", str(folder / "mlflow")]
    records = tuple(json.dumps({"dataframe_records": [one]}).encode() for one in ENCOUNTERS)
    wrapped = tuple(json.dumps({"encounter": one}).encode() for one in ENCOUNTERS)
    return [
        Side(
            Target(MLFLOW, 8976, records, "/invocations"),
            [*mlflow, "--env-manager", "local", "--workers", "1", "-p", "8976"],
            {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        ),
        Side(
            Target(BENTO, 8977, wrapped),
            [str(bento / "bentoml"), "serve", "service:Readmission", "--working-dir", str(folder),
             "--host", "127.0.0.1", "--port", "8977"],
            {"BENTOML_DO_NOT_TRACK": "True"},
        ),
    ]  # fmt: skip


def measure(everybody: list[Running], seconds: float, rounds: int) -> dict[tuple[str, int], Round]:
    """Medians by side and number of connections."""
    found = {}
    for connections in CONNECTIONS:
        asked = [r for r in everybody if connections == 8 or r.side.target.name not in (MLFLOW, BENTO)]
        turns = [[one.measure(connections, seconds) for one in asked] for _ in range(rounds)]
        for one, of_side in zip(asked, zip(*turns, strict=True), strict=True):
            middle = (statistics.median(getattr(r, name) for r in of_side) for name in ("per_second", "p99", "cpu"))
            found[one.side.target.name, connections] = Round(*middle)
            print(f"{one.side.target.name}, {connections} connections: {found[one.side.target.name, connections]}")
    return found


def report(everybody: list[Running], found: dict[tuple[str, int], Round], explain: Round, installed: float) -> str:
    """Markdown."""
    lines = [
        "| side | connections | requests/s | p99, ms | CPU per request, us | resident, MiB |",
        "|---|---|---|---|---|---|",
    ]
    resident = {one.side.target.name: one.resident for one in everybody}
    lines += [
        f"| {name} | {connections} | {r.per_second:,.0f} | {r.p99:.2f} | {r.cpu:,.0f} | {resident[name]:.0f} |"
        for (name, connections), r in found.items()
    ]
    worker = {connections: found[WORKER, connections] for connections in CONNECTIONS}

    def shares(other: str) -> str:
        return ", ".join(f"{worker[c].per_second / found[other, c].per_second:.0%} at {c}" for c in sorted(CONNECTIONS))

    def more(name: str, than: str) -> float:
        return statistics.mean(found[name, c].cpu - found[than, c].cpu for c in CONNECTIONS)

    lines += [
        "",
        f"Worker / echo (at least 60%): {shares(FRAMEWORK)} connections. Worker / bare echo: {shares(BARE)}.",
        f"p99 at 8 connections, worker / echo (at most 3): {worker[8].p99 / found[FRAMEWORK, 8].p99:.2f}; / bare echo: "
        f"{worker[8].p99 / found[BARE, 8].p99:.2f}.",
        *(
            f"Requests a second at 8 connections, worker / {name} (at least {asked}): "
            f"{worker[8].per_second / found[name, 8].per_second:.0f}."
            for name, asked in ((MLFLOW, 100), (BENTO, 80))
        ),
        f"An API key costs {more(KEYS, WORKER):.0f} us of CPU a request, the audit log another {more(AUDIT, KEYS):.0f} "
        "(means over the three).",
        f"`/explain`: {explain.cpu / 1000:.2f} ms of CPU (at most 2). Worker ready after {everybody[0].ready:.2f} s "
        f"(at most 1.5), {resident[WORKER]:.0f} MiB resident after all of this (at most 100). The extra `serving` is "
        f"{installed:.0f} MB installed (at most 250).",
    ]
    return "\n".join(lines)


def soak(worker: Running, minutes: float) -> str:
    """Half of what the worker can do, for so long, in turns of a minute."""
    limit = statistics.median(worker.measure(8, 3.0).per_second for _ in range(3))
    rate, begun, memory, times = limit / 2, worker.resident, [], list[float]()
    for minute in range(round(minutes)):
        times += ask(worker.side.target, 8, 60.0, rate)
        memory.append(worker.resident)
        print(f"minute {minute + 1}: {len(times):,} answers, {memory[-1]:.1f} MiB")
    times.sort()
    p50, p99, p999 = (times[int(len(times) * share)] * 1000 for share in (0.5, 0.99, 0.999))
    return (
        f"{minutes:.0f} minutes at {rate:,.0f} requests a second, half of the limit measured before: {len(times):,} "
        f"answers, no other status than 200, no connection lost. p50 {p50:.2f} ms, p99 {p99:.2f} ms, p99.9 {p999:.1f} "
        f"ms. Resident {begun:.1f} MiB at the start, {memory[0]:.1f} after one minute, {memory[-1]:.1f} at the end."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="one is made on invented encounters if left out")
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks"), help="keeps the environments")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="only this")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        bundle = given.bundle or make_bundle(Path(scratch) / "bundle")
        python, installed = serving_environment(given.cache)
        sides = own_sides(python, bundle, Path(scratch))
        if given.soak:
            replace_section(PAGE, "soak", soak(stack.enter_context(running(sides[0])), given.soak))
            return
        everybody = [stack.enter_context(running(side)) for side in [*sides, *peers(Path(scratch), given.cache)]]
        found = measure(everybody, given.seconds, given.rounds)
        explain = everybody[0].measure(1, given.seconds, "/explain")
        replace_section(PAGE, "serving", report(everybody, found, explain, installed))


if __name__ == "__main__":
    main()
