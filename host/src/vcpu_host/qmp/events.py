# SPDX-License-Identifier: Apache-2.0
"""QMP events as the values of ``ports``, and the streams that carry them.

Events are hints (promise 5): one that is malformed or that nobody needs is dropped here, and a stream that
nobody reads forgets its oldest. The end of the connection is the exception: it always arrives, and last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

from ..core.model import Ost
from ..ports import DeviceDeleted, OstReported, PortChanged, QemuGone, UnplugRefused, VmmEvent, VmReset, VmStatus

#: Enough for five events of each of the 4096 CPUs that a q35 can have, and then as many again.
_BOUND = 40_960


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _ost(data: Mapping[str, Any]) -> VmmEvent | None:
    """``slot`` is the possible_cpus index as decimal text (hw/acpi/cpu.c, acpi_cpu_device_status)."""
    info = data.get("info")
    if not isinstance(info, Mapping) or info.get("slot-type") != "CPU":
        return None
    slot, source, status = info.get("slot"), info.get("source"), info.get("status")
    if not isinstance(slot, str) or not slot.isdecimal() or not isinstance(source, int) or not isinstance(status, int):
        return None
    return OstReported(int(slot), Ost(source, status))


def _deleted(data: Mapping[str, Any]) -> VmmEvent | None:
    path = _text(data.get("path"))
    return None if path is None else DeviceDeleted(path, _text(data.get("device")))


def _unplug_refused(data: Mapping[str, Any]) -> VmmEvent | None:
    path = _text(data.get("path"))
    return None if path is None else UnplugRefused(path, _text(data.get("device")))


def _port(data: Mapping[str, Any]) -> VmmEvent | None:
    device_id, is_open = data.get("id"), data.get("open")
    return PortChanged(device_id, is_open) if isinstance(device_id, str) and isinstance(is_open, bool) else None


_CONVERT: Mapping[str, Callable[[Mapping[str, Any]], VmmEvent | None]] = {
    "ACPI_DEVICE_OST": _ost,
    "DEVICE_DELETED": _deleted,
    "DEVICE_UNPLUG_GUEST_ERROR": _unplug_refused,
    "RESET": lambda data: VmReset(guest=data.get("guest") is True),
    "STOP": lambda data: VmStatus("paused"),
    "RESUME": lambda data: VmStatus("running"),
    # When the host ends QEMU (quit, a signal), the loss of the monitor follows, and is what is told.
    "SHUTDOWN": lambda data: VmStatus("shutdown") if data.get("guest") is True else None,
    "VSERPORT_CHANGE": _port,
}


def convert(message: Mapping[str, Any]) -> VmmEvent | None:
    """The event in our terms; None if it is of no use to us."""
    name = message.get("event")
    make = _CONVERT.get(name) if isinstance(name, str) else None
    if make is None:
        return None
    data = message.get("data", {})
    return make(data) if isinstance(data, Mapping) else None


class EventStream:
    """Events in the order in which they came, until QemuGone; an asynchronous iterator."""

    def __init__(self) -> None:
        self._waiting: deque[VmmEvent] = deque(maxlen=_BOUND)
        self._wake = asyncio.Event()
        self._over = False

    def put(self, event: VmmEvent) -> None:
        """Append; the oldest is forgotten if nobody reads."""
        self._waiting.append(event)
        self._wake.set()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> VmmEvent:
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

    def __init__(self) -> None:
        self._first: EventStream | None = EventStream()
        self._streams: WeakSet[EventStream] = WeakSet([self._first])
        self._end: QemuGone | None = None

    def put(self, event: VmmEvent) -> None:
        """Tell all streams; nothing is told after QemuGone."""
        if self._end is not None:
            return
        if isinstance(event, QemuGone):
            self._end = event
        for stream in self._streams:
            stream.put(event)

    def stream(self) -> EventStream:
        """A stream from now on; the first one to be asked for starts when the connection was made."""
        if self._first is not None:
            stream, self._first = self._first, None
            return stream
        stream = EventStream()
        if self._end is not None:
            stream.put(self._end)
        self._streams.add(stream)
        return stream
