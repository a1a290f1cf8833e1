# SPDX-License-Identifier: Apache-2.0
"""What guests' kernels do to threads, cpusets, partitions, units and queues when CPUs go and come.

Each function makes one table, on a guest with four CPUs in slots 0 to 3; it leaves them there. CPUs 2 and 3 are the two
that go. CPUs are switched by the guest's own files: what the kernel does is the same, and quicker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kit.e2e.machine import Machine
from kit.e2e.programs import CGROUPS, allowed, cpulist, numbers, pinned, put, shell, sleeper

#: What is seen, by what happens: a row of a table.
Row = Mapping[str, str]
Table = Mapping[str, Row]

_CPU = "/sys/devices/system/cpu"
_AWAKE = 0.3  # seconds in which a thread that wakes up every 0.02 s certainly has


def _switch(machine: Machine, *cpus: int, online: bool) -> None:
    lines = "".join(f"echo {int(online)} >{_CPU}/cpu{number}/online;" for number in cpus)
    shell(machine, f"{lines} busybox usleep {int(_AWAKE * 1e6)}")


def _two(machine: Machine) -> tuple[int, int]:
    first, second = numbers(machine, 2, 3)
    return first, second


def _getaffinity(machine: Machine, pid: int) -> str:
    script = f"import os; print(*sorted(os.sched_getaffinity({pid})), sep=',')"
    return shell(machine, f'python3 -c "{script}"') or "none"


def affinity(machine: Machine) -> Table:
    """Masks of pinned threads: Cpus_allowed_list, and what sched_getaffinity gives."""
    first, second = _two(machine)
    tasks = {
        f"pinned to 3, {how}": (pinned(machine, f"one-{how}", [second], how), (second,)) for how in ("awake", "asleep")
    } | {
        f"pinned to 2-3, {how}": (pinned(machine, f"two-{how}", [first, second], how), (first, second))
        for how in ("awake", "asleep")
    }
    rows: dict[str, dict[str, str]] = {name: {} for name in tasks}

    def look(when: str) -> None:
        for name, (pid, _) in tasks.items():
            rows[name][when] = f"{allowed(machine, pid)} ({_getaffinity(machine, pid)})"

    look("all online")
    _switch(machine, second, online=False)
    look("3 off")
    _switch(machine, first, online=False)
    look("2 and 3 off")
    _switch(machine, first, online=True)
    _switch(machine, second, online=True)
    look("both back")
    for pid, _ in tasks.values():
        shell(machine, f"kill -KILL {pid}")
    return rows


def child_cpusets(machine: Machine) -> Table:
    """Masks of threads in a cgroup below the root, while the cpuset controller is on and nothing is set there."""
    first, second = _two(machine)
    shell(machine, f"echo +cpuset >{CGROUPS}/cgroup.subtree_control; mkdir -p {CGROUPS}/child")
    masks = {"pinned to 1": [1], "pinned to 3": [second], "pinned to 2-3": [first, second]}
    pids = {name: pinned(machine, f"c{number}", mask, "awake") for number, (name, mask) in enumerate(masks.items())}
    rows: dict[str, dict[str, str]] = {name: {} for name in masks}

    def look(when: str) -> None:
        for name, pid in pids.items():
            rows[name][when] = allowed(machine, pid)

    for pid in pids.values():
        shell(machine, f"echo {pid} >{CGROUPS}/child/cgroup.procs")
    look("moved into it")
    for name, pid in pids.items():
        mask = masks[name]
        shell(machine, f"python3 -c 'import os; os.sched_setaffinity({pid}, {mask})'")
    _switch(machine, second, online=False)
    look("3 off")
    _switch(machine, second, online=True)
    look("3 back")
    for pid in pids.values():
        shell(machine, f"kill -KILL {pid}")
    return rows


def cpusets(machine: Machine) -> Table:
    """cpuset.cpus.effective of a cgroup with cpuset.cpus=2-3, and the CPUs of a thread without a mask in it."""
    first, second = _two(machine)
    shell(machine, f"echo +cpuset >{CGROUPS}/cgroup.subtree_control; mkdir -p {CGROUPS}/set")
    shell(machine, f"echo {cpulist([first, second])} >{CGROUPS}/set/cpuset.cpus")
    pid = sleeper(machine, "set")
    rows: dict[str, dict[str, str]] = {"cpuset.cpus.effective": {}, "a thread in it": {}}

    def look(when: str) -> None:
        rows["cpuset.cpus.effective"][when] = shell(machine, f"cat {CGROUPS}/set/cpuset.cpus.effective")
        rows["a thread in it"][when] = _getaffinity(machine, pid)

    _round(machine, first, second, look)
    shell(machine, f"kill -KILL {pid}; busybox usleep 300000; rmdir {CGROUPS}/set")
    return rows


def _round(machine: Machine, first: int, second: int, look: Callable[[str], None]) -> None:
    look("all online")
    _switch(machine, second, online=False)
    look("3 off")
    _switch(machine, first, online=False)
    look("2 and 3 off")
    _switch(machine, first, online=True)
    look("2 back")
    _switch(machine, second, online=True)
    look("both back")


def partitions(machine: Machine) -> Table:
    """State and CPUs of a partition with a task in it, and what the root cgroup has left."""
    first, second = _two(machine)
    rows: dict[str, dict[str, str]] = {}
    for kind in ("root", "isolated"):
        shell(machine, f"echo +cpuset >{CGROUPS}/cgroup.subtree_control; mkdir -p {CGROUPS}/{kind}")
        shell(machine, f"echo {cpulist([first, second])} >{CGROUPS}/{kind}/cpuset.cpus")
        shell(machine, f"echo {kind} >{CGROUPS}/{kind}/cpuset.cpus.partition")
        pid = sleeper(machine, kind)
        state, left = rows.setdefault(f"{kind}: state", {}), rows.setdefault(f"{kind}: the root's CPUs", {})
        own = rows.setdefault(f"{kind}: its CPUs", {})

        def look(
            when: str,
            kind: str = kind,
            state: dict[str, str] = state,
            own: dict[str, str] = own,
            left: dict[str, str] = left,
        ) -> None:
            state[when] = shell(machine, f"cat {CGROUPS}/{kind}/cpuset.cpus.partition")
            own[when] = shell(machine, f"cat {CGROUPS}/{kind}/cpuset.cpus.effective")
            left[when] = shell(machine, f"cat {CGROUPS}/cpuset.cpus.effective")

        _round(machine, first, second, look)
        shell(machine, f"kill -KILL {pid}; echo member >{CGROUPS}/{kind}/cpuset.cpus.partition")
        shell(machine, f"busybox usleep 300000; rmdir {CGROUPS}/{kind}")
    return rows


def units(machine: Machine) -> Table:
    """How a unit with CPUAffinity= starts: systemd's Result and ExecMainStatus."""
    first, second = _two(machine)
    affinities = {"CPUAffinity=3": str(second), "CPUAffinity=2-3": cpulist([first, second])}
    for number, text in enumerate(affinities.values()):
        put(
            machine,
            f"/run/systemd/system/aff{number}.service",
            f"[Service]\nExecStart=sleep 1000000\nCPUAffinity={text}\n",
        )
    shell(machine, "systemctl daemon-reload")
    rows: dict[str, dict[str, str]] = {name: {} for name in affinities}

    def look(when: str) -> None:
        for number, name in enumerate(affinities):
            unit = f"aff{number}.service"
            shell(machine, f"systemctl reset-failed {unit} 2>/dev/null; systemctl restart {unit} || true")
            ended = f"systemctl show -p SubState --value {unit} | grep -Eq 'running|failed'"
            shell(machine, f"until {ended}; do busybox usleep 100000; done")
            status = shell(machine, f"systemctl show -p ActiveState -p ExecMainStatus --value {unit}").split()
            rows[name][when] = (
                "starts" if "active" in status else f"fails, status {next(w for w in status if w.isdigit())}"
            )

    look("all online")
    _switch(machine, second, online=False)
    look("3 off")
    _switch(machine, first, online=False)
    look("2 and 3 off")
    _switch(machine, first, second, online=True)
    look("both back")
    shell(machine, "systemctl stop aff0 aff1; rm -f /run/systemd/system/aff?.service")
    return rows


def counters(machine: Machine) -> Table:
    """The row of CPU 3 in /proc/stat while it is away, and after."""
    (second,) = numbers(machine, 3)
    line = f"grep '^cpu{second} ' /proc/stat || echo none"

    def idle(text: str) -> str:
        return "no row" if text == "none" else "a row"

    before = shell(machine, line)
    _switch(machine, second, online=False)
    away = shell(machine, line)
    _switch(machine, second, online=True)
    after = shell(machine, line)
    grows = all(int(b) <= int(a) for b, a in zip(before.split()[1:], after.split()[1:], strict=True))
    return {"/proc/stat": {"away": idle(away), "back": "goes on" if grows else "begins anew"}}


TABLES: Mapping[str, Callable[[Machine], Table]] = {
    "affinity": affinity,
    "cpusets": cpusets,
    "child-cpusets": child_cpusets,
    "partitions": partitions,
    "units": units,
    "counters": counters,
}
