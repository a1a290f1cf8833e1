# SPDX-License-Identifier: Apache-2.0
"""Programs in a guest that its CPUs matter to, and how they stand by the guest's own word over its console."""

from __future__ import annotations

import textwrap
from typing import Any

from kit.e2e.machine import Machine
from kit.ended import Ended

CGROUPS = "/sys/fs/cgroup"
#: Slots whose CPUs the tests take away; their numbers in the guest are the kernel's business.
FIRST, SECOND = 2, 3

_WAITS = {"awake": "while True: sleep(0.02)", "asleep": "sleep(10**6)"}


def pinned(machine: Machine, name: str, cpus: list[int], how: str) -> int:
    """Start a program, awake or asleep, that pins itself to these CPUs; its process id. It is the unit NAME.service."""
    put(machine, f"/run/{name}.py", script(name, cpus, how))
    shell(machine, f"systemd-run --quiet --unit={name} python3 /run/{name}.py")
    shell(machine, f"until [ -e /run/{name} ]; do busybox usleep 50000; done")
    return int(shell(machine, f"systemctl show -p MainPID --value {name}"))


def script(name: str, cpus: list[int], how: str) -> str:
    """A program in Python that pins itself, makes /run/NAME then, and is awake or asleep from there on."""
    pin = f"os.sched_setaffinity(0, {cpus})\nopen('/run/{name}', 'w').close()"
    return f"import os\nfrom time import sleep\n{pin}\n{_WAITS[how]}\n"


def put(machine: Machine, path: str, text: str) -> None:
    """Write a file in the guest."""
    machine.vm.put(textwrap.dedent(text).encode(), path)


def shell(machine: Machine, command: str, timeout: float = 180.0) -> str:
    """Run a command over the console, which has to succeed; what it writes."""
    return machine.vm.shell(command, timeout=timeout).strip()


def fails(machine: Machine, command: str) -> str:
    """Run a command over the console, which has to fail; what it writes."""
    return shell(machine, f"if {command} 2>&1; then echo SUCCEEDED; fi")


def allowed(machine: Machine, pid: int) -> str:
    """The thread's mask as the guest's kernel shows it, with CPUs that are away."""
    return shell(machine, f"grep Cpus_allowed_list /proc/{pid}/status").split()[-1]


def numbers(machine: Machine, *slots: int) -> list[int]:
    """The guest's numbers of the CPUs in these slots."""
    there = machine.slots_in_guest()
    return [there[slot]["cpu"] for slot in slots]


def cpulist(cpus: list[int]) -> str:
    """As the kernel writes it; neighbours make a range."""
    parts: list[list[int]] = []
    for number in sorted(cpus):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def partition(machine: Machine, cpus: list[int], kind: str) -> int:
    """Make a partition of these CPUs with a sleeping task in it; the task's process id."""
    shell(machine, f"echo +cpuset >{CGROUPS}/cgroup.subtree_control; mkdir -p {CGROUPS}/rt")
    shell(machine, f"echo {cpulist(cpus)} >{CGROUPS}/rt/cpuset.cpus; echo {kind} >{CGROUPS}/rt/cpuset.cpus.partition")
    assert shell(machine, f"cat {CGROUPS}/rt/cpuset.cpus.partition") == kind
    return sleeper(machine, "rt")


def sleeper(machine: Machine, cgroup: str) -> int:
    """Start a program that sleeps in this cgroup; its process id."""
    start = "sleep 1000000 </dev/null >/dev/null 2>&1 &"
    return int(shell(machine, f"{start} echo $! >{CGROUPS}/{cgroup}/cgroup.procs; echo $!"))


def state_of(machine: Machine) -> str:
    """What the partition's file says."""
    return shell(machine, f"cat {CGROUPS}/rt/cpuset.cpus.partition")


def notes(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The notes of a plan or a result, by their codes."""
    return {note["code"]: note for note in document["notes"]}


def refused(machine: Machine, code: str, *words: str) -> None:
    """The operation is refused for the programs' sake: nothing is written, and no device_del is sent."""
    before, dels, said = machine.state(), machine.device_dels(), len(_offline(machine))
    ended = machine.vcpuctl(*words, "--workload", "refuse")
    assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
    assert code in notes(ended.json), ended.stdout
    assert machine.state() == before
    assert (machine.device_dels(), len(_offline(machine))) == (dels, said)


def _offline(machine: Machine) -> list[str]:
    return [line for _, line in machine.vm.kernel_log if "is now offline" in line]


def done(machine: Machine, *words: str) -> Ended:
    """The operation, which has to end done."""
    ended = machine.vcpuctl("--timeout", "300", *words, timeout=400.0)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    return ended


def no_longer_affine(machine: Machine) -> bool:
    """Whether the guest's kernel has said on its console that it widened a mask."""
    return any("no longer affine" in line for _, line in machine.vm.kernel_log)


def ethtool(machine: Machine) -> None:
    """Give the guest as much of ethtool as the hook uses, by the same ioctl: its image has none."""
    put(machine, "/usr/local/sbin/ethtool", _ETHTOOL)
    shell(machine, "chmod 755 /usr/local/sbin/ethtool")


_ETHTOOL = """\
    #!/usr/bin/python3
    import array, fcntl, socket, struct, sys
    def call(name, values):
        data = array.array("I", values)
        request = struct.pack("16sP16x", name.encode(), data.buffer_info()[0])
        fcntl.ioctl(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), 0x8946, request)
        return list(data)
    what, name = sys.argv[1:3]
    said = call(name, [0x3C] + [0] * 8)
    if what == "-l":
        print("Combined:", said[4]); print("Combined:", said[8])
    else:
        said[0], said[8] = 0x3D, int(sys.argv[4])
        call(name, said)
"""
