# SPDX-License-Identifier: Apache-2.0
"""The ``Vmm`` role over libvirt: QEMU is looked at through libvirt's monitor, and changed through libvirt's calls."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ..core import codes
from ..core.identity import DomainId
from ..core.model import HostView, Owner, Recorded, Slot
from ..core.reason import Origin, Reason
from ..errors import QemuError
from ..qmp.events import EventHub
from ..qmp.names import LIBVIRTS
from ..qmp.vmm import QmpVmm
from . import binding, domain_xml
from .connection import Connection
from .domain_xml import DomainRecord
from .domains import find
from .monitor import LentMonitor

#: virDomainModificationImpact.
_LIVE, _CONFIG = 1, 2
#: virDomainXMLFlags: the definition, and not what runs.
_INACTIVE = 2
#: How long libvirt gets to hear of a removal by itself before it is told once more, in seconds.
_TOLD_AGAIN = 0.3
#: How long its record is waited for then.
_SETTLES = 1.5


async def connect(uri: str, domain: str, *, timeout: float = 30.0, call_timeout: float = 40.0) -> LibvirtVmm:
    """Return the machine of a domain, by its name or UUID, of the libvirt at ``uri``; events are kept from now on.

    ``timeout`` (seconds) is for the connecting (another host is reached by ssh, perhaps), ``call_timeout`` for each
    call: it waits for what others do with the domain, a removal of up to 5 s for one. Raise UsageError "bad-uri" or
    "no-such-domain", RefusedError "no-libvirt" or "libvirt-denied", QemuGoneError "libvirt-gone", "libvirt-silent" or
    "domain-off".
    """
    connection = await Connection.open(uri, timeout=timeout, call_timeout=call_timeout)
    try:
        found = await connection.call("find the domain", _find, connection.raw, domain)
        hub = EventHub(LIBVIRTS)
        monitor = LentMonitor(connection, found.domain, found.identity, hub)
        await monitor.begin()
        return LibvirtVmm(connection, found, monitor, hub)
    except BaseException:
        await connection.close()
        raise


class _Found(NamedTuple):
    """libvirt's object of a domain, which one it is, and whether libvirt keeps a definition of it."""

    domain: Any
    identity: DomainId
    persistent: bool


def _find(raw: Any, domain: str) -> _Found:
    found = find(raw, domain)
    host = re.search(r"<host>\s*<uuid>([^<]*)</uuid>", raw.getCapabilities())
    identity = DomainId(found.UUIDString(), host[1] if host else raw.getHostname())
    return _Found(found, identity, bool(found.isPersistent()))


class LibvirtVmm(QmpVmm):
    """See ``ports.Vmm``. A CPU's slot is libvirt's number of it, and its device id is libvirt's."""

    def __init__(
        self,
        connection: Connection,
        found: _Found,
        monitor: LentMonitor,
        hub: EventHub,
    ) -> None:
        super().__init__(monitor, hub)
        self.connection = connection
        self.domain_id = found.identity
        self._lent = monitor
        self._domain = found.domain
        self._owner = Owner(f"libvirt {_version(connection.version)}", found.persistent)
        #: Slots whose removal was asked for here: since when they are seen to be empty, and whether libvirt was told.
        self._leaving: dict[int, _Leaving] = {}

    @property
    def domain(self) -> Any:
        """libvirt's object, for calls of the connection."""
        return self._domain

    @property
    def asynchronous(self) -> bool:
        """Whether libvirt can begin a removal without waiting for its end."""
        return self.connection.version >= binding.ASYNC_UNPLUG_SINCE

    async def look(self) -> HostView:
        """See ``ports.Vmm``; with what libvirt has on its record."""
        return await self._with_record(await super().look())

    async def look_slots(self, view: HostView) -> HostView:
        """See ``ports.Vmm``."""
        return await self._with_record(await super().look_slots(view))

    async def record(self) -> DomainRecord:
        """Return libvirt's record of the running domain."""
        return domain_xml.read(await self.connection.call("read the domain's XML", self._domain.XMLDesc, 0))

    async def _with_record(self, view: HostView) -> HostView:
        record = await self.record()  # after QEMU was looked at: libvirt hears of things later
        if self._leaving:
            record = await self._told_again(view, record)
        slots = tuple(self._recorded(slot, record) for slot in view.slots)
        return replace(view, slots=slots, owner=self._owner)

    def _recorded(self, slot: Slot, record: DomainRecord) -> Slot:
        vcpu = record.vcpus.get(slot.index)
        if record.has(slot.index) is slot.filled:
            fixed = slot.filled and vcpu is not None and not vcpu.removable
            return replace(slot, fixed=_not_hotpluggable(slot.index)) if fixed else slot
        if slot.filled:
            return replace(slot, recorded=Recorded.BEHIND, fixed=_behind(slot))
        leaving = self._leaving.get(slot.index)
        settling = leaving is not None and leaving.settles(asyncio.get_running_loop().time())
        return replace(slot, recorded=Recorded.SETTLING if settling else Recorded.BEHIND)

    async def _told_again(self, view: HostView, record: DomainRecord) -> DomainRecord:
        """Have libvirt notice what it has missed: a slot that is empty and still on its record.

        QEMU's own word of it may come late (under TCG with the next change of the machine's memory map only). Asked to
        remove the CPU once more, libvirt since 12.4 finds that it is gone and takes that for done; older ones do not.
        """
        now = asyncio.get_running_loop().time()
        missed = False
        for index, leaving in list(self._leaving.items()):
            slot = view.slots[index]
            if not slot.vacant:
                leaving.empty_since = None
            elif not record.has(index):
                del self._leaving[index]
            elif leaving.empty_since is None:
                leaving.empty_since = now
            elif not leaving.told and self.asynchronous and now - leaving.empty_since >= _TOLD_AGAIN:
                leaving.told = missed = True
                try:
                    await self._set(slot.index, enabled=False, flags=_LIVE | binding.ASYNC_UNPLUG)
                except QemuError:
                    continue  # it knows by now, or will not: the next look at its record says which
        return await self.record() if missed else record

    async def plug(self, slot: Slot, device_id: str = "") -> str:
        """See ``ports.Vmm``: virDomainSetVcpu. The id is libvirt's."""
        del device_id
        if slot.recorded is Recorded.BEHIND:
            await self._make_room(slot)
        self._leaving.pop(slot.index, None)
        await self._set(slot.index, enabled=True, flags=_LIVE)
        return LIBVIRTS.slot_id(slot.index)

    async def mend(self, view: HostView) -> None:
        """See ``ports.Vmm``."""
        for slot in view.slots:
            if slot.recorded is Recorded.BEHIND and not slot.filled:
                with contextlib.suppress(QemuError):  # doctor says what is left
                    await self._make_room(slot)

    async def _make_room(self, slot: Slot) -> None:
        """Rid libvirt's record of a CPU that is gone: it would refuse to plug the slot. Older ones cannot be told."""
        if self.asynchronous:
            await self._set(slot.index, enabled=False, flags=_LIVE | binding.ASYNC_UNPLUG)

    async def unplug(self, slot: Slot) -> None:
        """See ``ports.Vmm``: virDomainSetVcpu, asynchronous where libvirt can.

        Where it cannot, the call would hold up everybody else at this domain for up to 5 s: QEMU is asked directly, and
        libvirt hears of the removal by QEMU's event, as of one that comes after its own time-out.
        """
        self._leaving[slot.index] = _Leaving()
        if self.asynchronous:
            await self._set(slot.index, enabled=False, flags=_LIVE | binding.ASYNC_UNPLUG)
        else:
            await self._lent.send("device_del", {"id": LIBVIRTS.slot_id(slot.index)})

    async def keep(self, slots: Mapping[int, bool]) -> Mapping[int, Reason]:
        """See ``ports.Vmm``: virDomainSetVcpu with VIR_DOMAIN_AFFECT_CONFIG, for exactly these.

        A CPU that is kept so can be removed after the next start (``hotpluggable='yes'``); virDomainSetVcpus would make
        it one of the start, which stays.
        """
        definition = await self._definition()
        failed: dict[int, Reason] = {}
        for index, wanted in slots.items():
            if definition.has(index) is not wanted:
                try:
                    await self._set(index, enabled=wanted, flags=_CONFIG)
                except QemuError as error:
                    failed[index] = error.reason
        return failed

    async def _definition(self) -> DomainRecord:
        """Return what the domain is started from next time."""
        read = self._domain.XMLDesc
        return domain_xml.read(await self.connection.call("read the domain's definition", read, _INACTIVE))

    async def _set(self, number: int, *, enabled: bool, flags: int) -> None:
        what = f"{'plug' if enabled else 'unplug'} vCPU {number}"
        await self.connection.call(what, self._domain.setVcpu, str(number), int(enabled), flags)

    async def close(self) -> None:
        """See ``ports.Vmm``."""
        self._domain = None
        await super().close()


def _not_hotpluggable(index: int) -> Reason:
    return Reason(
        codes.NOT_HOTPLUGGABLE,
        Origin.LIBVIRT,
        f"libvirt keeps vCPU {index}, since the domain was started with it",
        "for the next start: virsh edit, and a <vcpus> block in which this vCPU has hotpluggable='yes'; vcpuctl "
        "offline takes it offline in the guest",
    )


def _behind(slot: Slot) -> Reason:
    name = slot.device_id or slot.path
    return Reason(
        codes.BEHIND_LIBVIRT,
        Origin.LIBVIRT,
        f"the CPU in slot {slot.index} ({name}) was plugged behind libvirt's back: a save of this domain cannot be "
        "loaded, and a migration fails",
        f"vcpuctl offline {slot.index}, then have QEMU remove it the way it was plugged (device_del {name})",
    )


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


class _Leaving:
    """A slot whose removal was asked for."""

    def __init__(self) -> None:
        self.empty_since: float | None = None
        self.told = False

    def settles(self, now: float) -> bool:
        """Whether libvirt's record may yet follow."""
        return self.empty_since is None or now - self.empty_since < _SETTLES
