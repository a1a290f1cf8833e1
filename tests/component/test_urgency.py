# SPDX-License-Identifier: Apache-2.0
"""A real ``vcpud`` goes before the guest's other programs while a CPU is to be ejected, and only then."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from threading import Thread

from kit.component.cli import done, run, until
from kit.fakes.qemu import FakeVm

#: Real-time scheduling policies that a thread may get (sched(7)).
_URGENT = {os.SCHED_FIFO, os.SCHED_RR}


def _allowed() -> bool:
    """Whether a process with this one's rights may have such a policy."""

    def ask() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        except PermissionError:
            allowed.append(False)
            return
        allowed.append(True)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    allowed: list[bool] = []
    thread = Thread(target=ask)  # policies are those of threads
    thread.start()
    thread.join()
    return allowed == [True]


def _urgent(pid: int) -> bool:
    """Whether any thread of a process has such a policy (proc_pid_stat(5), field 41)."""
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            fields = task.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # this thread has ended
        if int(fields[38]) in _URGENT:
            return True
    return False


def test_the_agents_threads_hurry_for_an_unplug_where_the_system_lets_them_and_for_no_plug() -> None:
    with tempfile.TemporaryDirectory(prefix="vu", dir="/tmp") as folder, FakeVm(Path(folder), "--smp", "1") as vm:
        assert vm.vcpud is not None
        agent = vm.vcpud.pid
        hurried = False
        ended = []

        def unplug() -> None:
            ended.append(run(vm, "unplug", "--slot", "5"))

        done(vm, {0, 5}, "plug", "--slot", "5")
        assert not _urgent(agent)
        thread = Thread(target=unplug)
        thread.start()

        def seen() -> bool:
            nonlocal hurried
            hurried = hurried or _urgent(agent)
            return hurried or not thread.is_alive()

        until(seen, 60.0, "the agent in a hurry, or the unplug's end")
        thread.join()
        assert ended[0].status == 0
        assert hurried is _allowed()
        until(lambda: not _urgent(agent), 60.0, "the agent calm again")
