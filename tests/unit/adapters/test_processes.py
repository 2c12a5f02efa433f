"""Cores and processes, as kernels and containers tell of them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from health_predict.adapters import processes
from health_predict.adapters.processes import is_gone, machine, this_process, usable_cores


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
        (
            {  # the group around this one is narrower
                "proc/self/cgroup": "0::/pod/worker\n",
                "sys/fs/cgroup/pod/worker/cpu.max": "600000 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
            },
            2,
        ),
        (  # the host's name for the group, and the container's own view of it
            {"proc/self/cgroup": "0::/docker/4f2a\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"},
            4,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/docker/4f2a\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/4f2a\n",
                "sys/fs/cgroup/cpu/docker/4f2a/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/docker/4f2a/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_cores_are_those_that_the_container_may_use(monkeypatch, tmp_path, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    assert usable_cores(system(tmp_path, files)) == cores


@pytest.mark.parametrize(("counted", "cores"), [(6, 6), (None, 1)])
def test_a_system_that_binds_no_process_to_cores_counts_them(monkeypatch, tmp_path, counted, cores):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert usable_cores(tmp_path) == cores


def test_this_process_is_not_gone_and_one_that_ended_is():
    mine = this_process()
    assert mine.pid == os.getpid()
    assert not is_gone(mine)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert is_gone(replace(mine, pid=ended.pid))


def test_a_process_that_nobody_has_waited_for_is_gone():
    mine = this_process()
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        ended.stdout.read()
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(replace(mine, pid=ended.pid, started=""))


def test_an_id_that_was_given_to_another_process_is_told_by_when_it_began():
    assert is_gone(replace(this_process(), started="1"))


@pytest.mark.parametrize("machine", ["another host, boot or container", ""])
def test_what_runs_elsewhere_is_left_alone(machine):
    assert not is_gone(replace(this_process(), machine=machine, pid=2**22))


def test_somebody_elses_process_is_not_gone(monkeypatch):
    def forbidden(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert not is_gone(this_process())


def test_without_a_process_table_nothing_that_lives_is_gone(monkeypatch):
    """macOS: no /proc. psutil answers there, and where it may not, nothing is known."""
    monkeypatch.setattr(processes, "SYSTEM", Path("/nowhere"))
    mine = this_process()
    assert mine.started == str(psutil.Process().create_time())
    assert not is_gone(mine)
    assert is_gone(replace(mine, started="1.0"))

    def denied(_pid: int) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "Process", denied)
    assert not is_gone(mine)
    assert not is_gone(replace(mine, started="1.0"))


@pytest.mark.parametrize("changed", ["proc/sys/kernel/random/boot_id", "proc/self/ns/pid"])
def test_a_machine_is_a_boot_and_a_container(tmp_path, changed):
    root = system(tmp_path, {"proc/sys/kernel/random/boot_id": "1f2e\n", "proc/self/ns/other": ""})
    (root / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    before = machine(root)
    assert machine(root) == before
    (root / changed).unlink()
    if changed.endswith("pid"):
        (root / changed).symlink_to("pid:[4026532001]")
    else:
        (root / changed).write_text("9a9a\n")
    assert machine(root) != before


def test_a_system_without_containers_is_known_by_its_boot(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "boot_time", lambda: 1_700_000_000.0)
    before = machine(tmp_path)
    assert machine(tmp_path) == before
    monkeypatch.setattr(psutil, "boot_time", lambda: 1_800_000_000.0)
    assert machine(tmp_path) != before
