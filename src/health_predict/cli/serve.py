"""`health-predict serve`: keeps a service process running, and hands it newly promoted versions.

The service itself knows a folder, not a registry. This process resolves the model, downloads its bundle, points a
symbolic link at it, and starts the service on the link; the service verifies it. With `watch`, every now and then, and
on SIGHUP it looks again: another version moves the link, and the service is told to follow it. A registry that is down
is reported here and changes nothing; a bundle that does not verify is refused by the service, which says so in /health,
log and metrics.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from health_predict.errors import HealthPredictError
from health_predict.serving import command

GRACE_SECONDS = 60.0  # to end the requests in flight, before the service is killed
LOOK, TOLD, END = "look", "told", "end"  # what wakes the supervisor


def become(bundle: Path, host: str, port: int) -> None:
    """Replace this process by a service that has only the bundle."""
    arguments = command(bundle, host=host, port=port)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    os.execv(arguments[0], arguments)  # noqa: S606


def supervise(resolve: Callable[[], Path], host: str, port: int, watch_seconds: float | None) -> int:
    """Run the service until it or this process is told to end; returns its exit code.

    `resolve` gives the folder of the bundle that should be served. `watch_seconds` is how often it is asked besides
    SIGHUP; None: never.
    """
    wakes: SimpleQueue[str] = SimpleQueue()  # of all queues the one that a signal handler may put into
    signal.signal(signal.SIGHUP, lambda *_: wakes.put(TOLD))
    with tempfile.TemporaryDirectory(prefix="health-predict-") as folder:
        link = Path(folder) / "in-service"
        point(link, resolve())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: wakes.put(END))
        service = _start(command(link, host=host, port=port))
        try:
            threading.Thread(target=_wake_at_end, args=(service, wakes), daemon=True).start()
            _hand_over(resolve, link, service, wakes, watch_seconds)
        finally:
            code = _end(service)
    return code


def _start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    """The service. A SIGHUP that comes before it can handle one waits for it, and does not end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        return subprocess.Popen(arguments)  # noqa: S603
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wake_at_end(service: "subprocess.Popen[bytes]", wakes: "SimpleQueue[str]") -> None:
    service.wait()
    wakes.put(END)


def _hand_over(
    resolve: Callable[[], Path],
    link: Path,
    service: "subprocess.Popen[bytes]",
    wakes: "SimpleQueue[str]",
    watch_seconds: float | None,
) -> None:
    while True:
        try:
            wake = wakes.get(timeout=watch_seconds)
        except Empty:
            wake = LOOK
        if wake == END:
            return
        if _follow(resolve, link) or wake == TOLD:
            service.send_signal(signal.SIGHUP)


def _follow(resolve: Callable[[], Path], link: Path) -> bool:
    """Point the link at what should be served; returns whether that is another folder."""
    try:
        folder = resolve()
        if folder.resolve() == link.resolve():
            return False
        point(link, folder)
    except (HealthPredictError, OSError) as error:
        sys.stderr.write(f"the model in service stays: {error}\n")
        return False
    return True


def _end(service: "subprocess.Popen[bytes]") -> int:
    """Exit code of the service; above 128 when a signal ended it, as in a shell."""
    service.terminate()
    try:
        code = service.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        service.kill()
        code = service.wait()
    return code if code >= 0 else 128 - code


def point(link: Path, folder: Path) -> None:
    """Make the link point at the folder, in one step: it is never missing."""
    link.parent.mkdir(parents=True, exist_ok=True)
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(folder.resolve(), target_is_directory=True)
    draft.replace(link)
