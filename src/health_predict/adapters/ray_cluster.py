"""The Ray cluster that a search runs on: one started here, or the one at an address."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables would fill stdout

import ray

import health_predict
from health_predict import telemetry
from health_predict.adapters.processes import usable_cores
from health_predict.errors import ServiceError
from health_predict.store.addresses import without_secrets


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address` for the block; None: start a local cluster, and stop it afterwards.

    A leftover local cluster is never joined. Raises ServiceError when no cluster answers at the address.
    """
    if address is not None:
        _check_listening(address)
    try:
        _start() if address is None else _join(address)
    except Exception as error:  # Ray has no narrower one
        place = "on this machine" if address is None else f"at RAY_ADDRESS={without_secrets(address)}"
        reason = without_secrets(str(error)).strip().partition("\n")[0] or type(error).__name__
        raise ServiceError(f"the Ray cluster {place} did not start or answer: {reason}; try again") from error
    try:
        yield
    finally:
        ray.shutdown()


def _start() -> None:
    with _asking_no_cloud():
        ray.init(
            address="local",
            num_cpus=usable_cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )


@contextmanager
def _asking_no_cloud() -> Iterator[None]:
    """Keep the processes that Ray starts in the block from sending HTTP requests.

    One of them asks metadata.google.internal and 169.254.169.254 which cloud it runs in, even with usage reports
    switched off. The proxy set here has no listener, so these requests fail. Ray's own traffic takes no proxy.
    """
    names = ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY")
    before = {name: value for name, value in os.environ.copy().items() if name in names}
    os.environ.update(dict.fromkeys(names[:2], "http://127.0.0.1:9") | dict.fromkeys(names[2:], "127.0.0.1,localhost"))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _join(address: str) -> None:
    # The workers get this very code, whatever is installed on their machines.
    environment = {"py_modules": [health_predict], "env_vars": telemetry.OFF}
    ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")


def _check_listening(address: str) -> None:
    # Ray itself would try for minutes, and then end the process.
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto"
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ServiceError(
            f"no Ray cluster answers at RAY_ADDRESS={without_secrets(address)}; start it, or unset RAY_ADDRESS to tune "
            "on this machine"
        ) from error
