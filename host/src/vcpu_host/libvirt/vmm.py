# SPDX-License-Identifier: Apache-2.0
"""The ``Vmm`` role over libvirt: QEMU is looked at through libvirt's monitor, and changed through libvirt's calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace

from ..core.model import HostView, Recorded, Slot
from ..core.reason import Reason
from ..errors import QemuError
from ..qmp import replies
from ..qmp.events import EventHub
from ..qmp.names import LIBVIRTS
from ..qmp.vmm import QmpVmm
from . import words
from .connection import Connection
from .domain import Domain
from .domain_xml import DomainRecord
from .monitor import LentMonitor
from .record_vmm import RecordVmm

#: How long libvirt's record is waited for once a slot is empty, in seconds.
_SETTLES = 1.5
#: How often both are looked at again when others change the slots between the two looks.
_LOOKS = 3


async def connect(
    uri: str, name: str, *, monitor: bool = True, timeout: float = 30.0, call_timeout: float = 40.0
) -> LibvirtVmm | RecordVmm:
    """Return the machine of a domain, by its name or UUID, of the libvirt at ``uri``; events are kept from now on.

    Without ``monitor`` QEMU itself is not looked at. ``timeout`` (seconds) is for the connecting (another host is
    reached by ssh, perhaps), ``call_timeout`` for each call: it waits for what others do with the domain, 30 s at most
    before libvirt says so. Raise UsageError "bad-uri" or "no-such-domain", RefusedError "no-libvirt" or
    "libvirt-denied", QemuGoneError "libvirt-gone", "libvirt-silent" or "domain-off".
    """
    connection = await Connection.open(uri, timeout=timeout, call_timeout=call_timeout)
    try:
        await connection.has_qemu()
        domain = await Domain.find(connection, name)
    except BaseException:
        await connection.close()
        raise
    if not monitor:
        return RecordVmm(domain)
    hub = EventHub(LIBVIRTS)
    lent = LentMonitor(domain, hub)
    try:
        await lent.begin()
    except BaseException:
        await lent.close()  # libvirt ends no connection that has callbacks
        raise
    return LibvirtVmm(domain, lent, hub)


class LibvirtVmm(QmpVmm):
    """See ``ports.Vmm``. A CPU's slot is libvirt's number of it, and its device id is libvirt's."""

    def __init__(self, domain: Domain, monitor: LentMonitor, hub: EventHub) -> None:
        super().__init__(monitor, hub)
        self.domain = domain
        self._lent = monitor
        #: Slots whose removal was asked for here, and since when they are seen to be empty.
        self._leaving: dict[int, _Leaving] = {}

    async def look(self) -> HostView:
        """See ``ports.Vmm``; with what libvirt has on its record."""
        return await self._with_record(await super().look())

    async def look_slots(self, view: HostView) -> HostView:
        """See ``ports.Vmm``."""
        return await self._with_record(await super().look_slots(view))

    async def _with_record(self, view: HostView) -> HostView:
        """Return the view with what libvirt's record says of its slots.

        Others may plug and unplug between the two looks. So where they differ, QEMU is looked at once more: what was
        so before the record was read and after it counts; the rest is looked at anew.
        """
        for again in reversed(range(_LOOKS)):
            record = await self.domain.record()  # after QEMU was looked at: libvirt hears of things later
            if self._leaving:
                record = await self._told_again(view, record)
            if any(slot.vcpus > 1 for slot in view.slots):
                return view._replace(owner=self.domain.owner._replace(refuses=words.cores()))
            differ = {slot.index for slot in view.slots if record.has(slot.index) is not slot.filled}
            filled = await self._filled() if differ and view.no_hotplug is None else None
            moved = set() if filled is None else {at for at in differ if (at in filled) is not view.slots[at].filled}
            if moved and again:
                view = await super().look_slots(view)
            else:
                break
        slots = tuple(
            replace(slot, recorded=Recorded.AGREES if slot.filled else Recorded.SETTLING)
            if slot.index in moved
            else self._recorded(slot, record)
            for slot in view.slots
        )
        return view._replace(slots=slots, owner=self.domain.owner)

    async def _filled(self) -> frozenset[int]:
        """Return the slots that have a CPU at this moment."""
        return replies.filled(await self._lent.call("query-hotpluggable-cpus"))

    def _recorded(self, slot: Slot, record: DomainRecord) -> Slot:
        if record.has(slot.index) is slot.filled:
            fixed = slot.filled and record.stays(slot.index)
            return replace(slot, fixed=words.not_hotpluggable(slot.index)) if fixed else slot
        if slot.filled:
            return replace(slot, recorded=Recorded.BEHIND, fixed=words.behind(slot), managed=False)
        leaving = self._leaving.get(slot.index)
        settling = leaving is not None and leaving.settles(asyncio.get_running_loop().time())
        return replace(slot, recorded=Recorded.SETTLING if settling else Recorded.BEHIND)

    async def _told_again(self, view: HostView, record: DomainRecord) -> DomainRecord:
        """Have libvirt notice what it has missed: a slot that is empty and still on its record.

        QEMU's own word of it may come late (under TCG with the next change of the machine's memory map only). Asked to
        remove the CPU once more, libvirt since 12.4 finds that it is gone and takes that for done; older ones do not.
        It is told at once, and at each look until its record has followed: while QEMU is still busy with the removal of
        others it fails ("qemu reported thread id for inactive vcpu", seen on 12.8).
        """
        now = asyncio.get_running_loop().time()
        missed = False
        for index, leaving in list(self._leaving.items()):
            if not view.slots[index].vacant:
                leaving.empty_since = None
                continue
            if not record.has(index):
                del self._leaving[index]
                continue
            if leaving.empty_since is None:
                leaving.empty_since = now
            if self.domain.asynchronous and leaving.settles(now):
                missed = True
                with contextlib.suppress(QemuError):  # it knows by now, or not yet: its record says which
                    await self._strike_out(index)
        return await self.domain.record() if missed else record

    async def plug(self, slot: Slot, device_id: str = "") -> str:
        """See ``ports.Vmm``: virDomainSetVcpu. The id is libvirt's."""
        del device_id
        if slot.recorded is Recorded.BEHIND:
            await self._make_room(slot)  # libvirt would refuse to plug the slot
        self._leaving.pop(slot.index, None)
        try:
            await self.domain.plug(slot.index)
        except words.UnclearError as error:
            if not await self._has_come(slot.index):
                raise QemuError(error.reason) from error
        return LIBVIRTS.slot_id(slot.index)

    async def _has_come(self, index: int) -> bool:
        """Return whether QEMU has a CPU after a plug at which libvirt has failed.

        Raise QemuGoneError if it cannot be seen.
        """
        try:
            return index in await self._filled()
        except QemuError as error:
            raise words.not_known(error) from error

    async def mend(self, view: HostView) -> None:
        """See ``ports.Vmm``."""
        for slot in view.slots:
            if slot.recorded is Recorded.BEHIND and not slot.filled:
                with contextlib.suppress(QemuError):  # doctor says what is left
                    await self._make_room(slot)

    async def _make_room(self, slot: Slot) -> None:
        """Rid libvirt's record of a CPU that is gone. A libvirt before 12.4 cannot be told."""
        if self.domain.asynchronous and (await self.domain.record()).has(slot.index):
            await self._strike_out(slot.index)

    async def _strike_out(self, index: int) -> None:
        """Have libvirt remove a CPU that its record has and QEMU does not.

        A CPU that somebody has plugged there since the last look would go without the guest's word. So QEMU is looked
        at right before; libvirt has no call that does both at once.
        """
        if index not in await self._filled():
            await self.domain.unplug(index, asynchronously=True)

    async def unplug(self, slot: Slot, not_after: float | None = None) -> None:
        """See ``ports.Vmm``: virDomainSetVcpu, asynchronous where libvirt can.

        Where it cannot, the call would hold up everybody else at this domain for up to 5 s: QEMU is asked directly, and
        libvirt hears of the removal by QEMU's event, as of one that comes after its own time-out.
        """
        self._leaving[slot.index] = _Leaving()
        if self.domain.asynchronous:
            await self.domain.unplug(slot.index, asynchronously=True, not_after=not_after)
        else:
            await self._lent.send("device_del", {"id": LIBVIRTS.slot_id(slot.index)}, not_after=not_after)

    async def keep(self, slots: Mapping[int, bool], *, whole: bool = False) -> Mapping[int, Reason]:
        """See ``ports.Vmm``."""
        return await self.domain.keep(slots, whole=whole)


class _Leaving:
    """A slot whose removal was asked for."""

    def __init__(self) -> None:
        self.empty_since: float | None = None

    def settles(self, now: float) -> bool:
        """Return whether libvirt's record may yet follow."""
        return self.empty_since is None or now - self.empty_since < _SETTLES
