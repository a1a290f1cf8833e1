# SPDX-License-Identifier: Apache-2.0
"""QMP events as the values of ``core.vm_events``, and the streams that carry them.

Events are hints (promise 5): one that is malformed or that nobody needs is dropped here, and a stream that
nobody reads forgets its oldest. The end of the connection is the exception: it always arrives, and last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

from ..core import codes
from ..core.model import Ost
from ..core.reason import Origin, Reason
from ..core.vm_events import (
    DeviceDeleted,
    OstReported,
    PortChanged,
    QemuGone,
    UnplugRefused,
    VmEvent,
    VmReset,
    VmStatus,
)
from .names import OURS, Naming, SlotPaths

#: Enough for five events of each of the 4096 CPUs that a q35 can have, and then as many again.
_BOUND = 40_960


def _ost(data: Mapping[str, Any]) -> VmEvent | None:
    """Return an _OST as an event.

    ``slot`` is the possible_cpus index as decimal text (hw/acpi/cpu.c, acpi_cpu_device_status).
    """
    info = data.get("info")
    if not isinstance(info, Mapping) or info.get("slot-type") != "CPU":
        return None
    slot, source, status = info.get("slot"), info.get("source"), info.get("status")
    if not isinstance(slot, str) or not slot.isdecimal() or not isinstance(source, int) or not isinstance(status, int):
        return None
    return OstReported(int(slot), Ost(source, status))


def _deleted(data: Mapping[str, Any], paths: SlotPaths) -> VmEvent | None:
    path = data.get("path")
    return DeviceDeleted(paths.above(path)) if isinstance(path, str) else None


def _unplug_refused(data: Mapping[str, Any], paths: SlotPaths) -> VmEvent | None:
    """Return the refusal of the CPU itself, never of what is below it."""
    path = data.get("path")
    slot = paths.at(path) if isinstance(path, str) else None
    return None if slot is None else UnplugRefused(slot)


def _port(data: Mapping[str, Any]) -> VmEvent | None:
    is_open = data.get("open")
    return PortChanged(is_open) if isinstance(is_open, bool) else None


_CONVERT: Mapping[str, Callable[[Mapping[str, Any]], VmEvent | None]] = {
    "ACPI_DEVICE_OST": _ost,
    "RESET": lambda data: VmReset(),
    "STOP": lambda data: VmStatus("stopped"),
    "SUSPEND": lambda data: VmStatus("stopped"),
    "RESUME": lambda data: VmStatus("running"),
    "WAKEUP": lambda data: VmStatus("running"),
    # When the host ends QEMU (quit, a signal), the loss of the monitor follows, and is what is told.
    "SHUTDOWN": lambda data: VmStatus("shutdown") if data.get("guest") is True else None,
    "VSERPORT_CHANGE": _port,
}
_CONVERT_PATH: Mapping[str, Callable[[Mapping[str, Any], SlotPaths], VmEvent | None]] = {
    "DEVICE_DELETED": _deleted,
    "DEVICE_UNPLUG_GUEST_ERROR": _unplug_refused,
}


def convert(message: Mapping[str, Any], paths: SlotPaths) -> VmEvent | None:
    """Return the event in our terms; None if it is of no use to us.

    ``paths`` says which slot a QOM path belongs to.
    """
    name, data = message.get("event"), message.get("data", {})
    if not isinstance(name, str) or not isinstance(data, Mapping):
        return None
    if name in _CONVERT:
        return _CONVERT[name](data)
    return _CONVERT_PATH[name](data, paths) if name in _CONVERT_PATH else None


def gone(text: str) -> QemuGone:
    """Return the event that the monitor's connection was lost, for this reason."""
    return QemuGone(Reason(codes.QEMU_GONE, Origin.QEMU, text, "QEMU died or closed its monitor: see its log"))


class EventStream:
    """Events in the order in which they came, until QemuGone; an asynchronous iterator."""

    def __init__(self) -> None:
        self._waiting: deque[VmEvent] = deque(maxlen=_BOUND)
        self._wake = asyncio.Event()
        self._over = False

    def put(self, event: VmEvent) -> None:
        """Append; the oldest is forgotten if nobody reads."""
        self._waiting.append(event)
        self._wake.set()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> VmEvent:
        if self._over:
            raise StopAsyncIteration
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        event = self._waiting.popleft()
        self._over = isinstance(event, QemuGone)
        return event


class EventHub:
    """Hands every event to every stream. The first stream holds what came since the beginning."""

    def __init__(self, naming: Naming = OURS) -> None:
        self.paths = SlotPaths(naming)
        self._first: EventStream | None = EventStream()
        self._streams: WeakSet[EventStream] = WeakSet([self._first])
        self._end: QemuGone | None = None

    def put(self, event: VmEvent) -> None:
        """Tell all streams; nothing is told after QemuGone."""
        if self._end is not None:
            return
        if isinstance(event, QemuGone):
            self._end = event
        for stream in self._streams:
            stream.put(event)

    def stream(self) -> EventStream:
        """Return a stream from now on; the first one to be asked for starts when the connection was made."""
        if self._first is not None:
            stream, self._first = self._first, None
            return stream
        stream = EventStream()
        if self._end is not None:
            stream.put(self._end)
        self._streams.add(stream)
        return stream
