"""`health-predict serve`: supervises a worker process and hands it newly promoted versions.

The worker knows a folder, not a registry. The supervisor starts the worker on a symbolic link, asks the registry for
the version, downloads the bundle, points the link at the bundle and signals the worker, which verifies the bundle. On
SIGHUP, and with `watch` at regular intervals, the supervisor looks for another version, moves the link and signals
the worker. An unavailable registry is reported here and changes nothing. The worker refuses an invalid bundle and
reports the refusal in /health, log and metrics.

A look may wait for the registry, so it runs in its own thread. Every event, including the end of a look, is a wake in
one queue, so that signals are handled within HEED_SECONDS whatever the registry does.
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
    """Replace this process with a worker that serves the bundle. Does not return."""
    arguments = command(bundle, host=host, port=port)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    os.execv(arguments[0], arguments)  # noqa: S606


def supervise(
    resolve: Callable[[], Path], host: str, port: int, watch_seconds: float | None, drain_seconds: float
) -> int:
    """Run the worker until it ends or this process gets SIGTERM or SIGINT; returns the worker's exit code.

    `resolve` returns the folder of the bundle to serve. `watch_seconds`: seconds between two calls of `resolve`; None:
    only at the start and on SIGHUP, and an error of the first call is raised. With `watch_seconds`, such an error is
    reported and `resolve` called again. `drain_seconds`: seconds for which the worker still answers after the signal; a
    second signal ends it at once.
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
    """Calls `resolve` in a thread, one call at a time, and puts its result or error into the queue."""

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
    """Points the link at a resolved bundle and signals the worker."""

    def __init__(self, link: Path, service: "subprocess.Popen[bytes]", watch_seconds: float | None):
        self._link, self._service, self._watch_seconds = link, service, watch_seconds
        self._handed_over: tuple[Path, int, int] | None = None
        self._back_off = 1

    def run(self, looks: Looks, wakes: "SimpleQueue[Wake]") -> None:
        """Handle events until the worker or this process ends. Raises the error of a first look without `watch`."""
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
        """Hand the bundle folder over to the worker, if the folder is new."""
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
        """Report the error of a look on stderr. Raises the error if another look cannot repair it."""
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
    """Start the worker with SIGHUP and SIGQUIT blocked until it can handle them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGQUIT})
    try:
        return subprocess.Popen(arguments)  # noqa: S603
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wake_at_end(service: "subprocess.Popen[bytes]", wakes: "SimpleQueue[Wake]") -> None:
    service.wait()
    wakes.put(ENDED)


def _end(service: "subprocess.Popen[bytes]", wakes: "SimpleQueue[Wake]", seconds: float, has_bundle: bool) -> int:
    """End the worker; returns its exit code, above 128 if a signal ended it, as in a shell.

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
