# SPDX-License-Identifier: Apache-2.0
"""What the fake machine is like, and which of QEMU's quirks it has."""

from __future__ import annotations

from dataclasses import dataclass

#: How DEVICE_DELETED of a CPU comes: "tcg" only for the child ``lapic`` and without ``device`` (seen on 7.2 to 11.1
#: under TCG), "kvm" for the child and then for the CPU itself, "none" never.
DELETED = ("tcg", "kvm", "none")
#: Kinds of the port's chardev.
CHARDEVS = ("unix", "abstract", "pty", "client", "tcp")


@dataclass(frozen=True)
class Config:
    """One x86 machine, or a pseries one. The topology's product is the number of possible vCPUs."""

    maxcpus: int = 16
    smp: int = 1
    sockets: int = 1
    dies: int = 1
    modules: int = 1
    cores: int = 0  # 0: what is left of maxcpus
    threads: int = 1
    nodes: int = 0
    machine: str = "pc-q35"
    cpu: str = "qemu64"
    #: Whether the CPU model has x2APIC: qemu64 has none.
    x2apic: bool = False
    #: -cpu ...,hypervisor=off and kvm=off hide the hypervisor from the guest.
    hypervisor: bool = True
    kvm: bool = True
    version: tuple[int, int, int] = (10, 0, 13)
    accel: str = "tcg"
    name: str = ""
    deleted: str = "tcg"
    #: False: query-hotpluggable-cpus and device_add are refused, as on microvm.
    hotplug: bool = True
    #: False: acpi=off, on the machine or on the guest's kernel command line. The guest never hears of CPUs then.
    acpi: bool = True
    guest_acpi: bool = True
    #: "": no SMM; "blocked": it forbids plug and unplug; "plug-only": unplug alone.
    smm: str = ""
    #: Start as with -S.
    paused: bool = False
    #: Start as with --preconfig: the slots are of no node, and the machine is made on x-exit-preconfig.
    preconfig: bool = False
    #: Start as with -incoming: no guest comes before a migration does.
    incoming: bool = False
    #: False: the guest's ACPI comes up only when a test says so.
    boots: bool = True
    #: QEMU 7.2 under TCG: the first device_add after an unplug kills it.
    dies_on_replug: bool = False
    #: QEMU 10 and 11 under TCG: the plug beyond maxcpus, over the process's life, kills it.
    plug_budget: bool = False
    #: Queues of its disk; 0: one for each CPU of -smp, as virtio_pci_optimal_num_queues has it.
    queues: int = 0
    #: How many CPUs the guest's kernel has room for; 0: as many as there are slots.
    guest_possible: int = 0
    #: The agent's port: its device id ("" for one without), and whether there is one at all.
    port: bool = True
    port_id: str = "port0"
    #: What the port is joined to: "unix", "abstract", "pty", "client" (of a unix socket), "tcp".
    chardev: str = "unix"
    #: Other devices with ids, as "ID:TYPE,ID:TYPE".
    devices: str = ""

    #: How the ACPI objects of CPUs are called: "today", or by APIC id, as on types from before 2.7 ("old").
    acpi_names: str = "today"

    @property
    def old(self) -> bool:
        """A type from before 2.7: no CPU is ever ejected, and nothing is reported of one that comes."""
        return self.machine in ("pc-i440fx-2.6", "pc-q35-2.6")

    @property
    def pseries(self) -> bool:
        """A POWER machine."""
        return self.machine == "pseries"

    @property
    def numbers_arrivals(self) -> bool:
        """Whether vCPUs are numbered as they come (target/ppc/kvm.c since 9.1)."""
        return self.pseries and self.accel == "kvm" and self.version >= (9, 1, 0)

    @property
    def arch(self) -> str:
        """QEMU's name of the target."""
        return "ppc64" if self.pseries else "x86_64"

    @property
    def core_count(self) -> int:
        """Cores in each module."""
        return self.cores or self.maxcpus // (self.sockets * self.dies * self.modules * self.threads)

    @property
    def topology(self) -> dict[str, int]:
        """The machine's ``smp``, as QEMU completes it: levels that an x86 machine lacks are 1."""
        levels = {"drawers": 1, "books": 1} if self.version >= (8, 2, 0) else {}
        levels |= {"sockets": self.sockets, "dies": self.dies, "clusters": 1}
        levels |= {"modules": self.modules} if self.version >= (9, 1, 0) else {}
        levels |= {"cores": self.core_count, "threads": self.threads}
        return {"cpus": self.smp, **levels, "maxcpus": self.maxcpus}

    @property
    def other_devices(self) -> dict[str, str]:
        """``devices`` by id, and its disk."""
        pairs = (pair.partition(":") for pair in self.devices.split(",") if pair)
        return {"root-disk": "virtio-blk-pci", **{device_id: kind for device_id, _, kind in pairs}}

    @property
    def cpu_type(self) -> str:
        """The QOM type of its CPUs."""
        if self.pseries:
            return f"{'host' if self.accel == 'kvm' else 'power9_v2.2'}-spapr-cpu-core"
        return f"{self.cpu}-x86_64-cpu"

    @property
    def machine_type(self) -> str:
        """The QOM type of the machine."""
        versioned = self.machine in ("pc-q35", "pc-i440fx", "pseries")
        return f"{self.machine}-{self.version[0]}.{self.version[1]}-machine" if versioned else f"{self.machine}-machine"

    def check(self) -> None:
        """Raise ValueError for a machine that cannot be."""
        product = self.sockets * self.dies * self.modules * self.core_count * self.threads
        if product != self.maxcpus:
            raise ValueError(f"the topology makes {product} CPUs, not maxcpus={self.maxcpus}")
        if self.pseries and self.core_count != self.maxcpus:
            raise ValueError("the fake's pseries machines have one socket, and cores of one thread")
        if not 1 <= self.smp <= self.maxcpus:
            raise ValueError(f"smp={self.smp} is not within 1..{self.maxcpus}")
        if self.chardev not in CHARDEVS:
            raise ValueError(f"chardev={self.chardev!r} is none of {CHARDEVS}")
        if self.deleted not in DELETED:
            raise ValueError(f"deleted={self.deleted!r} is none of {DELETED}")
