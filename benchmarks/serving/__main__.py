"""Requests per second of the worker beside the echo, and with --peers beside the usual ways to serve a pipeline:
`python -m benchmarks.serving [--bundle FOLDER] [--peers CACHE]`. CACHE keeps BentoML's own environment.

All sides run at once and are asked in turns, so that the machine's mood hits all alike; medians of the rounds. One
connection is one asyncio stream that sends the next request when the answer is there.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.serving.usual import NAMES, bento_environment, make_bundle, make_pipeline
from health_predict.data.schema import CLINICAL
from health_predict.serving import command
from health_predict.serving.keys import new_key

BODY = json.dumps({field.name: field.example for field in CLINICAL if field.required}).encode()
CONNECTIONS = (1, 8, 32)


@dataclass(frozen=True)
class Side:
    name: str
    line: list[str]
    port: int
    environment: dict[str, str]
    headers: str = ""
    path: str = "/predict"
    body: bytes = BODY


@dataclass(frozen=True)
class Round:
    per_second: float
    p99: float  # milliseconds


async def ask(side: Side, connections: int, seconds: float) -> Round:
    """Load one side."""
    request = (
        f"POST {side.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{side.headers}"
        f"content-length: {len(side.body)}\r\n\r\n"
    ).encode() + side.body
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        while (started := time.perf_counter()) < until or not times:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{side.name} answered {head[:40]!r}")
            length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            times.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return Round(len(times) / seconds, sorted(times)[int(len(times) * 0.99)] * 1000)


@contextmanager
def started(side: Side) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The process, and the seconds until it answered."""
    begun = time.perf_counter()
    process = subprocess.Popen(side.line, env={**os.environ, **side.environment}, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                uvloop.run(ask(side, 1, 0.001))
                break
            except (OSError, SystemExit):
                if process.poll() is not None or time.perf_counter() - begun > 60:
                    raise SystemExit(f"{side.name} does not start") from None
                time.sleep(0.02)
        yield process, time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


def resident(process: subprocess.Popen[bytes]) -> float:
    """MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def sides(bundle: Path, scratch: Path) -> list[Side]:
    key, entry = new_key("bench")
    guarded = {"HEALTH_PREDICT_API_KEYS": entry, "HEALTH_PREDICT_AUDIT_LOG": str(scratch / "audit.jsonl")}
    return [
        Side("worker", command(bundle, port=8971), 8971, {}),
        Side("worker, key and audit", command(bundle, port=8972), 8972, guarded, f"x-api-key: {key}\r\n"),
        Side("echo", [sys.executable, "-m", "benchmarks.serving.echo", "8973"], 8973, {}),
    ]


def peers(scratch: Path, cache: Path) -> list[Side]:
    folder, bento = make_pipeline(scratch / "usual"), bento_environment(cache)
    encounter = {name: json.loads(BODY).get(name) for name in NAMES}
    mlflow = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", str(folder / "mlflow")]
    return [
        Side(
            "mlflow models serve", [*mlflow, "--env-manager", "local", "-p", "8974"], 8974,
            {"MLFLOW_DISABLE_TELEMETRY": "true"}, path="/invocations",
            body=json.dumps({"dataframe_records": [encounter]}).encode(),
        ),
        Side(
            "BentoML", [str(bento / "bentoml"), "serve", "service:Readmission", "--working-dir", str(folder),
                        "--host", "127.0.0.1", "--port", "8975"], 8975,
            {"BENTOML_DO_NOT_TRACK": "True"}, body=json.dumps({"encounter": encounter}).encode(),
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--bundle", type=Path, help="one is made on invented encounters if left out")
    parser.add_argument("--peers", type=Path, metavar="CACHE", help="also measure mlflow models serve and BentoML")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        chosen = sides(given.bundle or make_bundle(Path(scratch) / "bundle"), Path(scratch))
        if given.peers:
            chosen += peers(Path(scratch), given.peers)
        running = [(side, *stack.enter_context(started(side))) for side in chosen]
        print("| side | connections | req/s | p99, ms | MiB | ready, s |\n|---|---|---|---|---|---|")
        for connections in CONNECTIONS:
            rounds = [
                [uvloop.run(ask(side, connections, given.seconds)) for side, _, _ in running]
                for _ in range(given.rounds)
            ]
            for (side, process, ready), of_side in zip(running, zip(*rounds, strict=True), strict=True):
                per_second = statistics.median(r.per_second for r in of_side)
                p99 = statistics.median(r.p99 for r in of_side)
                print(
                    f"| {side.name} | {connections} | {per_second:,.0f} | {p99:.2f} | {resident(process):.0f} "
                    f"| {ready:.2f} |"
                )


if __name__ == "__main__":
    main()
