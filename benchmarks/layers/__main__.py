"""What each layer of the worker that is written by hand buys: the worker beside one that has a library's in its place.

    python -m benchmarks.layers          all of it, about 15 minutes: the table in docs/performance.md
    python -m benchmarks.layers --only log connection

Cost is counted, not timed: instructions of a whole worker that answers a fixed number of requests on one connection,
by Valgrind (callgrind, which has to be installed), so that a busy machine changes nothing. What a layer prevents is
counted as well, on both sides in turns: connections lost, answers that did not come, faults that were not refused.
"""

import argparse
import asyncio
import http.client
import inspect
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.markers import replace_section
from benchmarks.serving.__main__ import BODIES
from benchmarks.serving.usual import make_bundle
from health_predict.serving.core import heap
from health_predict.serving.http import connection, gateway, routes, server
from health_predict.serving.journal import log, metrics
from health_predict.store import background

PAGE = Path("docs/performance.md")
PORT = 8991
REQUESTS = 1_000
ENDS, CALLERS, AT_ONCE = 15, 3, 40  # of a worker, in turns; processes; connections of each at a time
VALGRIND = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
NO_DRAIN = {"HEALTH_PREDICT_DRAIN_SECONDS": "0"}


@dataclass(frozen=True)
class Layer:
    """`ordinary`: its key in `ordinary.REPLACED`. `parts`: what it is made of. `prevents`: counts what it is for."""

    name: str
    ordinary: str
    instead: str
    parts: tuple[object, ...]
    prevents: Callable[[Path, str], str] | None = None
    on_path: bool = True  # of a request, so that its instructions are counted


@contextmanager
def worker(
    bundle: Path,
    layer: str,
    before: list[str] | None = None,
    output: int = subprocess.DEVNULL,
    ready: str = "/readyz",
    **settings: str,
) -> Iterator[psutil.Popen]:
    """A worker with the layer replaced, once `ready` is answered with 200; `before` is what runs it."""
    named = {f"HEALTH_PREDICT_{name.upper()}": value for name, value in settings.items()}
    line = [*(before or []), sys.executable, "-m", "benchmarks.layers.ordinary", layer, str(bundle), str(PORT)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", **NO_DRAIN, **named}
    process = psutil.Popen(line, env=environment, stdout=output, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: process.poll() is None and _status("GET", ready) == 200, 120)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def instructions(bundle: Path, layer: str) -> float:
    """For one request; of the whole process, its threads included."""
    with tempfile.TemporaryDirectory() as scratch:
        counts = Path(scratch) / "counts"
        with worker(bundle, layer, [*VALGRIND, f"--callgrind-out-file={counts}"], request_timeout="60") as process:
            _ask(REQUESTS // 4)
            for switch, requests in (("on", REQUESTS), ("off", 0)):
                subprocess.run(["callgrind_control", "-i", switch, str(process.pid)], check=True, capture_output=True)
                _ask(requests)
            process.terminate()
            process.wait(120)
        found = re.search(r"^totals: (\d+)", counts.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("Valgrind counted nothing")
    return int(found[1]) / REQUESTS


def faults(bundle: Path, layer: str) -> str:
    """How many kinds of bad connections are answered or ended as docs/serving.md says."""
    head, body = b"POST /predict HTTP/1.1\r\nhost: x\r\n", BODIES[0]
    whole = b"content-length: %d\r\n\r\n" % len(body) + body
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
    long = [b"x-long: " + b"a" * 24_000] * 4
    cases = [
        ([head, b"x: y\r\n" * 300, b"\r\n"], b" 431 "),
        ([head, *long], b" 431 "),
        ([head], b" 408 "),
        ([], b""),
        ([b"no http\r\n\r\n"], b"x-request-id"),
        ([head + upgrade + whole], b" 200 "),
    ]
    with worker(bundle, layer, request_timeout="0.5", connections="30") as _:
        right = sum(_is_answered(pieces, expected) for pieces, expected in cases)
        held = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(30)]
        right += _is_answered([head + whole], b" 503 ")
        for one in held:
            one.close()
    return f"{right} of {len(cases) + 1} kinds of bad connections treated as documented"


def lost_at_the_end(_bundle: Path, layer: str) -> str:
    """Connections that were made and not answered while a worker ended, as three processes made new ones all the time.

    The worker has no model and so does not drain: what comes after the draining is measured.
    """
    lost, made, ends = 0, 0, 0
    for _ in range(ENDS):
        with worker(Path("nothing"), layer, ready="/livez") as process, ProcessPoolExecutor(CALLERS) as callers:
            asking = [callers.submit(_connect_until_refused) for _ in range(CALLERS)]
            time.sleep(0.6)
            process.terminate()
            found = [asked.result() for asked in asking]
        made += sum(one for one, _ in found)
        lost += sum(one for _, one in found)
        ends += any(one for _, one in found)
    return f"{lost:,} of {made:,} connections lost, in {ends} of {ENDS} ends"


def answers_while_blocked(bundle: Path, layer: str) -> str:
    """Answers within a second each, while nobody reads what the worker logs."""
    read, write = os.pipe()
    answered = 0
    try:
        with worker(bundle, layer, output=write) as _, suppress(OSError):
            asking = http.client.HTTPConnection("127.0.0.1", PORT, timeout=1)
            for _ in range(2 * REQUESTS):
                asking.request("GET", "/livez")
                asking.getresponse().read()
                answered += 1
    finally:
        os.close(read)
        os.close(write)
    return f"{answered:,} of {2 * REQUESTS:,} requests answered while nobody reads stdout"


def resident(bundle: Path, layer: str) -> str:
    """MiB once ready, and after three more models and a thousand predictions, medians of three."""
    fresh, later = [], []
    for _ in range(3):
        with worker(bundle, layer) as process:
            fresh.append(process.memory_info().rss / 2**20)
            for reloads in (2, 3, 4):
                process.send_signal(signal.SIGHUP)
                _until(
                    lambda reloads=reloads: f'reloads_total{{result="taken_up"}} {reloads}.0' in _text("/metrics"), 30
                )
            _ask(REQUESTS)
            later.append(process.memory_info().rss / 2**20)
    return f"{statistics.median(fresh):.1f} MiB once ready, {statistics.median(later):.1f} after three reloads"


LAYERS = (
    Layer("gateway, routes", "gateway", "FastAPI: routes, dependency, middleware, handlers", (gateway, routes)),
    Layer("connection", "connection", "uvicorn's own", (connection,), faults),
    Layer("time limit of a request", "deadlines", "a timer for each", (gateway._Deadlines,)),
    Layer("metrics", "metrics", "prometheus_client's counters", (metrics,)),
    Layer("log", "log", "logging.StreamHandler", (log, background), answers_while_blocked),
    Layer("log", "log, queued", "logging.QueueHandler", (log, background), answers_while_blocked),
    Layer("packet filter at the end", "filter", "closing the sockets", (server._make_no_new_connections,),
          lost_at_the_end, on_path=False),
    Layer("memory given back", "give_back", "nothing", (heap.give_back,), resident, on_path=False),
)  # fmt: skip


def _is_answered(pieces: list[bytes], expected: bytes) -> bool:
    """Is the answer as expected, and the connection closed where it is not a good one."""
    received = b""
    with socket.create_connection(("127.0.0.1", PORT), timeout=3) as own:
        with suppress(ConnectionError):
            for piece in pieces:
                own.sendall(piece)
                time.sleep(0.05)
        try:
            while part := own.recv(65_536):
                received += part
                if b" 200 " in received:
                    break
        except ConnectionError:
            pass
        except TimeoutError:
            return False
    return expected in received


def _connect_until_refused() -> tuple[int, int]:
    """Connections made, and those of them that got no answer."""
    made = lost = 0

    async def again_and_again() -> None:
        nonlocal made, lost
        while True:
            try:
                async with asyncio.timeout(3):
                    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            except (OSError, TimeoutError):
                return
            made += 1
            try:
                writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                async with asyncio.timeout(10):
                    lost += b" 200 " not in await reader.read()
            except (OSError, TimeoutError):
                lost += 1
            writer.close()

    async def all_together() -> None:
        await asyncio.gather(*(again_and_again() for _ in range(AT_ONCE)))

    asyncio.run(all_together())
    return made, lost


def _ask(requests: int) -> None:
    asking = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    for number in range(requests):
        asking.request("POST", "/predict", BODIES[number % len(BODIES)], {"content-type": "application/json"})
        answer = asking.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"the worker answered {answer.status}")
    asking.close()


def _status(method: str, path: str) -> int:
    with suppress(OSError):
        asking = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        asking.request(method, path)
        return asking.getresponse().status
    return 0


def _text(path: str) -> str:
    asking = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    asking.request("GET", path)
    return asking.getresponse().read().decode()


def _until(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("the worker does not do what it should")
        time.sleep(0.05)


def _lines(parts: tuple[object, ...]) -> int:
    """Lines of code, without empty ones."""
    return sum(bool(line.strip()) for part in parts for line in inspect.getsource(part).splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="one is made on invented encounters if left out")
    parser.add_argument("--only", nargs="+", metavar="LAYER", help="print these, and write nothing")
    given = parser.parse_args()
    chosen = [layer for layer in LAYERS if not given.only or layer.ordinary in given.only]
    table = [
        "| layer | lines | in its place | instructions, ratio | with the layer | without |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = given.bundle or make_bundle(Path(scratch) / "bundle")
        ours = instructions(bundle, "none") if any(layer.on_path for layer in chosen) else 0.0
        again = instructions(bundle, "none") if ours else 0.0
        print(f"{ours:,.0f} instructions for a request, again {again:,.0f}", flush=True)
        for layer in chosen:
            ratio = f"{instructions(bundle, layer.ordinary) / ours:.3f}" if layer.on_path else ""
            effects = [layer.prevents(bundle, one) if layer.prevents else "" for one in ("none", layer.ordinary)]
            table.append(
                f"| {layer.name} | {_lines(layer.parts)} | {layer.instead} | {ratio} | {' | '.join(effects)} |"
            )
            print(table[-1], flush=True)
    said = f"The worker takes {ours:,.0f} instructions for a request; counted again, {again:,.0f}."
    if not given.only:
        replace_section(PAGE, "layers", "\n".join([*table, "", said]))


if __name__ == "__main__":
    main()
