# SPDX-License-Identifier: Apache-2.0
"""Promise 2 held against the record: what QEMU was told, beside what the guest's kernel said on its console.

Shares no code with the product. The kernel numbers CPUs in its own way, so the log has to tell which CPU is which:
"smpboot: CPU 3 is now offline" (arch/x86/kernel/smpboot.c, native_cpu_die) names a logical number, and
"smpboot: Booting Node 0 Processor 3 APIC 0x5" the APIC id behind it, which QEMU's props come down to as well (the same
words in Linux 6.1, 6.12 and 7.2). A CPU that has never been booted since the kernel started has nothing to be
taken from. CPUs that are there when the record begins (boot CPUs, and all that came along in a migration) are looked up
then; those that a restarted kernel boots with its own start it does not name, so they count as online from their next
coming only. After a revert to a snapshot the guest's CPUs are what they were when it was made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.lab import Vm

_BOOTED = re.compile(r"Booting Node \d+ Processor (\d+) APIC (0x[0-9a-f]+)")
_OFFLINE = re.compile(r"CPU (\d+) is now offline")
_STARTED = re.compile(r"Linux version \d")

#: The lab's own commands, by which tests interfere on purpose, carry such ids (lab.qmp).
_OURS = re.compile(r"^lab-")
#: From the outermost level to the innermost, with the prop that names a place on each.
_LEVELS = {
    "sockets": "socket-id",
    "dies": "die-id",
    "modules": "module-id",
    "cores": "core-id",
    "threads": "thread-id",
}


class GuestNotFirstError(AssertionError):
    """A ``device_del`` went out for a CPU that the kernel had not given up."""


@dataclass(frozen=True)
class Start:
    """What there is when a record begins, in APIC ids: QEMU's CPUs by device id and QOM path, and the guest's.

    ``apic_of`` is by the kernel's number; ``running`` are those that are online.
    """

    slots: Mapping[str, int] = field(default_factory=dict)
    apic_of: Mapping[int, int] = field(default_factory=dict)
    running: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Violation:
    """A removal of a CPU that was online, and since when (0.0: since before the record). Times as in the record."""

    when: float
    target: str
    apic: int
    since: float

    def __str__(self) -> str:
        lasted = f" for {self.when - self.since:.3f} s" if self.since else ""
        return f"at {self.when:.3f} device_del of {self.target}, whose CPU (APIC id {self.apic}) was online{lasted}"


def filled(vm: Vm) -> dict[str, int]:
    """The APIC ids of the CPUs that QEMU has, by all names that device_del takes for them. The guest is not asked."""
    found: dict[str, int] = {}
    for entity in vm.qmp.execute("query-hotpluggable-cpus"):
        path = str(entity.get("qom-path", ""))
        if path:
            found[path] = found[path.removeprefix("/machine/peripheral/")] = apic_id(entity["props"], vm.spec.smp)
    return found


def look(vm: Vm) -> Start:
    """As it is now, of a VM whose guest answers; empty where nothing is there to remove, or the kernel has no words."""
    alone = vm.spec.smp.split(",")[0] == "1" and "-device" not in " ".join(vm.spec.extra_args)
    if alone or not vm.spec.guest.endswith("-amd64"):
        return Start()
    online = {
        int(name.removeprefix("cpu")): cpu["apicid"]
        for name, cpu in vm.guest_cpus().items()
        if cpu["online"] and cpu["apicid"] is not None
    }
    return Start(filled(vm), online, frozenset(online.values()))


def check(vm: Vm, start: Start | None = None, kernel: Sequence[tuple[float, str]] | None = None) -> None:
    """Raise GuestNotFirstError if the VM's record shows a ``device_del`` before the CPU's going offline.

    ``kernel`` is what the guest's kernel said, if not on this VM's console alone.
    """
    violations = find(vm.qmp_commands(), vm.kernel_log if kernel is None else kernel, vm.spec.smp, start)
    if violations:
        raise GuestNotFirstError("; ".join(map(str, violations)))


def find(
    commands: Sequence[tuple[float, dict[str, Any]]],
    kernel: Sequence[tuple[float, str]],
    smp: str,
    start: Start | None = None,
) -> list[Violation]:
    """The violations. ``commands`` and ``kernel`` are on one clock; ``smp`` names every level's size."""
    start = start or Start()
    events: list[tuple[float, int, str, Any]] = [(when, 0, "kernel", line) for when, line in kernel]
    events += [(when, 1, "qmp", command) for when, command in commands]
    guest = _Guest(dict(start.apic_of), dict.fromkeys(start.running, 0.0))
    slots = dict(start.slots)
    snapshots: dict[str, _Guest] = {}
    violations: list[Violation] = []
    for when, _, kind, what in sorted(events, key=lambda event: (event[0], event[1])):
        arguments = what.get("arguments", {}) if kind == "qmp" else {}
        if kind == "kernel":
            guest.note(when, what)
        elif what.get("execute") == "device_del":
            target = str(arguments.get("id"))
            apic = slots.get(target, -1)
            if apic in guest.running and not _OURS.match(str(what.get("id"))):
                violations.append(Violation(when, target, apic, guest.running[apic]))
        elif what.get("execute") == "device_add":
            slots[str(arguments.get("id"))] = apic_id(arguments, smp)
        elif what.get("execute") == "human-monitor-command":
            verb, _, name = str(arguments.get("command-line")).partition(" ")
            if verb == "savevm":
                snapshots[name] = guest.copy()
            elif verb == "loadvm" and name in snapshots:
                guest = snapshots[name].copy()
    return violations


@dataclass
class _Guest:
    """What the kernel's words have told so far: ``running`` are the APIC ids that are online, and since when."""

    apic_of: dict[int, int]
    running: dict[int, float]

    def copy(self) -> _Guest:
        return _Guest(dict(self.apic_of), dict(self.running))

    def note(self, when: float, line: str) -> None:
        if _STARTED.search(line):
            self.running.clear()
        booted = _BOOTED.search(line)
        if booted:
            number, apic = int(booted[1]), int(booted[2], 16)
            self.apic_of[number] = apic
            self.running[apic] = when
        offline = _OFFLINE.search(line)
        if offline:
            self.running.pop(self.apic_of.get(int(offline[1]), -1), None)


def apic_id(props: Mapping[str, Any], smp: str) -> int:
    """The APIC id of the CPU that these props name: each level has as many bits as its size needs (x86-topo in QEMU).

    -1 if they name no CPU.
    """
    if "core-id" not in props:
        return -1
    sizes = dict(part.split("=", 1) for part in smp.split(",") if "=" in part)
    apic = 0
    for level, prop in _LEVELS.items():
        apic = (apic << (int(sizes.get(level, 1)) - 1).bit_length()) + int(props.get(prop, 0))
    return apic
