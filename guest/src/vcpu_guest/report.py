# SPDX-License-Identifier: Apache-2.0
"""`vcpud --check`: what the agent would report, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from vcpu_guest import __version__
from vcpu_guest.core import reasons
from vcpu_guest.core.model import Cpu, Reason
from vcpu_guest.cpus.inventory import Watcher
from vcpu_guest.machine import Doors

SCHEMA_VERSION = 1


def report(doors: Doors) -> str:
    """One JSON document, with a newline at its end. Raises OSError if /sys can't be read."""
    watcher = Watcher(doors.sysfs, doors.platform, settle=())
    document = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "platform": doors.platform.name,
        "event_source": doors.events.name,
        "connectors": doors.connectors.name,
        "arch": doors.arch,
        "kernel": doors.kernel,
        "boot_id": doors.boot_id,
        "environment": asdict(doors.environment()),
        "cpus": [_cpu(cpu) for cpu in watcher.snapshot().cpus],
    }
    return json.dumps(document, indent=2) + "\n"


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
