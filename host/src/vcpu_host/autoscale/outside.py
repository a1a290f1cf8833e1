# SPDX-License-Identifier: Apache-2.0
"""What bears on a decision apart from the guest's load."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.reason import Reason
from .settings import WallTime


@dataclass(frozen=True, slots=True)
class HostRoom:
    """What the host has left for all VMs: ``vcpus`` more of its budget, and the share of time in which its own tasks
    wait for a CPU (PSI). None is no limit, or not known. Above ``pressure_limit`` nothing grows.

    ``unseen`` VMs have not been looked at yet, so what is left of the budget is less by what they have.
    """

    vcpus: int | None = None
    pressure: float | None = None
    pressure_limit: float = 0.5
    unseen: int = 0

    @property
    def pressed(self) -> bool:
        """Whether the host's own tasks wait too much."""
        return self.pressure is not None and self.pressure > self.pressure_limit


@dataclass(frozen=True, slots=True)
class Outside:
    """The VM as it stands, and the host.

    ``online`` are its vCPUs now, ``possible`` the most that it can ever have, ``step`` the vCPUs of one slot. ``fixed``
    of them cannot be unplugged. ``plugged`` is how many QEMU has; how many of these are online, and that the SMT mode
    keeps ``parked`` ones offline, is the guest's word alone.
    ``leaving`` says that an earlier removal has not come to its end, ``trouble`` why the VM cannot be asked.
    """

    online: int
    possible: int
    step: int = 1
    fixed: int = 0
    plugged: int = 0
    parked: int = 0
    leaving: bool = False
    trouble: Reason | None = None
    room: HostRoom = HostRoom()
    clock: WallTime | None = None

    @property
    def usable(self) -> int:
        """How many vCPUs can be online without a plug, by the guest's word: what ``scale`` counts."""
        return max(self.online, self.plugged - self.parked)
