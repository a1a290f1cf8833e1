# SPDX-License-Identifier: Apache-2.0
"""`vcpud --check`: what the agent would tell its host, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from vcpu_guest import __version__
from vcpu_guest.core import cpulist, reasons
from vcpu_guest.core.model import Cpu, Reason
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.errors import ConfigError
from vcpu_guest.machine import Machine

SCHEMA_VERSION = 1


def report(machine: Machine) -> str:
    """Return one JSON document, with a newline at its end. Raise OSError if /sys cannot be read."""
    inventory = Inventory(machine.sysfs, machine.platform, settle=())
    document = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "platform": machine.platform.name,
        "event_source": machine.events.name,
        "connectors": machine.hotplug.name,
        "arch": machine.arch,
        "kernel": machine.kernel,
        "boot_id": machine.boot_id,
        "environment": asdict(machine.environment()),
        "cpus": [_cpu(cpu) for cpu in inventory.snapshot().cpus],
    }
    return json.dumps(document, indent=2) + "\n"


def programs(machine: Machine, cpus: str) -> str:
    """Return a line for each that would be without any CPU if these went, "" if none would.

    Raise ConfigError if `cpus` is no list of CPUs.
    """
    try:
        going = cpulist.parse(cpus)
    except ValueError as error:
        raise ConfigError(f"--programs: {error}") from error
    found = machine.looker().look(going, use=False)
    lines = [f"not everything was seen: {words}" for words in found.unseen]
    lines += [
        f"the cpuset {each.cgroup} ({each.partition or 'member'}) would have none of its CPUs {each.effective}"
        for each in found.cpusets
        if each.populated
    ]
    lines += [f"{each.name} needs CPUs {cpulist.render(each.cpus)} to start (CPUAffinity=)" for each in found.units]
    for each in found.pinned:
        names = ", ".join(f"{who.comm}[{who.pid}]" for who in each.threads.some)
        lines.append(f"{each.threads.count} threads are pinned to {cpulist.render(each.cpus)} alone: {names}")
    return "".join(f"{line}\n" for line in lines)


def _cpu(cpu: Cpu) -> dict[str, Any]:
    return {
        "number": cpu.number,
        "firmware_id": cpu.firmware_id,
        "online": cpu.online,
        "cannot_offline": _reason(cpu.cannot_offline),
        "cannot_online": _reason(cpu.cannot_online),
        **asdict(cpu.detail),
    }


def _reason(reason: Reason | None) -> dict[str, Any] | None:
    return None if reason is None else {**asdict(reason), "errno_name": reasons.name_of(reason.errno)}
