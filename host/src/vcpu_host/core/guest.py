# SPDX-License-Identifier: Apache-2.0
"""What the agent says of the guest, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from . import codes
from .reason import Reason


@dataclass(frozen=True, slots=True)
class GuestCpu:
    """One present guest CPU. ``number`` is Linux's logical number; ``firmware_id`` is what ties it to a slot.

    ``switching``: a request has it in hand: seconds for which the guest's kernel has been at work on it, 0 while others
    come first.
    """

    number: int
    firmware_id: str
    online: bool
    cannot_offline: Reason | None = None
    cannot_online: Reason | None = None
    package_id: int | None = None
    die_id: int | None = None
    core_id: int | None = None
    node: int | None = None
    switching: float | None = field(default=None, compare=False)

    @property
    def parked(self) -> bool:
        """Whether the guest's SMT mode keeps it offline."""
        return not self.online and self.cannot_online is not None and self.cannot_online.code == codes.SMT_OFF


class Environment(NamedTuple):
    """What in the guest bears on hotplug (see agent.proto)."""

    possible: str = ""
    isolated: str = ""
    nohz_full: str = ""
    kernel_max: int = 0
    smt_control: str = ""
    auto_online_rules: tuple[str, ...] = ()
    eject_enabled: bool | None = None
    clocksource: str = ""
    kernel_arguments: tuple[str, ...] = ()
    hypervisor_flag: bool | None = None
    acpi: bool | None = None
    writable: bool | None = None
    unwritable: tuple[str, ...] = ()
    partition_isolated: str = ""
    keeps_affinity: bool | None = None
    unhandled_gpes: tuple[int, ...] = ()


class LoadSupport(NamedTuple):
    """What the agent would tell of the guest's load (see agent.proto). ``allowed``: by the guest's administrator."""

    allowed: bool
    pressure: bool = False
    run_queues: bool = False
    triggers: bool = False


#: The capability of an agent that tells the load, where its administrator lets it and its kernel has the files.
WATCH_LOAD = "watch-load"
#: The capability of an agent without whose word the guest's kernel ejects no CPU.
_EJECT_GATE = "eject-gate"
#: The capability of an agent that can look at the guest's programs.
_WORKLOAD = "workload"


class AgentInfo(NamedTuple):
    """Who answers at the other end of the port."""

    version: str
    protocol: int
    kernel: str
    arch: str
    boot_id: str
    instance_id: str
    platform: str
    event_source: str
    capabilities: tuple[str, ...] = ()
    environment: Environment = Environment()
    #: None: an agent of a version that tells no load.
    load: LoadSupport | None = None

    @property
    def tells_load(self) -> bool:
        """Whether it can be asked for the guest's load."""
        return WATCH_LOAD in self.capabilities

    @property
    def sees_programs(self) -> bool:
        """Whether the agent can look at what programs of the guest make of its CPUs."""
        return _WORKLOAD in self.capabilities

    @property
    def eject_gate(self) -> str | None:
        """How the agent's eject gate was when that was last asked, "closed" or "open"; None if it keeps none."""
        if _EJECT_GATE not in self.capabilities:
            return None
        return "open" if self.environment.eject_enabled else "closed"


class GuestView(NamedTuple):
    """One look at the guest. ``cpus`` are by ascending number; identities are unique (checked where they come in)."""

    generation: int
    boot_id: str
    instance_id: str
    cpus: tuple[GuestCpu, ...]


class CpuStatus(StrEnum):
    """What became of one CPU of a ``SetOnline`` request."""

    DONE = "done"
    ALREADY = "already"
    REFUSED = "refused"
    ABSENT = "absent"


class CpuResult(NamedTuple):
    """The agent's answer for one CPU; ``observed`` is what it read back, ``seconds`` the time inside the attempt."""

    firmware_id: str
    status: CpuStatus
    reason: Reason | None
    observed: GuestCpu | None
    seconds: float
