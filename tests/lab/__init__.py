# SPDX-License-Identifier: Apache-2.0
"""The VM laboratory: QEMU binaries, guest images, saved states and the VM runner of e2e tests, demo and bench."""

from __future__ import annotations

from lab.cache import Cache
from lab.errors import CommandError, LabError, QmpError, ShellError, VmDiedError, WaitTimeoutError
from lab.lab import Lab
from lab.lives import Lives
from lab.qmp import Event, Qmp
from lab.road import Road
from lab.spec import AGENT_PORT, VmSpec
from lab.vm import GuestCpu, Vm

__all__ = [
    "AGENT_PORT",
    "Cache",
    "CommandError",
    "Event",
    "GuestCpu",
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
