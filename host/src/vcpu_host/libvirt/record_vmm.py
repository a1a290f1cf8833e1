# SPDX-License-Identifier: Apache-2.0
"""The ``Vmm`` role by libvirt's record alone, for sites that refuse domains whose monitor somebody has used.

A question to QEMU's monitor taints a domain ("custom-monitor"), once for each start of it; virDomainSetVcpu, the XML
and the channel do not. By the record alone nobody knows what QEMU itself has in its slots: libvirt's word and the
guest's, by identity, are all there is.

So a removal is asked for when the operation asks for it, after the guest's fresh word, and never by itself: that the
record still has a CPU does not say that it is gone from QEMU. Where libvirt has missed the end of a removal, the
operation's next request has it notice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..core.identity import VmIdentity
from ..core.model import Channel, HostView, Slot
from ..core.platforms import platform_for
from ..core.reason import Reason
from ..core.text import printable
from ..core.vm_events import QemuGone, VmEvent
from ..errors import QemuError
from ..qmp.events import EventHub
from ..qmp.names import LIBVIRTS
from . import words
from .domain import Domain
from .domain_xml import DomainRecord

#: virDomainState, in QEMU's words (RunState, qapi/run-state.json).
_STATES = {1: "running", 3: "paused", 4: "shutdown", 5: "shutdown", 6: "guest-panicked", 7: "suspended"}
#: Of those that are paused, why, where that is more than a pause (virDomainPausedReason): IOERROR, WATCHDOG, CRASHED.
_PAUSED = 3
_WHY_PAUSED = {5: "io-error", 6: "watchdog", 10: "guest-panicked"}
#: virDomainJobOperation of a migration, to and from here (include/libvirt/libvirt-domain.h).
_MIGRATION = (4, 5)


class RecordVmm:
    """See ``ports.Vmm``. What it shows of QEMU is what libvirt has on its record."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._owner = domain.owner._replace(record_alone=True)
        self._hub = EventHub(LIBVIRTS)
        domain.connection.on_loss(lambda reason: self._hub.put(QemuGone(reason)))

    async def identity(self) -> VmIdentity:
        """See ``ports.Vmm``."""
        return VmIdentity(self.domain.identity)

    async def look(self) -> HostView:
        """See ``ports.Vmm``. Raise QemuGoneError "domain-off" if it does not run."""
        state, version, operation = await self.domain.call("look at the domain", self._state)
        if state == "shutdown":
            raise words.domain_off("the domain is not running")
        record = await self.domain.record()
        view = HostView(
            qemu_version=(version // 1_000_000, version // 1000 % 1000, version % 1000),
            machine=record.machine,
            arch=record.arch,
            status=state,
            accel=record.accel,
            slots=tuple(_slot(number, record) for number in range(record.most)),
            channel=Channel(None, guest_open=record.connected is not False) if record.channel else None,
            vm_name=printable(record.name),
            # Without <acpi/> libvirt starts the machine with acpi=off, if it has such a property.
            properties={} if record.acpi else {"acpi": "off"},
            cpu_properties={} if record.x2apic is None else {"x2apic": record.x2apic},
            topology=record.topology,
            migration="active" if operation in _MIGRATION else "",
            owner=self._owner,
        )
        if platform_for(view).whole_cores:
            return view._replace(owner=self._owner._replace(refuses=words.cores()))
        return view

    def _state(self) -> tuple[str, int, int]:
        """Return its state, QEMU's version as libvirt counts, and what is under way with it.

        In the connection's thread.
        """
        raw: Any = self.domain.raw
        number, why = raw.state()
        state = _STATES.get(number, "paused")
        if number == _PAUSED:
            state = _WHY_PAUSED.get(why, state)
        job = raw.jobStats() if state != "shutdown" else {}
        return (
            state,
            int(self.domain.connection.raw.getVersion()),
            int(job.get("operation", 0)) if job.get("type") else 0,
        )

    async def look_slots(self, view: HostView) -> HostView:
        """See ``ports.Vmm``."""
        del view
        return await self.look()

    async def queues(self) -> Mapping[str, tuple[int, ...]]:
        """See ``ports.Vmm``: the record does not say."""
        return {}

    async def plug(self, slot: Slot, device_id: str = "") -> str:
        """See ``ports.Vmm``."""
        del device_id
        try:
            await self.domain.plug(slot.index)
        except words.UnclearError as error:
            if not (await self.domain.record()).has(slot.index):
                raise words.not_known(error) from error  # QEMU may have the CPU all the same
        return LIBVIRTS.slot_id(slot.index)

    async def unplug(self, slot: Slot, not_after: float | None = None) -> None:
        """See ``ports.Vmm``. A libvirt before 12.4 waits for its end, 5 s at most, and then says that it timed out."""
        try:
            await self.domain.unplug(slot.index, asynchronously=self.domain.asynchronous, not_after=not_after)
        except QemuError as error:
            # What does not wait for the end fails before anything was begun.
            if self.domain.asynchronous or not isinstance(error, words.UnclearError):
                raise
            if not words.of_waiting(error) and (await self.domain.record()).has(slot.index):
                raise words.not_known(error) from error  # QEMU may have been asked, and the CPU may go

    async def mend(self, view: HostView) -> None:
        """See ``ports.Vmm``: nothing is seen that the record could be compared with."""

    async def keep(self, slots: Mapping[int, bool], *, whole: bool = False) -> Mapping[int, Reason]:
        """See ``ports.Vmm``."""
        return await self.domain.keep(slots, whole=whole)

    def events(self) -> AsyncIterator[VmEvent]:
        """See ``ports.Vmm``: of events there is but the end."""
        return self._hub.stream()

    async def close(self) -> None:
        """See ``ports.Vmm``."""
        await self.domain.close()


def _slot(number: int, record: DomainRecord) -> Slot:
    filled = record.has(number)
    fixed = record.stays(number)
    return Slot(
        number,
        "",
        {},
        1,
        filled,
        LIBVIRTS.slot_id(number) if filled and not fixed else None,
        default_id=LIBVIRTS.slot_id(number),
        managed=filled and not fixed,
        at_start=fixed,
        fixed=words.not_hotpluggable(number) if fixed else None,
    )
