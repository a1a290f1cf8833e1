# SPDX-License-Identifier: Apache-2.0
"""CPU events straight from the kernel; the only module that knows pyudev.

It listens to the kernel's own netlink group rather than to udevd's: no waiting for a udev worker, and no dependence on
rules. That is safe here because an event is only a hint, and sysfs, which the kernel fills itself, is what counts.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import pyudev

from vcpu_guest import logs
from vcpu_guest.core.model import Event
from vcpu_guest.events import OnEvent, OnLost

#: Bytes. An add makes three events of about a kilobyte of socket memory each; the kernel grants at most
#: net.core.rmem_max without CAP_NET_ADMIN, and what is lost beyond it is made good by a scan.
_BUFFER = 1 << 20
#: Bytes; no event is longer (lib/kobject_uevent.c, UEVENT_BUFFER_SIZE is 2048).
_LARGEST = 8192


#: Seconds for which events that nobody waits for are left in the socket: an eject makes four of them, just when the
#: kernel is at work.
_PAUSE = 0.25


class Uevents:
    """The `cpu` subsystem's uevents."""

    name = "udev"

    def __init__(self) -> None:
        self._monitor: pyudev.Monitor | None = None
        self._fd = -1
        self._paused: asyncio.TimerHandle | None = None
        self.urgent: Callable[[], bool] = lambda: True
        self._on_event: OnEvent
        self._on_lost: OnLost

    @property
    def alive(self) -> bool:
        """Whether it listens."""
        return self._monitor is not None

    def start(self, on_event: OnEvent, on_lost: OnLost) -> None:
        """Bind the socket: what happens from here on is queued. Raises OSError if the kernel does not let us."""
        self._on_event, self._on_lost = on_event, on_lost
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        monitor.filter_by("cpu")
        _enlarge(monitor.fileno())
        monitor.start()
        self._monitor, self._fd = monitor, monitor.fileno()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def close(self) -> None:
        """Stop listening."""
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._monitor = None

    def catch_up(self) -> None:
        """Drop what was put off, unread, and have everything looked at instead."""
        if self._paused is None:
            return
        self._paused.cancel()
        self._paused = None
        try:
            _drain(self._fd)
        finally:
            asyncio.get_running_loop().add_reader(self._fd, self._readable)
        self._on_lost("put off")

    def _readable(self) -> None:
        if not self.urgent():
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            self._paused = loop.call_later(_PAUSE, self.catch_up)
            return
        # Until it is empty, so that a burst is one wake-up.
        while self._monitor is not None:
            try:
                device = self._monitor.poll(0)
            except OSError as error:
                # ENOBUFS: the kernel had more than the buffer holds. Anything else ends the same way: look at all.
                logs.warning("events were lost, looking at everything", error=str(error))
                self._on_lost(str(error))
                return
            if device is None:
                return
            number = device.sys_name.removeprefix("cpu")
            if number.isascii() and number.isdigit():
                logs.debug("event", action=device.action, cpu=number)
                self._on_event(Event(device.action or "", int(number)))


def _drain(fd: int) -> None:
    """Read and forget. An overflow (ENOBUFS) is no trouble: what was lost is made good like what is dropped here."""
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        while True:
            try:
                duplicate.recv(_LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def _enlarge(fd: int) -> None:
    # Not by libudev, which insists on the whole size and so on CAP_NET_ADMIN; the kernel itself grants what it may.
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
