# SPDX-License-Identifier: Apache-2.0
"""The agent's own values, as frozen data. rpc/convert.py makes the wire's messages of them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was not done, or cannot be done.

    `code` is stable and for programs (vcpud(8) lists the codes); `text` is for people and says what to do; `errno` is
    Linux's, 0 if no system call failed.
    """

    code: str
    text: str
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Detail:
    """A CPU's place in the topology; None for what the kernel does not show (x86 shows it only for online CPUs)."""

    package_id: int | None = None
    die_id: int | None = None
    core_id: int | None = None
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU that is present in the guest.

    `firmware_id` is "" if the platform shows none. `cannot_offline` and `cannot_online` are set if it is known
    beforehand that the kernel would refuse the write.
    """

    number: int
    firmware_id: str
    online: bool
    cannot_offline: Reason | None = None
    cannot_online: Reason | None = None
    detail: Detail = field(default_factory=Detail)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every present CPU by ascending number; `generation` counts the changes that were seen."""

    generation: int
    cpus: tuple[Cpu, ...]


@dataclass(frozen=True, slots=True)
class Environment:
    """What in the guest bears on CPU hotplug; agent.proto says what each field means."""

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
    unhandled_gpes: tuple[int, ...] = ()

    def lacking(self, unwritable: tuple[str, ...]) -> Environment:
        """Return the same with further files that may not be written."""
        if not unwritable:
            return self
        return replace(self, writable=False, unwritable=(*self.unwritable, *unwritable))


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Who this start of the agent is, for Hello and for every snapshot."""

    agent_version: str
    arch: str
    kernel: str
    boot_id: str
    instance_id: str
    platform: str
    event_source: str


@dataclass(frozen=True, slots=True)
class CpuEvent:
    """A hint to look at CPU `number` again. `action` is the kernel's word ("add", "bind", "online" ...)."""

    action: str
    number: int


class Hint(enum.Enum):
    """What an event means for the CPU that it names."""

    LOOK = enum.auto()  # nothing is known: look at sysfs
    NEW = enum.auto()  # a CPU has come; it is not the one that had the number before
    COMING = enum.auto()  # like NEW, but the identity cannot be read yet
    GOING = enum.auto()  # the CPU's directory goes just after the event
    LEAVING = enum.auto()  # the CPU went offline, and may go without a further event
    SWITCHED = enum.auto()  # a known CPU has changed its state; none came or went


class CpuStatus(enum.Enum):
    """How a request ended for one CPU; the values are those of CpuResult.Status in agent.proto."""

    DONE = 1
    ALREADY = 2
    REFUSED = 3
    ABSENT = 4


@dataclass(frozen=True, slots=True)
class CpuResult:
    """What a request did to one CPU. `seconds` is the time inside the attempt."""

    firmware_id: str
    status: CpuStatus
    reason: Reason | None = None
    observed: Cpu | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """The kernel has registered a CPU that a request waits for."""

    cpu: Cpu
