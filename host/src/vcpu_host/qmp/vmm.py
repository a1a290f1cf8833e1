# SPDX-License-Identifier: Apache-2.0
"""The ``Vmm`` role, filled by a QMP session.

Looking must not harm: no command that QEMU calls unstable (``x-...``) is sent here. QEMU 11.1.3 aborts on
x-query-virtio-status, for one (an assertion in qapi/qapi-visit-core.c, visit_start_struct).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core import codes
from ..core.descriptors import Descriptors
from ..core.identity import VmIdentity
from ..core.model import (
    CPU_PROPERTIES,
    IOMMU_PROPERTIES,
    Channel,
    HostThread,
    HostView,
    Ost,
    PropValue,
    Slot,
)
from ..core.platforms import machine_properties, platform_for
from ..core.reason import Reason
from ..errors import QemuError, RefusedError, in_time
from ..local import processes
from . import ages, channel, queues, replies, traps
from .events import EventHub, EventStream
from .monitor import SocketMonitor
from .words import clean

if TYPE_CHECKING:
    from .roles import Monitor

#: How often the CPUs are asked for again when another client changes them between the two questions.
_LOOKS = 3
#: query-accelerators is new in 10.2, query-kvm deprecated since 11.0 (docs/about/deprecated.rst).
_ACCELERATORS = (10, 2, 0)


async def connect(path: str, *, timeout: float = 5.0, call_timeout: float = 10.0) -> QmpVmm:
    """Return the machine behind the monitor socket at ``path``; its events are kept from now on.

    ``timeout`` (seconds) is for all of the connecting, ``call_timeout`` for each command. Raise UsageError
    "not-a-socket", "path-too-long" or "not-qmp", RefusedError "not-permitted" or "monitor-busy",
    QemuGoneError "no-such-socket" or "qemu-gone". Nothing is written to a socket that has not greeted as QMP does.
    """
    hub = EventHub()
    return QmpVmm(await SocketMonitor.connect(path, hub, timeout=timeout, call_timeout=call_timeout), hub)


class _Found(NamedTuple):
    """What one look at the CPUs shows, with the ids of all devices at that moment."""

    slots: tuple[Slot, ...]
    devices: Mapping[str, str]
    no_hotplug: Reason | None


class QmpVmm:
    """See ``ports.Vmm``. Any number of calls may be under way at once: QEMU answers them one after another."""

    def __init__(self, monitor: Monitor, hub: EventHub) -> None:
        self._monitor = monitor
        self._hub = hub
        self._naming = hub.paths.naming
        self._version = replies.version(monitor.qemu_version)
        self._fixed: HostView | None = None
        self._cpu_properties: Mapping[str, PropValue] | None = None
        self._identity: VmIdentity | None = None
        self._port: Channel | None = None  # as last seen
        self._iommu: Mapping[str, PropValue] | None = None

    async def identity(self) -> VmIdentity:
        """Return which QEMU this is.

        That is told by what listens on the monitor's socket, and the thread of its first vCPU, which no machine that
        can plug any unplugs.
        """
        if self._identity is None:
            first = min(await self._threads(), key=lambda thread: thread.cpu_index, default=None)
            thread_id = None if first is None else first.thread_id
            self._identity = self._monitor.identify(thread_id)
        return self._identity

    async def _threads(self) -> tuple[HostThread, ...]:
        try:
            return replies.threads(await self._monitor.call("query-cpus-fast"))
        except QemuError as err:
            if err.reason.code != codes.NO_SUCH_COMMAND:
                raise
            reason = ages.too_old(self._version, replies.command_names(await self._monitor.call("query-commands")))
            raise (RefusedError(reason) if reason else err) from err

    async def look(self) -> HostView:
        """Return the whole of QEMU's side. What the machine lacks is told in the view, not raised.

        A machine started without room (maxcpus no larger than its CPUs) is not one that cannot plug: it has no empty
        slot now, and has one as soon as a CPU that it was started with is unplugged.
        """
        fixed, (status, migration), (said, silent), found, anonymous = await _together(
            self._what_it_is(),
            self._state(),
            self._ost(),
            self._slots(),
            self._children(channel.WITHOUT_ID),
        )
        children = {channel.WITH_ID: found.devices, channel.WITHOUT_ID: anonymous}
        port, cpu_properties, iommu = await _together(
            self._channel(children), self._of_all_cpus(found.slots), self._of_iommu(children)
        )
        view: HostView = fixed._replace(
            status=status,
            migration=migration,
            slots=found.slots,
            devices=found.devices,
            ost=said,
            channel=port,
            no_hotplug=found.no_hotplug,
            cpu_properties=cpu_properties,
            iommu=iommu,
            descriptors=self._descriptors(),
        )
        if port is None or port.guest_open or not (found.slots and silent and platform_for(view).lists_cpus_when_up):
            return view
        # ACPI comes before any driver. (Whether the port's is up would be told by an x- command: see above.)
        return view._replace(channel=port._replace(acpi_up=False))

    async def _what_it_is(self) -> HostView:
        """Return what stays the same as long as the process runs, and so is asked for once; all else is left empty."""
        if self._fixed is None:
            call = self._monitor.call
            target = replies.entry(await call("query-target"), "query-target")
            arch = replies.member(target, "arch", str, "query-target")
            machine, name, accel, topology, properties = await _together(
                call("qom-get", {"path": "/machine", "property": "type"}),
                call("query-name"),
                self._accel(),
                self._property("/machine", "smp"),
                self._properties("/machine", machine_properties(arch)),
            )
            self._fixed = HostView(
                qemu_version=self._version,
                machine=clean(replies.text(machine, "qom-get")).removesuffix("-machine"),
                arch=arch,
                status="",
                accel=accel,
                slots=(),
                vm_name=clean(replies.entry(name, "query-name").get("name", "")),
                properties=properties,
                topology={} if topology is None else replies.topology(topology),
            )
        return self._fixed

    async def look_slots(self, view: HostView) -> HostView:
        """Return ``view`` with its slots, threads, ids and status looked at again."""
        (status, migration), found = await _together(self._state(), self._slots())
        return view._replace(
            slots=found.slots,
            devices=found.devices,
            no_hotplug=found.no_hotplug,
            status=status,
            migration=migration,
            descriptors=self._descriptors(),
        )

    def _descriptors(self) -> Descriptors | None:
        """Return those of QEMU's process, if that is to be seen from here, and known: a look does not ask for it."""
        pid = None if self._identity is None else processes.qemu_of(self._identity)
        return None if pid is None else processes.descriptors(pid)

    async def queues(self) -> Mapping[str, tuple[int, ...]]:
        """See ``qmp.queues``."""
        call = self._monitor.call
        listings = await _together(*(self._children(parent) for parent in channel.PARENTS))
        found = [
            device
            for parent, listing in zip(channel.PARENTS, listings, strict=True)
            for device in queues.devices(parent, listing)
        ]
        values = await _together(*(call("qom-get", {"path": path, "property": name}) for path, _, name in found))
        return queues.by_global((kind, name, value) for (_, kind, name), value in zip(found, values, strict=True))

    async def plug(self, slot: Slot, device_id: str = "") -> str:
        """Send device_add; the slot's properties go back verbatim, known to us or not."""
        name = device_id or self._naming.slot_id(slot.index)
        await self._monitor.call("device_add", {**slot.props, "driver": slot.type, "id": name})
        return name

    async def unplug(self, slot: Slot, not_after: float | None = None) -> None:
        """Send device_del, by id or by QOM path (system/qdev-monitor.c, find_device_state).

        A CPU that no look has shown yet is one that was plugged just now, under the slot's own id.
        """
        in_time(not_after)
        await self._monitor.call("device_del", {"id": slot.handle or self._naming.slot_id(slot.index)})

    async def mend(self, view: HostView) -> None:
        """See ``ports.Vmm``: there is no record of an owner's."""

    async def keep(self, slots: Mapping[int, bool], *, whole: bool = False) -> Mapping[int, Reason]:
        """See ``ports.Vmm``: nobody keeps a definition of a VM that is known by its monitor."""
        raise AssertionError(f"no plan has this done (``HostView.owner``): {slots}, {whole}")

    def events(self) -> EventStream:
        """Return events from now on; the first stream also holds those since :func:`connect`."""
        return self._hub.stream()

    async def close(self) -> None:
        """End the connection: never hang; may be repeated."""
        await self._monitor.close()

    async def _slots(self) -> _Found:
        for _ in range(_LOOKS):
            try:
                raw, cpus, devices = await _together(
                    self._monitor.call("query-hotpluggable-cpus"),
                    self._monitor.call("query-cpus-fast"),
                    # After the slots: a CPU that goes meanwhile has its slot filled, and no id that looks taken.
                    self._children(channel.WITH_ID),
                )
            except QemuError as err:
                if err.reason.code not in (codes.NO_HOTPLUG, codes.NO_SUCH_COMMAND):
                    raise
                cpus, devices = await _together(self._monitor.call("query-cpus-fast"), self._children(channel.WITH_ID))
                return _Found(replies.fixed_slots(cpus, self._naming), devices, err.reason)
            slots = replies.slots(raw, cpus, self._hub.paths.above, self._naming)
            self._hub.paths.note(slots)
            if replies.consistent(slots, cpus):
                break
        # A machine that still disagrees with itself is shown as it is: threads inform, the slots decide.
        return _Found(slots, devices, None)

    async def _children(self, path: str) -> Mapping[str, str]:
        """Return what lies at a QOM path: name to type."""
        return replies.children(await self._monitor.call("qom-list", {"path": path}))

    async def _accel(self) -> str:
        """Return kvm, tcg, xen ...; a QEMU that can only speak of KVM is taken to emulate when it has none."""
        if self._version >= _ACCELERATORS:
            command = "query-accelerators"
            return replies.member(replies.entry(await self._monitor.call(command), command), "enabled", str, command)
        command = "query-kvm"
        kvm = replies.member(replies.entry(await self._monitor.call(command), command), "enabled", bool, command)
        return "kvm" if kvm else "tcg"

    async def _state(self) -> tuple[str, str]:
        """Return whether the VM runs, and whether it is being migrated, in QEMU's words."""
        status, migration = await _together(self._monitor.call("query-status"), self._monitor.call("query-migrate"))
        moving = replies.entry(migration, "query-migrate").get("status", "")
        return (
            clean(replies.member(replies.entry(status, "query-status"), "status", str, "query-status")),
            clean(replies.text(moving, "query-migrate")),
        )

    async def _of_all_cpus(self, slots: Sequence[Slot]) -> Mapping[str, PropValue]:
        """Return what -cpu says of all: asked for once, of the first CPU that there is."""
        first = next((slot.path for slot in slots if slot.path is not None), None)
        if self._cpu_properties is None and first is not None:
            self._cpu_properties = await self._properties(first, CPU_PROPERTIES)
        return self._cpu_properties or {}

    async def _of_iommu(self, children: Mapping[str, Mapping[str, str]]) -> Mapping[str, PropValue]:
        """Return the properties of the IOMMU, which is there from the start or never: asked for once."""
        if self._iommu is None:
            places = (
                (f"{parent}/{name}", IOMMU_PROPERTIES[kind])
                for parent, listing in children.items()
                for name, kind in listing.items()
                if kind in IOMMU_PROPERTIES
            )
            place = next(places, None)
            self._iommu = {} if place is None else await self._properties(*place)
        return self._iommu

    async def _properties(self, path: str, names: Sequence[str]) -> Mapping[str, PropValue]:
        """Return those of an object's properties that it has."""
        values = await _together(*(self._property(path, name) for name in names))
        return {
            name: replies.scalar(value, "qom-get")
            for name, value in zip(names, values, strict=True)
            if value is not None
        }

    async def _property(self, path: str, name: str) -> object | None:
        """Return a property of an object.

        Return None if there is no such property, or (it may have gone just now) no such object.
        """
        try:
            value: object = await self._monitor.call("qom-get", {"path": path, "property": name})
        except QemuError as err:
            if traps.lacks_property(err, name):
                return None
            raise
        return value

    async def _ost(self) -> tuple[Mapping[int, Ost], bool]:
        """Return what the guest last said of each slot, and whether the list has no CPU at all."""
        try:
            reply = await self._monitor.call("query-acpi-ospm-status")
            return replies.ost(reply), not replies.lists_cpus(reply)
        except QemuError as err:
            if traps.lacks_ospm(err):
                return {}, False
            raise

    async def _channel(self, children: Mapping[str, Mapping[str, str]]) -> Channel | None:
        """Return the agent's port, found among the devices that there are, by parent."""
        call = self._monitor.call
        found = [path for parent, listing in children.items() for path in channel.ports(parent, listing)]
        if not found:
            return None
        names, labels, chardevs = await _together(
            _together(*(call("qom-get", {"path": path, "property": "name"}) for path in found)),
            _together(*(call("qom-get", {"path": path, "property": "chardev"}) for path in found)),
            call("query-chardev"),
        )
        ours = channel.label_of(names, labels)
        if ours is None:
            return None
        port = channel.channel(found[ours[0]], ours[1], chardevs, await self.identity())
        self._port = channel.named_as_before(port, self._port)
        return self._port

    def check_port(self, view: HostView, path: str, connection: socket.socket | None) -> None:
        """Raise UsageError "not-our-port" unless ``path`` may be the socket of the agent's port, ``connection`` is."""
        if self._identity is None:
            raise AssertionError("whoever has seen a port has looked, and a look at a port takes the identity")
        channel.check(view, self._identity, path, connection)


async def _together(*calls: Awaitable[Any]) -> list[Any]:
    """Gather the results, and leave nothing running when one fails."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
