# SPDX-License-Identifier: Apache-2.0
"""What the two sides of a virtual machine look like, as frozen values.

:class:`HostView` is what QEMU says, :class:`GuestView` what the agent says. Neither is believed alone: ``core.view``
joins the two by firmware identity. Nothing here knows how the values were obtained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

PropValue = int | str | bool
Props = Mapping[str, PropValue]

#: Where QEMU keeps devices that were given an id (qdev_set_id, system/qdev-monitor.c).
PERIPHERAL = "/machine/peripheral/"
#: Where the CPUs of -smp are, which nobody has given a place (hw/core/qdev.c, device_set_realized).
AT_START = "/machine/unattached/"


#: What a slot can be placed by, from the outermost to the innermost (CpuInstanceProperties, qapi/machine.json): its
#: props are these with "-id". The node comes first, whatever QEMU lets it be made of: near to a vCPU is its memory.
LEVELS = ("node", "drawer", "book", "socket", "die", "cluster", "module", "core", "thread")

#: The code of a session that broke off: another one may well succeed at once.
AGENT_LOST = "agent-lost"
#: The code of a port that nobody answers on, as the link has it (vcpu_proto.link.NoAnswerError).
NO_ANSWER = "no-answer"
#: The codes of a guest whose drivers are not up yet, of one that has nobody at the port, of an agent that takes long.
GUEST_BOOTING, AGENT_ABSENT, AGENT_SLOW = "guest-booting", "agent-absent", "agent-slow"

#: Where firmware lies in flash, its drive (hw/i386/pc_sysfw.c); whether there is ACPI, "off" if not (hw/i386/x86.c,
#: hw/loongarch/virt.c); the distance of two cores' vcpu ids, and which interrupt controllers there are
#: (hw/ppc/spapr.c).
MACHINE_PROPERTIES = ("pflash0", "acpi", "vsmt", "ic-mode")
#: Whether the VM's CPU model has x2APIC, says that it is a hypervisor's, shows KVM, and shows that KVM takes wide APIC
#: ids from devices (x86: target/i386/cpu.c).
CPU_PROPERTIES = ("x2apic", "hypervisor", "kvm", "kvm-msi-ext-dest-id")
#: By the type of an IOMMU: whether it remaps interrupts, and to wide APIC ids (hw/i386/intel_iommu.c, amd_iommu.c).
IOMMU_PROPERTIES = {"intel-iommu": ("intremap", "eim"), "amd-iommu": ("intremap", "xtsup")}


class SlotState(StrEnum):
    """The states of a slot (design, section 2)."""

    EMPTY = "empty"
    PLUGGED = "plugged"
    OFFLINE = "offline"
    PARTIAL = "partial"
    ONLINE = "online"
    UNPLUGGING = "unplugging"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """How an operation, or its part for one slot, ended (design, section 2)."""

    DONE = "done"
    PARTIAL = "partial"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Who(StrEnum):
    """Who said no."""

    VCPUCTL = "vcpuctl"
    QEMU = "qemu"
    FIRMWARE = "firmware"
    GUEST = "guest"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is not so, or was not done (promise 4).

    ``code`` is stable and for programs; ``text`` holds the words of the one who refused; ``hint`` says what to do;
    ``errno`` is the guest kernel's name of the error ("EBUSY"), empty if no system call failed.
    """

    code: str
    who: Who
    text: str
    hint: str = ""
    errno: str = ""

    def to_json(self) -> dict[str, str]:
        """The reason as it stands in the reports; empty fields are kept, so that readers need no defaults."""
        return {"code": self.code, "who": str(self.who), "text": self.text, "hint": self.hint, "errno": self.errno}

    def __str__(self) -> str:
        words = f"{self.who}: {self.text}"
        if self.errno and self.errno not in self.text:
            words += f" ({self.errno})"
        return f"{words}; {self.hint}" if self.hint else words


@dataclass(frozen=True, slots=True)
class HostThread:
    """One entry of ``query-cpus-fast``: a vCPU and the host thread that runs it."""

    cpu_index: int
    thread_id: int
    qom_path: str


@dataclass(frozen=True, slots=True)
class Ost:
    """What the guest's ACPI last said of a slot (``_OST``: event source and status; hw/acpi/cpu.c)."""

    source: int
    status: int


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry of ``query-hotpluggable-cpus``; ``index`` is its place in QEMU's possible_cpus order.

    ``props`` go back to QEMU verbatim. ``qom_path`` is None for an empty slot. ``threads`` are in cpu-index order.
    ``leaving`` are vCPUs that QEMU still has although the slot is empty: their removal goes on inside QEMU, or hangs.
    ``phantoms`` are such without a CPU object: what a device_add has left that failed half way (seen on 11.1).
    """

    index: int
    type: str
    props: Props
    vcpus: int
    qom_path: str | None = None
    threads: tuple[HostThread, ...] = ()
    leaving: tuple[HostThread, ...] = ()
    phantoms: tuple[HostThread, ...] = ()

    @property
    def filled(self) -> bool:
        """Whether QEMU has a CPU object for the slot."""
        return self.qom_path is not None

    @property
    def vacant(self) -> bool:
        """Whether QEMU has nothing of a CPU there any more."""
        return not self.filled and not self.leaving

    @property
    def device_id(self) -> str | None:
        """The id that ``device_add`` or ``-device`` gave it; None for boot CPUs, which have none."""
        if self.qom_path is None or not self.qom_path.startswith(PERIPHERAL):
            return None
        return self.qom_path.removeprefix(PERIPHERAL)

    @property
    def node(self) -> int | None:
        """The NUMA node that QEMU assigns, if the machine has any."""
        value = self.props.get("node-id")
        return value if isinstance(value, int) else None


#: What the device ids begin with that we give.
SLOT_ID = "vcpu-"


def slot_id(index: int) -> str:
    """The device id of a slot. Derived from the slot alone, so any run on any host finds the same one again."""
    return f"{SLOT_ID}{index}"


def freeze_props(props: Mapping[str, PropValue]) -> Props:
    """A read-only copy of ``props``."""
    return MappingProxyType(dict(props))


@dataclass(frozen=True, slots=True)
class Channel:
    """The agent's virtio-serial port, as QEMU sees it.

    ``socket`` is the chardev's unix socket, as it is reached from here ("@NAME" if it is an abstract one; None if there
    is none to connect to), ``bound`` the same by the name that QEMU itself has for it, ``chardev`` QEMU's words for the
    chardev, whatever its kind. ``busy`` says that some host program is connected to it, ``guest_open`` that a guest
    program has the port open, ``device_id`` names the virtserialport. ``driver_up`` says whether the guest's
    virtio-serial driver runs, which tells a guest that is still booting from one without the agent; None if QEMU does
    not say.
    """

    socket: str | None
    busy: bool
    guest_open: bool
    device_id: str | None = None
    driver_up: bool | None = None
    bound: str = ""
    chardev: str = ""


#: The statuses of a migration that is not, or not any more (MigrationStatus, qapi/migration.json). The others are many,
#: and become more: what is not known is taken for a migration under way.
_MIGRATION_AT_REST = frozenset({"", "none", "completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class HostView:
    """One look at QEMU. ``slots`` are in slot order. ``no_hotplug`` says why no CPU can be plugged, or is None.

    A machine without CPU hotplug has a filled slot for each of its vCPUs. ``properties`` are those of the machine
    object that platforms ask for (MACHINE_PROPERTIES), as far as it has them, ``cpu_properties`` those of its CPUs
    (CPU_PROPERTIES; -cpu makes them all alike, and the first one stays on every machine that tells). ``topology`` is
    what the machine was started with (-smp, completed by QEMU: cpus, maxcpus, sockets ...), empty where QEMU does not
    show it. ``iommu`` are properties of the machine's IOMMU (IOMMU_PROPERTIES), empty if it has none. ``devices`` are
    those that have an id, CPUs or not: id to QOM type. ``migration`` is the status of
    query-migrate, empty if there has been none.
    """

    qemu_version: tuple[int, int, int]
    machine: str
    arch: str
    status: str
    accel: str
    slots: tuple[Slot, ...]
    ost: Mapping[int, Ost] = field(default_factory=dict)
    channel: Channel | None = None
    no_hotplug: Reason | None = None
    vm_name: str = ""
    properties: Mapping[str, PropValue] = field(default_factory=dict)
    cpu_properties: Mapping[str, PropValue] = field(default_factory=dict)
    topology: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    iommu: Mapping[str, PropValue] = field(default_factory=dict)
    migration: str = ""

    @property
    def running(self) -> bool:
        """Whether the guest's CPUs run (``query-status``)."""
        return self.status == "running"

    @property
    def migrating(self) -> bool:
        """Whether a migration is under way, out or in: QEMU refuses to plug and unplug meanwhile."""
        return self.migration not in _MIGRATION_AT_REST

    @property
    def version_text(self) -> str:
        """The version as QEMU prints it, without its package suffix."""
        return ".".join(map(str, self.qemu_version))

    def slot(self, index: int) -> Slot:
        """The slot with this index; IndexError if there is none."""
        if not 0 <= index < len(self.slots):
            raise IndexError(index)
        return self.slots[index]


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


@dataclass(frozen=True, slots=True)
class Environment:
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


#: The capability of an agent without whose word the guest's kernel ejects no CPU.
_EJECT_GATE = "eject-gate"


@dataclass(frozen=True, slots=True)
class AgentInfo:
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
    environment: Environment = field(default_factory=Environment)

    @property
    def eject_gate(self) -> str | None:
        """How the agent's eject gate was when it said hello, "closed" or "open"; None if it keeps none."""
        if _EJECT_GATE not in self.capabilities:
            return None
        return "open" if self.environment.eject_enabled else "closed"


@dataclass(frozen=True, slots=True)
class GuestView:
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


@dataclass(frozen=True, slots=True)
class CpuResult:
    """The agent's answer for one CPU; ``observed`` is what it read back, ``seconds`` the time inside the attempt."""

    firmware_id: str
    status: CpuStatus
    reason: Reason | None
    observed: GuestCpu | None
    seconds: float
