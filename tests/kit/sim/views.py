# SPDX-License-Identifier: Apache-2.0
"""Virtual machines as values: what QEMU and the agent would say, for tests that need no process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vcpu_host.core.descriptors import Descriptors
from vcpu_host.core.guest import AgentInfo, Environment, GuestCpu, GuestView, LoadSupport
from vcpu_host.core.model import Channel, HostThread, HostView, Ost, PropValue, Slot, freeze_props
from vcpu_host.core.platforms import Platform, fixed, x86
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView, join
from vcpu_host.qmp.names import OURS

ARCH_OF_CORES = "cores64"


@dataclass(frozen=True)
class Cores(Platform):
    """A platform whose slots hold several threads; slot 0 stays, refusals come as DEVICE_UNPLUG_GUEST_ERROR."""

    name = "cores"
    agent_platform = "acpi"

    def matches(self, host: HostView) -> bool:
        return host.arch == ARCH_OF_CORES

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        del host
        return tuple(f"drc:{slot.index}.{thread}" for thread in range(slot.vcpus))

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        del host
        return Reason("boot-core", Origin.VCPUCTL, "slot 0 holds the boot core") if slot.index == 0 else None

    def one_at_a_time(self, host: HostView) -> bool:
        del host
        return True


CORES = Cores()


def platform_of(threads: int) -> Platform:
    """The platform on which a slot has so many threads."""
    return x86.PLATFORM if threads == 1 else CORES


def props_of(index: int, threads: int = 1) -> dict[str, PropValue]:
    """As a flat x86 or a pseries machine would have them."""
    if threads == 1:
        return {"socket-id": index, "core-id": 0, "thread-id": 0}
    return {"core-id": index * threads}


def slot(
    index: int,
    *,
    threads: int = 1,
    filled: bool = True,
    boot: bool = False,
    device_id: str | None = None,
    props: Mapping[str, PropValue] | None = None,
    type_: str = "qemu64-x86_64-cpu",
    fills: int = 0,
) -> Slot:
    """One slot; ``boot`` gives it a CPU of -smp, ``device_id`` another id than ours. ``fills`` counts its CPUs."""
    own = OURS.slot_id(index)
    path = known = None
    if filled:
        known = None if boot else device_id or own
        path = f"/machine/unattached/device[{index + 3}]" if boot else f"/machine/peripheral/{known}"
    first = index * threads
    tids = tuple(
        HostThread(first + t, 9000 + 10000 * fills + first + t, f"{path}/thread[{t}]", at_start=boot)
        for t in range(threads if filled else 0)
    )
    return Slot(
        index,
        type_,
        freeze_props(props or props_of(index, threads)),
        threads,
        filled,
        known,
        path,
        default_id=own,
        managed=known == own,
        at_start=filled and boot,
        threads=tids,
    )


def host(
    total: int,
    filled: Collection[int] = (0,),
    *,
    threads: int = 1,
    boot: Collection[int] = (0,),
    status: str = "running",
    accel: str = "kvm",
    version: tuple[int, int, int] = (10, 0, 2),
    slots: tuple[Slot, ...] | None = None,
    no_hotplug: Reason | None = None,
    channel: Channel | None = None,
    ost: Mapping[int, Ost] | None = None,
    flash: bool = False,
) -> HostView:
    """QEMU's side: ``total`` slots of ``threads`` vCPUs, those in ``filled`` plugged."""
    if slots is None:
        slots = tuple(
            slot(index, threads=threads, filled=index in filled, boot=index in boot) for index in range(total)
        )
    return HostView(
        version,
        "pc-q35-10.0",
        "x86_64" if threads == 1 else ARCH_OF_CORES,
        status,
        accel,
        slots,
        ost or {},
        channel or Channel("/run/vm/agent.sock", guest_open=True, device_id="vcpuctl"),
        no_hotplug,
        properties={"pflash0": "firmware"} if flash else {},
        descriptors=Descriptors(60, 524_288, 4711),
        devices={each.device_id: each.type for each in slots if each.device_id is not None},
    )


def identities(view: HostView, index: int) -> tuple[str, ...]:
    """How the slot's threads are called in the guest."""
    slot = view.slots[index]
    platform = fixed.PLATFORM if view.no_hotplug else platform_of(slot.vcpus)
    return platform.firmware_ids(view, slot)


def guest(
    view: HostView,
    online: Collection[int],
    offline: Collection[int] = (),
    *,
    cpus: Mapping[str, GuestCpu] | None = None,
) -> GuestView:
    """The guest's side: the CPUs of these slots, numbered in slot order; ``cpus`` replaces some by identity."""
    shown: list[GuestCpu] = []
    for index in sorted({*online, *offline}):
        for identity in identities(view, index):
            cpu = GuestCpu(len(shown), identity, index in online)
            shown.append((cpus or {}).get(identity, cpu))
    return GuestView(1, "boot", "instance", tuple(shown))


INFO = AgentInfo(
    "0.1.0",
    1,
    "6.1.0-40-amd64",
    "x86_64",
    "boot",
    "instance",
    "acpi",
    "udev",
    ("watch-load",),
    environment=Environment(possible="0-4095", eject_enabled=True),
    load=LoadSupport(allowed=True, pressure=True, run_queues=True),
)


def vm(
    total: int,
    online: Collection[int] = (0,),
    offline: Collection[int] = (),
    *,
    threads: int = 1,
    boot: Collection[int] = (0,),
    flash: bool = False,
) -> VmView:
    """A whole, healthy map: what is in neither set is empty."""
    view = host(total, {*online, *offline}, threads=threads, boot=boot, flash=flash)
    return join(view, guest(view, online, offline), agent=INFO)
