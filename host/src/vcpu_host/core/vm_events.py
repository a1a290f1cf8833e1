# SPDX-License-Identifier: Apache-2.0
"""What a VM tells by itself, in our terms. The monitor's adapter makes these values, and knows which slot is meant.

All are hints: "look again" (promise 5).
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Ost
from .reason import Reason


@dataclass(frozen=True, slots=True)
class OstReported:
    """ACPI_DEVICE_OST: what the guest's firmware says of a slot."""

    slot: int
    ost: Ost


@dataclass(frozen=True, slots=True)
class DeviceDeleted:
    """DEVICE_DELETED of a slot's CPU, or of something below it; ``slot`` is None for any other device."""

    slot: int | None


@dataclass(frozen=True, slots=True)
class UnplugRefused:
    """DEVICE_UNPLUG_GUEST_ERROR (pseries): the guest could not let the slot's CPU go."""

    slot: int


@dataclass(frozen=True, slots=True)
class VmReset:
    """RESET: the guest starts again from its firmware; what it had agreed to is void."""


@dataclass(frozen=True, slots=True)
class VmStatus:
    """STOP, SUSPEND, RESUME, SHUTDOWN: the VM is "stopped", "running" or "shutdown" now.

    QEMU stops a VM for many reasons (a pause, a panic, a disk that failed): which one it was, only a look tells.
    """

    status: str


@dataclass(frozen=True, slots=True)
class PortChanged:
    """VSERPORT_CHANGE: a guest program has opened or closed a port."""

    open: bool


@dataclass(frozen=True, slots=True)
class QemuGone:
    """The monitor's connection is gone, and with it all that was under way. Nothing follows this event."""

    reason: Reason


VmEvent = OstReported | DeviceDeleted | UnplugRefused | VmReset | VmStatus | PortChanged | QemuGone
