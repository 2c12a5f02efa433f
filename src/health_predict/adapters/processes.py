"""Processes of this machine: the identity of each, whether one has certainly ended, and how many cores are usable."""

import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
from msgspec import Meta

SYSTEM = Path("/")


@dataclass(frozen=True)
class Process:
    """Identity of a process, unique across machines, boots and containers.

    `machine` identifies the boot and the container that `pid` is unique in: equal for two processes only where each can
    see the other. `started` is the start time in the system's own unit; it tells two processes with one `pid` apart.
    """

    machine: str
    pid: Annotated[int, Meta(gt=0, lt=2**31)]
    started: str


def this_process() -> Process:
    return Process(machine(), os.getpid(), _started(os.getpid()) or "")


def is_gone(process: Process) -> bool:
    """Whether the process has certainly ended; False where that is unknown: in another container, before a boot."""
    if process.machine != machine():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's process, and alive
        return _is_another(process)
    return _is_another(process) or _is_zombie(process.pid)


def machine(system: Path = SYSTEM) -> str:
    """Digest of this host's boot and this container, within which a process id is unique."""
    parts = (socket.gethostname(), _boot(system), _namespace(system))
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def usable_cores(system: Path = SYSTEM) -> int:
    """Number of cores that this process may use, by its affinity and its container's quota; at least 1."""
    # macOS binds no process to cores.
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([float(bound), *_quotas(system)])))


def _is_another(process: Process) -> bool:
    """Whether the process id now belongs to another process."""
    found = _started(process.pid)
    return bool(found and process.started) and found != process.started


def _started(pid: int) -> str | None:
    """Start time in ticks since the boot (unmoved by clock changes) where there is /proc; None if unreadable."""
    stat = _read(SYSTEM / "proc" / str(pid) / "stat")
    if stat:
        return stat.rpartition(")")[2].split()[19]
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _boot(system: Path) -> str:
    return _read(system / "proc/sys/kernel/random/boot_id") or str(int(psutil.boot_time()))


def _namespace(system: Path) -> str:
    try:
        return str((system / "proc/self/ns/pid").readlink())
    except OSError:  # not Linux: no containers that share a kernel
        return ""


def _quotas(system: Path) -> Iterator[float]:
    """CPU quotas, in cores, of this process's control groups and of the groups above them."""
    for line in _read(system / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = system / "sys/fs/cgroup" / ("" if not controllers else "cpu")
        inside = Path(group.lstrip("/"))
        for folder in (inside, *inside.parents):  # in a container the last is its own group
            yield from _quota(mount / folder)


def _quota(folder: Path) -> Iterator[float]:
    allowed = _read(folder / "cpu.max").split()  # version 2
    allowed = allowed or [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    quota, period = allowed
    if quota not in ("max", "-1", "") and period:
        yield int(quota) / int(period)


def _read(file: Path) -> str:
    """Text of a kernel file; empty where it does not exist."""
    try:
        return file.read_text(errors="surrogateescape").strip()
    except OSError:
        return ""
