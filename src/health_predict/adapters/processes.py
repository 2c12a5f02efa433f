"""Processes of this machine: which one this is, whether another is surely gone, and how many cores there are for it."""

import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

SYSTEM = Path("/")


@dataclass(frozen=True)
class Process:
    """A process, so that no other one is taken for it.

    `machine` is the boot and the container that `pid` counts in: equal for two processes only where each can see the
    other. `started` is when it began, in a unit of the system's own; two processes with one `pid` differ in it.
    """

    machine: str
    pid: int
    started: str


def this_process() -> Process:
    return Process(machine(), os.getpid(), _started(os.getpid()) or "")


def is_gone(process: Process) -> bool:
    """Is there proof that the process has ended? What runs in another container, or ran before a boot, is unknown:
    False."""
    if process.machine != machine():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, and alive
        return _is_another(process)
    return _is_another(process) or _is_zombie(process.pid)


def machine(system: Path = SYSTEM) -> str:
    """Digest of this host, since its boot, and this container: what a process id is unique in."""
    parts = (socket.gethostname(), _boot(system), _namespace(system))
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def usable_cores(system: Path = SYSTEM) -> int:
    """Cores that this process may keep busy: those it may run on, within what its container is allowed; 1 at least."""
    # macOS binds no process to cores.
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([float(bound), *_quotas(system)])))


def _is_another(process: Process) -> bool:
    """Has another process been given the id since."""
    found = _started(process.pid)
    return bool(found and process.started) and found != process.started


def _started(pid: int) -> str | None:
    """In ticks since the boot where there is /proc, as they do not follow the clock; None where it cannot be read."""
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
    """Cores' worth of time allowed by this process's control groups, and by those around them."""
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
    """Text of a file of the kernel's; empty where there is none."""
    try:
        return file.read_text(errors="surrogateescape").strip()
    except OSError:
        return ""
