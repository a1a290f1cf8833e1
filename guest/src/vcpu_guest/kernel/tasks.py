# SPDX-License-Identifier: Apache-2.0
"""Reads the threads of the guest's programs: which there are, on which CPUs they may run, and who they are.

A mask is asked for by sched_getaffinity(2), which costs a hundredth of reading /proc/PID/status: a guest may have
100,000 threads. It gives those CPUs of the mask that are active (kernel/sched/core.c, sched_getaffinity), and that is
what matters: a thread loses its mask when the last of *these* goes. Everything else is read of few threads.

All threads are seen although the unit has ProtectProc=invisible: see procfs.deadline_tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from vcpu_guest.core import workload
from vcpu_guest.core.workload import Thread

#: Bytes; none of the files that are read here is longer. In status a list of 8192 scattered CPUs takes 20,000.
_SIZE = 65536


class Tasks:
    """The threads below one /proc. `affinity`, `policy` and `pin` are the system calls; a test has its own.

    `affinity` returns a thread's CPUs, `policy` its scheduling policy, `pin` sets the CPUs; they raise OSError.
    """

    def __init__(
        self,
        proc: str = "/proc",
        affinity: Callable[[int], set[int]] = os.sched_getaffinity,
        policy: Callable[[int], int] = os.sched_getscheduler,
        pin: Callable[[int, frozenset[int]], None] = os.sched_setaffinity,
    ) -> None:
        self._proc = proc
        self.affinity = affinity
        self.policy = policy
        self.pin = pin

    def threads(self) -> Iterator[tuple[int, int]]:
        """Yield every thread as its process's id and its own. No list of them is ever made."""
        with os.scandir(self._proc) as processes:
            for process in processes:
                if not process.name.isdigit():
                    continue
                pid = int(process.name)
                try:
                    with os.scandir(f"{self._proc}/{pid}/task") as threads:
                        for thread in threads:
                            yield pid, int(thread.name)
                except OSError:  # the process has ended meanwhile
                    continue

    def is_users(self, pid: int, tid: int) -> bool | None:
        """Say whether it is a thread of a program, and not the kernel's own; None if it has ended."""
        found = workload.stat_fields(self._read(pid, tid, "stat"))
        return None if found is None else not found[1]

    def started(self, pid: int, tid: int) -> int | None:
        """Return when the thread was started, which tells it from a later one with its id; None if it has ended."""
        found = workload.stat_fields(self._read(pid, tid, "stat"))
        return None if found is None else found[2]

    def allowed(self, pid: int, tid: int) -> frozenset[int] | None:
        """Return the whole mask, with CPUs that are offline; None if the thread has ended."""
        return workload.allowed(self._read(pid, tid, "status"))

    def cgroup(self, pid: int, tid: int) -> str:
        """Return the path of the thread's cgroup, not escaped; "" if it has ended, or without cgroup v2."""
        return workload.cgroup_of(self._read(pid, tid, "cgroup"))

    def describe(self, pid: int, tid: int) -> Thread:
        """Return who a thread is, with names that may be shown."""
        found = workload.stat_fields(self._read(pid, tid, "stat"))
        cgroup = self.cgroup(pid, tid)
        return Thread(
            pid,
            tid,
            workload.escaped(found[0] if found else b"?"),
            workload.escaped(_bytes(workload.unit_of(cgroup))),
            workload.escaped(_bytes(cgroup)),
        )

    def _read(self, pid: int, tid: int, name: str) -> bytes:
        try:
            file = os.open(f"{self._proc}/{pid}/task/{tid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it has ended meanwhile
            return b""
        try:
            return os.read(file, _SIZE)
        except OSError:  # ESRCH: likewise
            return b""
        finally:
            os.close(file)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
