# SPDX-License-Identifier: Apache-2.0
"""The platforms on which vcpuctl is tried: what machine each is, and how its guest names a slot's CPUs.

Written from QEMU's and Linux's sources anew, so that it can judge the product's own platform modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kit.e2e import numa, papr
from kit.lab import GuestCpu, Vm

SlotOf = Callable[[str, GuestCpu], int]


def by_acpi_path(_name: str, cpu: GuestCpu) -> int:
    """QEMU numbers the ACPI objects by slot, in hexadecimal."""
    return int(cpu["path"].rpartition(".C")[2], 16)


def by_apic_path(_name: str, cpu: GuestCpu) -> int:
    """Machine types before 2.7 name them by APIC id, of which a socket of three cores takes eight (ODD)."""
    socket, within = divmod(int(cpu["path"].rpartition(".CP")[2], 16), 8)
    return socket * 6 + within


def by_two_threads(_name: str, cpu: GuestCpu) -> int:
    """POWER's physical_id counts threads, and cores of two threads lie two apart."""
    return int(cpu["path"]) // 2


def by_address(_name: str, cpu: GuestCpu) -> int:
    """One CPU a slot, and the firmware counts them as QEMU does."""
    return int(cpu["path"])


def by_number(name: str, _cpu: GuestCpu) -> int:
    """All are there from the start."""
    return int(name.removeprefix("cpu"))


@dataclass(frozen=True)
class Cell:
    """A platform with a QEMU and a guest; ``changes`` are those of the standard VmSpec."""

    platform: str
    qemu: str
    guest: str
    changes: Mapping[str, Any]
    slot_of: SlotOf = by_acpi_path
    #: The guest's CPUs with what slot_of goes by.
    cpus: Callable[[Vm], Mapping[str, GuestCpu]] = Vm.guest_cpus
    threads: int = 1
    #: Two slots to plug, the higher one first.
    slots: tuple[int, int] = (3, 1)
    plug: bool = True
    unplug: bool = True
    #: What doctor finds wrong there.
    problems: frozenset[str] = frozenset()
    #: Whether its saved state can be had: a boot from cold takes a minute.
    saved: bool = True
    #: Checks that fail there without vcpuctl too, and so are not made: how they fail.
    hopeless: Mapping[str, str] = field(default_factory=dict)
    #: In the daily tests, rather than the long matrix.
    daily: bool = False
    #: Whether it runs under KVM in an emulated host (lab.nested).
    kvm: bool = False
    #: Checks that are each made on a VM of its own, in the long matrix, and not with the rest.
    apart: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For the test's own name."""
        guest = "" if self.guest.startswith("debian12-") else f"-{self.guest}"
        return (
            f"{self.platform}-{self.qemu}{guest}{'-kvm' if self.kvm else ''}".replace(" ", "-")
            .replace(",", "")
            .replace("=", "")
        )


#: Two nodes, whose CPUs lie on the node that the slot's socket belongs to.
_NUMA = numa.nodes(2, 512, "socket-id")
#: A machine of every level.
LEVELS: Mapping[str, Any] = {
    "smp": "1,maxcpus=16,sockets=2,dies=2,modules=2,cores=2,threads=1",
    "extra_args": _NUMA,
}
#: A socket's APIC ids have gaps here: slot 9 has the id 11.
ODD: Mapping[str, Any] = {"smp": "1,maxcpus=12,sockets=2,cores=3,threads=2"}
_old = partial(Cell, qemu="10.0", slot_of=by_apic_path, slots=(9, 1), unplug=False)
_CORES = {"machine": "pseries,x-vof=on", "smp": "2,maxcpus=16,sockets=1,cores=8,threads=2"}
_LEGACY = {**_CORES, "machine": "pseries,x-vof=on,modern-hotplug-events=off"}
_SINGLE = {"machine": "pseries,x-vof=on", "smp": "1,maxcpus=16,sockets=1,cores=16,threads=1"}
_LOONG = {"machine": "virt", "smp": "1,maxcpus=4,sockets=1,cores=4,threads=1"}
_S390X = {"machine": "s390-ccw-virtio", "smp": "1,maxcpus=8,sockets=8"}
_ARM = {"machine": "virt", "smp": "4"}
_NONE: Mapping[str, Any] = {"plug": False, "unplug": False, "problems": frozenset({"no-hotplug"})}
#: It takes half of the time.
_RESTART = ("reboot",)
#: Few, so that Linux boots in tolerable time, and of one thread, as the emulated CPU's family has.
KVM: Mapping[str, Any] = {"smp": "1,maxcpus=8,sockets=2,cores=4,threads=1"}
#: The same of POWER.
KVM_CORES: Mapping[str, Any] = {"machine": "pseries,x-vof=on", "smp": "1,maxcpus=8,sockets=1,cores=8,threads=1"}
_POWER = "debian12-ppc64el"
_power = partial(Cell, guest=_POWER, slot_of=by_two_threads, threads=2)

CELLS = (
    Cell("q35", "10.0", "debian12-amd64", {}),
    Cell("pc", "10.0", "debian12-amd64", {"machine": "pc"}),
    Cell(
        "q35, dies, modules, NUMA",
        "10.0",
        "debian12-amd64",
        LEVELS,
        slots=(9, 1),
        daily=True,
        apart=_RESTART,
    ),
    Cell("q35", "7.2", "debian12-amd64", {}),
    Cell("q35", "11.1", "debian12-amd64", {}),
    # an ordinary installation of today: its kernel loads modules at each new CPU, and numbers CPUs by their place
    Cell("q35", "10.0", "debian13-amd64", {}, slots=(9, 1), daily=True, apart=_RESTART),
    Cell("q35", "11.1", "debian13-amd64", {}, slots=(9, 1)),
    Cell("pc", "10.0", "debian13-amd64", {"machine": "pc"}),
    Cell("q35", "10.0", "sid-amd64", {}, slots=(9, 1)),
    Cell("q35", "11.1", "sid-amd64", {}, slots=(9, 1)),
    Cell("q35", "10.0", "debian12-amd64", KVM, kvm=True),
    Cell("q35", "11.1", "debian13-amd64", KVM, slots=(5, 2), kvm=True),
    Cell(
        "pseries, threads=1",
        "11.1",
        _POWER,
        KVM_CORES,
        slot_of=by_address,
        cpus=papr.cpus,
        kvm=True,
        apart=("scale", "unplug"),
        hopeless={"re-plug 20 times": "emulated, the nesting hangs after a few removals, without vcpuctl too"},
    ),
    # types from before 2.7, which QEMU 11.1 has no more
    _old("pc-i440fx-2.6", guest="debian12-amd64", changes={**ODD, "machine": "pc-i440fx-2.6"}),
    _old("pc-i440fx-2.6", guest="debian13-amd64", changes={**ODD, "machine": "pc-i440fx-2.6"}),
    _old("pc-q35-2.6", guest="debian12-amd64", changes={**ODD, "machine": "pc-q35-2.6"}),
    _power("pseries", "11.1", changes=_CORES),
    _power("pseries, legacy events", "11.1", changes=_LEGACY),
    # pseries guests of these do not wake up again after a restore, loongarch ones neither, and s390x ones of 7.2 hardly
    _power("pseries", "10.0", changes=_CORES, saved=False),
    Cell("pseries, threads=1", "7.2", _POWER, _SINGLE, slot_of=by_address, saved=False),
    Cell("s390x", "10.0", "debian12-s390x", _S390X, slot_of=by_address, unplug=False),
    Cell(
        "s390x",
        "7.2",
        "debian12-s390x",
        _S390X,
        slot_of=by_address,
        unplug=False,
        saved=False,
        hopeless={"reboot": "a guest with plugged CPUs does not come back, without vcpuctl neither"},
    ),
    Cell("arm virt", "11.1", "debian12-arm64", _ARM, slot_of=by_number, **_NONE),
    Cell("arm virt", "7.2", "debian12-arm64", _ARM, slot_of=by_number, **_NONE),
    Cell(
        "loongarch virt",
        "11.1",
        "sid-loong64",
        _LOONG,
        saved=False,
        hopeless={"reboot": "a guest does not come back from its own restart, without vcpuctl and plugs neither"},
    ),
)
