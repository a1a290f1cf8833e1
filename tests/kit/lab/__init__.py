# SPDX-License-Identifier: Apache-2.0
"""The VM laboratory: QEMU binaries, guest images, saved states and the VM runner of e2e tests, demo and bench."""

from __future__ import annotations

from kit.lab.cache import Cache
from kit.lab.errors import CommandError, LabError, QmpError, ShellError, VmDiedError, WaitTimeoutError
from kit.lab.lab import Lab
from kit.lab.lives import Lives
from kit.lab.nested import KvmHost
from kit.lab.qmp import Event, Qmp
from kit.lab.road import Road
from kit.lab.spec import AGENT_PORT, VmSpec
from kit.lab.vm import GuestCpu, Vm

__all__ = [
    "AGENT_PORT",
    "Cache",
    "CommandError",
    "Event",
    "GuestCpu",
    "KvmHost",
    "Lab",
    "LabError",
    "Lives",
    "Qmp",
    "QmpError",
    "Road",
    "ShellError",
    "Vm",
    "VmDiedError",
    "VmSpec",
    "WaitTimeoutError",
]
