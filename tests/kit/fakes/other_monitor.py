# SPDX-License-Identifier: Apache-2.0
"""A machine monitor that is not QMP: it calls CPUs in its own way, and has no ids for those of the start.

It holds the core to its word that it knows slots, and no monitor's ids or paths.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from kit.fakes.adapters import Vm
from kit.sim.views import host
from vcpu_host.core import codes
from vcpu_host.core.identity import SocketId, VmIdentity
from vcpu_host.core.model import HostView, Ost, Slot
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.vm_events import DeviceDeleted, OstReported, QemuGone, VmEvent
from vcpu_host.errors import QemuError, in_time


def own_name(index: int) -> str:
    """The id that this monitor gives the CPU of a slot, by itself."""
    return f"domain/cpu{index:02d}"


class OtherMonitor:
    """Fills ``ports.Vmm`` over the VM in memory. ``said`` is what it was asked for, in its own words."""

    def __init__(self, vm: Vm, at_start: frozenset[int] = frozenset({0})) -> None:
        self.vm = vm
        self.said: list[str] = []
        self._at_start = at_start
        self._streams: list[asyncio.Queue[VmEvent]] = []

    def _slot(self, slot: Slot) -> Slot:
        at_start = slot.index in self._at_start
        name = own_name(slot.index) if slot.filled and not at_start else None
        return replace(
            slot,
            device_id=name,
            path=f"#{slot.index}" if slot.filled else None,
            default_id=own_name(slot.index),
            managed=name is not None,
            at_start=slot.filled and at_start,
        )

    async def identity(self) -> VmIdentity:
        return VmIdentity(SocketId("@another"))

    async def look(self) -> HostView:
        view = host(self.vm.total, self.vm.filled)
        slots = tuple(map(self._slot, view.slots))
        return view._replace(slots=slots, devices={s.device_id: s.type for s in slots if s.device_id is not None})

    async def look_slots(self, view: HostView) -> HostView:
        del view
        return await self.look()

    async def mend(self, view: HostView) -> None:
        del view

    async def keep(self, slots: Mapping[int, bool], *, whole: bool = False) -> Mapping[int, Reason]:
        del whole
        self.kept = dict(slots)
        return {}

    async def queues(self) -> Mapping[str, tuple[int, ...]]:
        return {}

    async def plug(self, slot: Slot, device_id: str = "") -> str:
        name = device_id or own_name(slot.index)
        self.said.append(f"attach {name}")
        if slot.index in self.vm.filled:
            raise QemuError(Reason(codes.SLOT_OCCUPIED, Origin.QEMU, "there is one"))
        self.vm.filled.add(slot.index)
        self.vm.present.add(slot.index)
        self._tell(OstReported(slot.index, Ost(1, 0)))
        self.vm.note()
        return name

    async def unplug(self, slot: Slot, not_after: float | None = None) -> None:
        in_time(not_after)
        self.said.append(f"detach {slot.handle or own_name(slot.index)}")
        assert slot.index not in self.vm.online, "the guest has not let it go"
        self.vm.filled.discard(slot.index)
        self.vm.present.discard(slot.index)
        self._tell(DeviceDeleted(slot.index))
        self._tell(OstReported(slot.index, Ost(3, 0)))

    def _tell(self, event: VmEvent) -> None:
        for stream in self._streams:
            stream.put_nowait(event)

    def events(self) -> AsyncIterator[VmEvent]:
        stream: asyncio.Queue[VmEvent] = asyncio.Queue()
        self._streams.append(stream)

        async def follow() -> AsyncIterator[VmEvent]:
            while True:
                event = await stream.get()
                yield event
                if isinstance(event, QemuGone):
                    return

        return follow()

    async def close(self) -> None:
        self._tell(QemuGone(Reason(codes.QEMU_GONE, Origin.QEMU, "closed")))
