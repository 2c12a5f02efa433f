"""Commands as processes of their own that need not import first: forked from one process that has imported all.

Importing takes a command several seconds of a core. `command` starts it as `subprocess.Popen` would; what runs is a
process that can be killed, with its own environment, folder and output. Packaging is tested with real starts.
"""

import importlib
import io
import json
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAVY = ("mlflow", "mlflow.sklearn", "lightgbm", "xgboost", "sklearn.ensemble", "skl2onnx", "onnxruntime", "evidently")
NOT_BEFORE = ("__main__", "ray_cluster", "ray_search")  # Ray reads its settings from the environment when imported


class Command:
    """A running command, with what the tests use of `subprocess.Popen`."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str], start_new_session: bool = False):
        self.returncode: int | None = None
        out, err = os.pipe(), os.pipe()
        self._read: list[bytes] = [b"", b""]
        self._connection = _server().connect()
        request = [list(arguments), dict(environment), str(Path.cwd()), start_new_session]
        socket.send_fds(self._connection, [json.dumps(request).encode() + b"\n"], [out[1], err[1]])
        os.close(out[1])
        os.close(err[1])
        self._answers = self._connection.makefile("rb")
        self.pid = int(self._answers.readline())
        self._readers = [threading.Thread(target=self._drain, args=one) for one in ((0, out[0]), (1, err[0]))]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if selector.select(timeout=0):
                    self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code when it has ended; -9 where it did not live to say it."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                said = self._answers.readline()
            except TimeoutError:
                raise subprocess.TimeoutExpired("health-predict", timeout or 0) from None
            self.returncode = int(said) if said else -signal.SIGKILL
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Stdout and stderr to the end. Raises subprocess.TimeoutExpired."""
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return self._read[0].decode(), self._read[1].decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _drain(self, number: int, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as stream:
            self._read[number] = stream.read()


class _Server:
    """The process that has imported everything, which ends with this one."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="forked-")) / "socket"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEALTH_PREDICT_")}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.path)], env=environment, stdin=subprocess.PIPE
        )

    def connect(self) -> socket.socket:
        end = time.monotonic() + 120
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.path))
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                assert self._process.poll() is None, "the process that imports everything has ended"
                assert time.monotonic() < end, "the process that imports everything does not answer"
                time.sleep(0.05)
            else:
                return connection


_servers: dict[int, _Server] = {}  # by process


def _server() -> _Server:
    if os.getpid() not in _servers:
        _servers[os.getpid()] = _Server()
    return _servers[os.getpid()]


def _serve(path: str) -> None:
    before = dict(os.environ)
    for name in HEAVY:
        importlib.import_module(name)
    import health_predict

    for module in pkgutil.walk_packages(health_predict.__path__, "health_predict."):
        if not module.name.endswith(NOT_BEFORE):
            importlib.import_module(module.name)
    imported = {name: value for name, value in os.environ.items() if before.get(name) != value}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets children that have ended
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    shutil.rmtree(Path(path).parent)
                    return
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    _run(connection, imported)
                connection.close()


def _run(connection: socket.socket, imported: Mapping[str, str]) -> None:
    """In the child: become the command, say its exit code, end. `imported`: what imports put into the environment."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, descriptors = b"", []
    while not request.endswith(b"\n"):
        data, found, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        request, descriptors = request + data, descriptors + found
    arguments, environment, folder, session = json.loads(request)
    if session:
        os.setsid()
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in enumerate(("stdout", "stderr"), start=1):
        setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False), line_buffering=True))
        setattr(sys, f"__{name}__", getattr(sys, name))
    os.environ.clear()
    os.environ.update({**imported, **environment})
    os.chdir(folder)
    sys.argv = ["health-predict", *arguments]
    connection.sendall(f"{os.getpid()}\n".encode())
    code = _exit_code()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(f"{code}\n".encode())
    os._exit(code)


def _exit_code() -> int:
    import atexit

    from health_predict.cli import main

    try:
        main()
    except SystemExit as ended:
        code: Any = ended.code
        return code if isinstance(code, int) else int(code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter would
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
