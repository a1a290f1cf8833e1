# SPDX-License-Identifier: Apache-2.0
"""What the two sides of a virtual machine look like, as frozen values.

:class:`HostView` is what QEMU says, :class:`GuestView` what the agent says. Neither is believed alone: ``core.view``
joins the two by firmware identity. Nothing here knows how the values were obtained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from .descriptors import Descriptors
from .reason import Reason

#: A mapping without anything in it: what a value has that was given none.
NOTHING: Mapping[Any, Any] = MappingProxyType({})

PropValue = int | str | bool
Props = Mapping[str, PropValue]


#: What a slot can be placed by, from the outermost to the innermost (CpuInstanceProperties, qapi/machine.json): its
#: props are these with "-id". The node comes first, whatever QEMU lets it be made of: near to a vCPU is its memory.
LEVELS = ("node", "drawer", "book", "socket", "die", "cluster", "module", "core", "thread")


#: Where firmware lies in flash, its drive (hw/i386/pc_sysfw.c); whether there is ACPI, "off" if not (hw/i386/x86.c,
#: hw/loongarch/virt.c).
MACHINE_PROPERTIES = ("pflash0", "acpi")
#: Whether the VM's CPU model has x2APIC, says that it is a hypervisor's, shows KVM, and shows that KVM takes wide APIC
#: ids from devices (x86: target/i386/cpu.c).
CPU_PROPERTIES = ("x2apic", "hypervisor", "kvm", "kvm-msi-ext-dest-id")
#: By the type of an IOMMU: whether it remaps interrupts, and to wide APIC ids (hw/i386/intel_iommu.c, amd_iommu.c).
IOMMU_PROPERTIES = {"intel-iommu": ("intremap", "eim"), "amd-iommu": ("intremap", "xtsup")}


class SlotState(StrEnum):
    """The states of a slot, both sides seen together: ARCHITECTURE.md explains them under "Words"."""

    EMPTY = "empty"
    PLUGGED = "plugged"
    OFFLINE = "offline"
    PARTIAL = "partial"
    ONLINE = "online"
    UNPLUGGING = "unplugging"
    UNKNOWN = "unknown"


class HostThread(NamedTuple):
    """One vCPU of the machine monitor, and the host thread that runs it.

    ``path`` is where the monitor has it, for people. ``at_start``: it was there when the VM was started (-smp).
    """

    cpu_index: int
    thread_id: int
    path: str
    at_start: bool = False


class Ost(NamedTuple):
    """What the guest's ACPI last said of a slot (``_OST``: event source and status; hw/acpi/cpu.c)."""

    source: int
    status: int


class Recorded(StrEnum):
    """How the record of whoever owns the VM (libvirt) stands to what QEMU has in a slot.

    It agrees, also where nobody keeps a record; it is behind, and is about to follow; or it stays behind.
    """

    AGREES = "agrees"
    SETTLING = "settling"
    BEHIND = "behind"


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry of ``query-hotpluggable-cpus``; ``index`` is its place in QEMU's possible_cpus order.

    ``props`` go back to QEMU verbatim. ``threads`` are in cpu-index order.

    How the monitor calls CPUs is the adapter's business. ``device_id`` is the id of the CPU in the slot (None: the slot
    is empty, or the CPU has none), ``path`` where the monitor has it, ``default_id`` the id that a CPU plugged into the
    slot gets. ``managed``: it is vcpuctl that plugs such a CPU, and finishes what is half done of it. ``at_start``: the
    CPU was there when the VM was started.
    ``leaving`` are vCPUs that QEMU still has although the slot is empty: their removal goes on inside QEMU, or hangs.
    ``phantoms`` are such without a CPU object: what a device_add has left that failed half way (seen on 11.1).
    ``recorded`` is how the owner's record stands to it; ``fixed`` says why its owner does not let the CPU go, or is
    None.
    """

    index: int
    type: str
    props: Props
    vcpus: int
    filled: bool = False
    device_id: str | None = None
    path: str | None = None
    default_id: str = ""
    managed: bool = False
    at_start: bool = False
    threads: tuple[HostThread, ...] = ()
    leaving: tuple[HostThread, ...] = ()
    phantoms: tuple[HostThread, ...] = ()
    recorded: Recorded = Recorded.AGREES
    fixed: Reason | None = None

    @property
    def handle(self) -> str:
        """What the monitor knows the slot's CPU by: its id, or its path if it has none; empty for an empty slot."""
        return self.device_id or self.path or ""

    @property
    def vacant(self) -> bool:
        """Whether nobody has anything of a CPU there any more."""
        return not self.filled and not self.ending

    @property
    def ending(self) -> bool:
        """Whether the slot is empty, and its CPU's removal is not at its end in QEMU or in its owner's record."""
        return bool(self.leaving) or self.recorded is Recorded.SETTLING

    @property
    def node(self) -> int | None:
        """The NUMA node that QEMU assigns, if the machine has any."""
        value = self.props.get("node-id")
        return value if isinstance(value, int) else None


def freeze_props(props: Mapping[str, PropValue]) -> Props:
    """Return a read-only copy of ``props``."""
    return MappingProxyType(dict(props))


class Channel(NamedTuple):
    """The agent's virtio-serial port, as QEMU sees it.

    ``socket`` is the chardev's unix socket, as it is reached from here ("@NAME" if it is an abstract one; None if there
    is none to connect to), ``bound`` the same by the name that QEMU itself has for it, ``chardev`` QEMU's words for the
    chardev, whatever its kind. ``guest_open`` says that a guest program has the port open, ``device_id`` names the
    virtserialport. ``acpi_up`` is False if QEMU has seen no sign of the guest's ACPI, where it would: such a guest may
    still be booting; None if QEMU does not say. ``name_withheld``: QEMU does not tell the socket's name, as it does for
    an abstract one while another program is connected to it.
    """

    socket: str | None
    guest_open: bool
    device_id: str | None = None
    acpi_up: bool | None = None
    bound: str = ""
    chardev: str = ""
    name_withheld: bool = False


#: The statuses of a migration that is not, or not any more (MigrationStatus, qapi/migration.json). The others are many,
#: and become more: what is not known is taken for a migration under way.
_MIGRATION_AT_REST = frozenset({"", "none", "completed", "failed", "cancelled"})


class Owner(NamedTuple):
    """Who owns the VM, in words ("libvirt 12.8.0"), and whether it keeps a ``definition`` that the VM starts from.

    ``record_alone``: the owner's record is all that is seen of the VM; QEMU itself is not looked at. ``refuses`` says
    why it is asked neither to plug nor to unplug, or is None.
    """

    name: str
    definition: bool
    record_alone: bool = False
    refuses: Reason | None = None


class HostView(NamedTuple):
    """One look at QEMU. ``slots`` are in slot order. ``no_hotplug`` says why no CPU can be plugged, or is None.

    A machine without CPU hotplug has a filled slot for each of its vCPUs. ``properties`` are those of the machine
    object that platforms ask for (MACHINE_PROPERTIES), as far as it has them, ``cpu_properties`` those of its CPUs
    (CPU_PROPERTIES; -cpu makes them all alike, and the first one stays on every machine that tells). ``topology`` is
    what the machine was started with (-smp, completed by QEMU: cpus, maxcpus, sockets ...), empty where QEMU does not
    show it. ``iommu`` are properties of the machine's IOMMU (IOMMU_PROPERTIES), empty if it has none. ``devices`` are
    those that have an id, CPUs or not: id to QOM type. ``migration`` is the status of
    query-migrate, empty if there has been none. ``descriptors`` is None where QEMU's process cannot be looked at.
    ``owner`` is who else than QEMU has to be asked for changes, None where nobody has.
    """

    qemu_version: tuple[int, int, int]
    machine: str
    arch: str
    status: str
    accel: str
    slots: tuple[Slot, ...]
    ost: Mapping[int, Ost] = NOTHING
    channel: Channel | None = None
    no_hotplug: Reason | None = None
    vm_name: str = ""
    properties: Mapping[str, PropValue] = NOTHING
    cpu_properties: Mapping[str, PropValue] = NOTHING
    topology: Mapping[str, int] = NOTHING
    devices: Mapping[str, str] = NOTHING
    iommu: Mapping[str, PropValue] = NOTHING
    migration: str = ""
    descriptors: Descriptors | None = None
    owner: Owner | None = None

    @property
    def qemu_seen(self) -> bool:
        """Whether QEMU itself was looked at. Else that there are no threads and no _OST here says nothing."""
        return self.owner is None or not self.owner.record_alone

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
        """Return the slot with this index. Raise IndexError if there is none."""
        if not 0 <= index < len(self.slots):
            raise IndexError(index)
        return self.slots[index]
