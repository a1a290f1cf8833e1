# SPDX-License-Identifier: Apache-2.0
"""Promise 2 held against the record: what QEMU was told, beside what the guest's kernel said on its console.

Shares no code with the product. The kernel numbers CPUs in its own way, so the log has to tell which slot is which:
"smpboot: CPU 3 is now offline" (arch/x86/kernel/smpboot.c, native_cpu_die) names a logical number, and
"smpboot: Booting Node 0 Processor 3 APIC 0x5" the APIC id behind it, which is the slot where all levels of -smp are
powers of two. A CPU that has never been booted since the kernel started has nothing to be taken from. CPUs that are
there when the record begins (boot CPUs, and all that came along in a migration) are looked up then; those that a
restarted kernel boots with its own start it does not name, so they count as online from their next coming only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab import Vm

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
    """What there is when a record begins: slots by device id and QOM path, and the guest's CPUs.

    ``apic_of`` is the APIC id by the kernel's number; ``running`` are the APIC ids that are online.
    """

    slots: Mapping[str, int] = field(default_factory=dict)
    apic_of: Mapping[int, int] = field(default_factory=dict)
    running: frozenset[int] = frozenset()


def filled(vm: Vm) -> dict[str, int]:
    """The slots of the CPUs that QEMU has, by all names that device_del takes for them. The guest is not asked."""
    found: dict[str, int] = {}
    for index, entity in enumerate(reversed(vm.qmp.execute("query-hotpluggable-cpus"))):
        path = str(entity.get("qom-path", ""))
        if path:
            found[path] = index
            found[path.removeprefix("/machine/peripheral/")] = index
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
        raise GuestNotFirstError("; ".join(violations))


def find(
    commands: Sequence[tuple[float, dict[str, Any]]],
    kernel: Sequence[tuple[float, str]],
    smp: str,
    start: Start | None = None,
) -> list[str]:
    """The violations, in words. ``commands`` and ``kernel`` are on one clock; ``smp`` names every level's size."""
    start = start or Start()
    events: list[tuple[float, int, str, Any]] = [(when, 0, "kernel", line) for when, line in kernel]
    events += [(when, 1, "qmp", command) for when, command in commands]
    apic_of, running, slots = dict(start.apic_of), set(start.running), dict(start.slots)
    violations: list[str] = []
    for when, _, kind, what in sorted(events, key=lambda event: (event[0], event[1])):
        if kind == "kernel":
            _note(what, apic_of, running)
        elif what.get("execute") == "device_del":
            target = str(what.get("arguments", {}).get("id"))
            slot = slots.get(target, -1)
            if slot in running and not _OURS.match(str(what.get("id"))):
                violations.append(f"at {when:.3f} device_del of {target}, whose CPU (APIC id {slot}) was online")
        elif what.get("execute") == "device_add":
            arguments = what.get("arguments", {})
            slots[str(arguments.get("id"))] = _slot_of(arguments, smp)
    return violations


def _note(line: str, apic_of: dict[int, int], running: set[int]) -> None:
    if _STARTED.search(line):
        running.clear()
    booted = _BOOTED.search(line)
    if booted:
        number, apic = int(booted[1]), int(booted[2], 16)
        apic_of[number] = apic
        running.add(apic)
    offline = _OFFLINE.search(line)
    if offline:
        running.discard(apic_of.get(int(offline[1]), -1))


def _slot_of(arguments: dict[str, Any], smp: str) -> int:
    """The slot that a device_add's props name; -1 if it adds no CPU."""
    if "core-id" not in arguments:
        return -1
    sizes = dict(part.split("=", 1) for part in smp.split(",") if "=" in part)
    slot = 0
    for level, prop in _LEVELS.items():
        slot = slot * int(sizes.get(level, 1)) + int(arguments.get(prop, 0))
    return slot
