"""`health-predict serve`: keeps a service process running, and hands it newly promoted versions.

The service itself knows a folder, not a registry. This process resolves the model, downloads and verifies its bundle,
points a symbolic link at it, and starts the service on the link. On SIGHUP, and with `watch` every now and then, it
looks again: another version moves the link, and the service is told to follow it. A registry that is down, or a bundle
that is not whole, is reported and changes nothing.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from health_predict.errors import HealthPredictError
from health_predict.serving import command

GRACE_SECONDS = 60.0  # to end the requests in flight, before the service is killed


def supervise(resolve: Callable[[], Path], link: Path, host: str, port: int, watch_seconds: float | None) -> int:
    """Run the service until it or this process is told to end; returns its exit code.

    `resolve` gives the folder of the bundle that should be served. `watch_seconds` is how often it is asked besides
    SIGHUP; None: never.
    """
    point(link, resolve())
    service = subprocess.Popen(command(link, host=host, port=port))  # noqa: S603
    wake, ending = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        ending.set()
        service.terminate()
        wake.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, lambda *_: wake.set())
    threading.Thread(target=_wake_at_end, args=(service, wake), daemon=True).start()
    while service.poll() is None and not ending.is_set():
        wake.wait(watch_seconds)
        wake.clear()
        if service.poll() is None and not ending.is_set():
            _follow(resolve, link, service)
    try:
        return service.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        service.kill()
        return service.wait()


def _wake_at_end(service: "subprocess.Popen[bytes]", wake: threading.Event) -> None:
    service.wait()
    wake.set()


def _follow(resolve: Callable[[], Path], link: Path, service: "subprocess.Popen[bytes]") -> None:
    try:
        folder = resolve()
    except HealthPredictError as error:
        sys.stderr.write(f"the model in service stays: {error}\n")
        return
    if folder.resolve() != link.resolve():
        point(link, folder)
        service.send_signal(signal.SIGHUP)


def point(link: Path, folder: Path) -> None:
    """Make the link point at the folder, in one step: it is never missing."""
    link.parent.mkdir(parents=True, exist_ok=True)
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(folder.resolve(), target_is_directory=True)
    draft.replace(link)
