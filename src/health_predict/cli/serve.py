"""`health-predict serve`: keeps a service process running, and hands it newly promoted versions.

The service itself knows a folder, not a registry. This process starts the service on a symbolic link, resolves the
model, downloads its bundle, points the link at it and tells the service, which verifies it. With `watch`, every now and
then, and on SIGHUP it looks again: another version moves the link, and the service is told to follow it. A registry
that is down is reported here and changes nothing; a bundle that does not verify is refused by the service, which says
so in /health, log and metrics.

A look takes as long as the registry likes, so it has a thread of its own. All that happens, the end of a look too, is a
wake in one queue: signals are heeded at once, whatever the registry does.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic

from health_predict.errors import HealthPredictError
from health_predict.serving import command
from health_predict.store.addresses import without_secrets

GRACE_SECONDS = 60.0  # after draining, to end the requests in flight, before the service is killed
HEED_SECONDS = 0.25  # until a signal is heeded, at the latest
MOST_BACK_OFF = 8  # times the usual pause between two looks
TOLD, END, ENDED = "told", "end", "ended"  # by a signal to look, by a signal to end; the service has ended
Wake = str | Path | Exception  # or what a look has found


def become(bundle: Path, host: str, port: int) -> None:
    """Replace this process by a service that has only the bundle."""
    arguments = command(bundle, host=host, port=port)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    os.execv(arguments[0], arguments)  # noqa: S606


def supervise(
    resolve: Callable[[], Path], host: str, port: int, watch_seconds: float | None, drain_seconds: float
) -> int:
    """Run the service until it or this process is told to end; returns its exit code.

    `resolve` gives the folder of the bundle that should be served. `watch_seconds` is how often it is asked besides
    SIGHUP; None: never. Then its error ends the service if it has nothing to serve yet; else that is waited for.
    `drain_seconds` is how long the service goes on answering when it is told to end; told again, it ends at once.
    """
    wakes: SimpleQueue[Wake] = SimpleQueue()  # of all queues the one that a signal handler may put into
    signal.signal(signal.SIGHUP, lambda *_: wakes.put(TOLD))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wakes.put(END))
    looks = Looks(resolve, wakes)
    with tempfile.TemporaryDirectory(prefix="health-predict-") as folder:
        link = Path(folder) / "in-service"
        service = _start(command(link, host=host, port=port))
        try:
            threading.Thread(target=_wake_at_end, args=(service, wakes), daemon=True).start()
            HandOver(link, service, watch_seconds).run(looks, wakes)
        finally:
            code = _end(service, wakes, drain_seconds + GRACE_SECONDS, has_bundle=link.exists())
    if looks.busy:
        _leave(code)
    return code


class Looks:
    """Looks for the bundle that should be served, one at a time; what it finds is a wake."""

    def __init__(self, resolve: Callable[[], Path], wakes: "SimpleQueue[Wake]"):
        self.busy = False
        self._resolve, self._wakes = resolve, wakes

    def begin(self) -> None:
        self.busy = True
        threading.Thread(target=self._look, name="look", daemon=True).start()

    def _look(self) -> None:
        try:
            found: Wake = self._resolve()
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            found = error
        self.busy = False
        self._wakes.put(found)


class HandOver:
    """Points the link at what is found, and tells the service."""

    def __init__(self, link: Path, service: "subprocess.Popen[bytes]", watch_seconds: float | None):
        self._link, self._service, self._watch_seconds = link, service, watch_seconds
        self._handed_over: tuple[Path, int, int] | None = None
        self._back_off = 1

    def run(self, looks: Looks, wakes: "SimpleQueue[Wake]") -> None:
        """Until the service ends, or this process is told to end. Raises what a first look without `watch` did."""
        looks.begin()
        look_again = False
        while True:
            wake = _next(wakes, None if looks.busy else self.pause)
            if wake in (END, ENDED):
                return
            if wake == TOLD:
                self._back_off = 1
                self._service.send_signal(signal.SIGHUP)
                look_again = looks.busy
            elif isinstance(wake, Exception):
                self.explain(wake)
            elif isinstance(wake, Path):
                try:
                    self.take(wake)
                except OSError as error:
                    self.explain(error)
            if not looks.busy and (wake in (None, TOLD) or look_again):
                look_again = False
                looks.begin()

    @property
    def pause(self) -> float | None:
        """Seconds until the next look; None: it waits for a signal."""
        return self._watch_seconds and self._watch_seconds * self._back_off

    def take(self, folder: Path) -> None:
        """Hand over what a look has found, if it is new."""
        found = folder.stat()
        identity = (folder.resolve(), found.st_ino, found.st_mtime_ns)
        if identity == self._handed_over:
            self._back_off = 1
            return
        # Made again under the same name, as what was there was not whole: it may be no better.
        made_again = self._handed_over is not None and identity[0] == self._handed_over[0]
        self._back_off = min(self._back_off * 2, MOST_BACK_OFF) if made_again else 1
        point(self._link, folder)
        self._handed_over = identity
        self._service.send_signal(signal.SIGHUP)

    def explain(self, error: Exception) -> None:
        """Say why a look has found nothing. Raises the error where that cannot be waited for."""
        first = self._handed_over is None
        if not isinstance(error, HealthPredictError | OSError) or (first and self._watch_seconds is None):
            raise error
        self._back_off = min(self._back_off * 2, MOST_BACK_OFF)
        again = f" (looking again in {self.pause:.0f} s)" if self.pause else ""
        said = "no model can be served yet" if first else "the model in service stays"
        with contextlib.suppress(OSError):  # that nobody reads it is no reason to stop
            sys.stderr.write(f"{said}: {without_secrets(str(error))}{again}\n")
            sys.stderr.flush()


def _next(wakes: "SimpleQueue[Wake]", seconds: float | None) -> Wake | None:
    """The next wake; None when there is none for so long.

    Waits in short pieces: a signal that the system gives to the thread of a look, or to one of a library, does not end
    the waiting of this one, and only this one runs its handler.
    """
    latest = monotonic() + (float("inf") if seconds is None else seconds)
    while True:
        try:
            return wakes.get(timeout=max(min(latest - monotonic(), HEED_SECONDS), 0.0))
        except Empty:
            if monotonic() >= latest:
                return None


def _start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    """The service. A signal that comes before it can handle one waits for it, and does not end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGQUIT})
    try:
        return subprocess.Popen(arguments)  # noqa: S603
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wake_at_end(service: "subprocess.Popen[bytes]", wakes: "SimpleQueue[Wake]") -> None:
    service.wait()
    wakes.put(ENDED)


def _end(service: "subprocess.Popen[bytes]", wakes: "SimpleQueue[Wake]", seconds: float, has_bundle: bool) -> int:
    """Exit code of the service; above 128 when a signal ended it, as in a shell.

    Not SIGTERM: from a terminal or a service manager the service may have had one already, and two end it at once.
    """
    service.send_signal(signal.SIGQUIT if has_bundle else signal.SIGTERM)
    latest = monotonic() + seconds
    while service.poll() is None:
        wake = _next(wakes, max(latest - monotonic(), 0.0))
        if wake in (None, END):
            service.kill()
        if wake in (None, END, ENDED):
            break
    code = service.wait()
    return code if code >= 0 else 128 - code


def _leave(code: int) -> None:
    """End without the look that is still going on, whose threads would keep this process until the registry answers."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def point(link: Path, folder: Path) -> None:
    """Make the link point at the folder, in one step: it is never missing."""
    link.parent.mkdir(parents=True, exist_ok=True)
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(folder.resolve(), target_is_directory=True)
    draft.replace(link)
