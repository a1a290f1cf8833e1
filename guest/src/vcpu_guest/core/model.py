# SPDX-License-Identifier: Apache-2.0
"""What the agent talks about, as frozen data. The wire's own types stop at convert.py."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is not so, or was not done.

    `code` is stable and for programs (the list is in vcpud(8)); `text` is for people and says what to do;
    `errno` is Linux's, 0 if no system call failed.
    """

    code: str
    text: str
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Detail:
    """Where the kernel shows a CPU to sit; None where it does not (x86: topology only while online)."""

    package_id: int | None = None
    die_id: int | None = None
    core_id: int | None = None
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU that is present in the guest.

    `firmware_id` is "" when the platform shows none. `cannot_offline` and `cannot_online` are set when it is
    known beforehand that the write would be refused.
    """

    number: int
    firmware_id: str
    online: bool
    cannot_offline: Reason | None = None
    cannot_online: Reason | None = None
    detail: Detail = field(default_factory=Detail)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every present CPU by ascending number; `generation` counts up with each change that was seen."""

    generation: int
    cpus: tuple[Cpu, ...]


@dataclass(frozen=True, slots=True)
class Environment:
    """What in the guest bears on CPU hotplug; the meaning of each field is in agent.proto."""

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

    def lacking(self, unwritable: tuple[str, ...]) -> Environment:
        """The same with more that may not be written."""
        if not unwritable:
            return self
        return replace(self, writable=False, unwritable=(*self.unwritable, *unwritable))


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Who this agent is, for Hello and for every snapshot."""

    agent_version: str
    arch: str
    kernel: str
    boot_id: str
    instance_id: str
    platform: str
    event_source: str


@dataclass(frozen=True, slots=True)
class CpuEvent:
    """A hint that CPU `number` deserves a look. `action` is the kernel's word ("add", "bind", "online" ...)."""

    action: str
    number: int


class Hint(enum.Enum):
    """What an event means for the CPU that it names."""

    LOOK = enum.auto()  # nothing beforehand: sysfs tells
    NEW = enum.auto()  # it is there, and not the one of that number that was known
    COMING = enum.auto()  # as NEW, but its identity cannot be read yet
    GOING = enum.auto()  # its directory goes just after the event
    LEAVING = enum.auto()  # it was switched, and may go without a further word
    SWITCHED = enum.auto()  # a state of a CPU that is known, not that one came or went


class CpuStatus(enum.Enum):
    """How one CPU of a request was settled; the values are those of CpuResult.Status in agent.proto."""

    DONE = 1
    ALREADY = 2
    REFUSED = 3
    ABSENT = 4


@dataclass(frozen=True, slots=True)
class CpuResult:
    """The settled end of one CPU of a request. `seconds` is the time inside the attempt."""

    firmware_id: str
    status: CpuStatus
    reason: Reason | None = None
    observed: Cpu | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """A CPU that a request waits for has been registered by the kernel."""

    cpu: Cpu
