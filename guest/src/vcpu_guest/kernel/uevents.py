# SPDX-License-Identifier: Apache-2.0
"""CPU events straight from the kernel; the only module that knows pyudev.

It listens to the kernel's own netlink group rather than to udevd's: no waiting for a udev worker, and no dependence on
rules. That is safe here because an event is only a hint, and sysfs, which the kernel fills itself, is what counts.

However many events come, and whatever becomes of the socket, the agent takes a tenth of a CPU at most for long, says
little, and goes on to hear: what cannot be taken one by one is dropped unread, and everything is looked at instead.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

import pyudev

from vcpu_guest import logs
from vcpu_guest.core.model import CpuEvent
from vcpu_guest.kernel import bpf
from vcpu_guest.kernel.event_source import OnEvent, OnLost, Urgent

#: Bytes. An add makes three events of about a kilobyte of socket memory each; the kernel grants at most
#: net.core.rmem_max without CAP_NET_ADMIN, and what is lost beyond it is made good by a scan.
_BUFFER = 1 << 20
#: Bytes; no event is longer (lib/kobject_uevent.c, UEVENT_BUFFER_SIZE is 2048).
_LARGEST = 8192
#: Messages: far more than the buffer holds, so that those who send them faster than we read do not hold us up for ever.
_DRAINED = 65536

#: Seconds for which events that nobody waits for are left in the socket: an eject makes four of them, just when the
#: kernel is at work.
_PAUSE = 0.25
#: Events taken in a row before others in the loop get their turn, and in a second before the rest is dropped. A plug of
#: as many CPUs as there may be brings a few hundred a second.
_TURN = 128
_MOST = 1000
#: A pause is so many times longer than what was done before it took, up to _LONGEST_PAUSE seconds.
_SHARE = 9
_LONGEST_PAUSE = 5.0
#: Failures in a row, with no event between them, after which the socket is made anew.
_PATIENCE = 8
#: Seconds to the first attempt to listen again, if listening does not work at all, and the most between two.
_RETRY, _LONGEST_RETRY = 1.0, 60.0


class Uevents:
    """The `cpu` subsystem's uevents."""

    def __init__(self) -> None:
        self._group: _Group | None = None
        self._started = False
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._retry = _RETRY
        self._failures = 0
        self._handled = 0
        self._spent = 0.0
        self._window_ends = 0.0
        self._not_before = 0.0
        self._losses = logs.Seldom("events were lost, looking at everything")
        self._on_event: OnEvent
        self._on_lost: OnLost
        self._urgent: Urgent

    @property
    def name(self) -> str:
        """For Hello, and for who looks before it is started."""
        return "udev" if self.hearing or not self._started else "none"

    @property
    def alive(self) -> bool:
        """Until it is closed: it gets over whatever happens to its socket."""
        return self._started

    @property
    def hearing(self) -> bool:
        """Whether it has a socket that works."""
        return self._group is not None

    def start(self, on_event: OnEvent, on_lost: OnLost, urgent: Urgent) -> None:
        """Listen: what happens from here on is queued. Where the kernel does not let us, try again now and then."""
        self._on_event, self._on_lost, self._urgent = on_event, on_lost, urgent
        self._started = True
        self._open()

    def close(self) -> None:
        """Stop listening."""
        self._started = False
        self._shut()

    def catch_up(self) -> None:
        """Drop what was put off, unread, and have everything looked at instead."""
        if self._paused:
            self._make_good("put off")

    # -- listening ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._timer = None
        try:
            self._group = _Group()
        except OSError as error:
            self._be_deaf(error)
            return
        self._failures = 0
        asyncio.get_running_loop().add_reader(self._group.fileno(), self._readable)

    def _shut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._paused = False
        if self._group is not None:
            asyncio.get_running_loop().remove_reader(self._group.fileno())
            self._group.close()
            self._group = None

    def _open_again(self) -> None:
        """Make the socket anew, and look at what came about meanwhile."""
        was_deaf = self._group is None
        self._shut()
        self._open()
        if self._group is None:
            return
        self._retry = _RETRY
        if was_deaf:
            logs.info("events are heard again")
        self._on_lost("listening again")

    def _be_deaf(self, error: OSError) -> None:
        """Without a socket there are no hints; who waits looks by itself, see `hearing`."""
        if self._retry == _RETRY:
            logs.error("no events can be heard: who waits is told later, what is done is the same", error=str(error))
        self._timer = asyncio.get_running_loop().call_later(self._retry, self._open_again)
        self._retry = min(2 * self._retry, _LONGEST_RETRY)

    def _readable(self) -> None:
        if not self._urgent():
            self._pause(self._delay())
            return
        began = time.thread_time()
        now = asyncio.get_running_loop().time()
        if now >= self._window_ends:
            self._handled, self._spent, self._window_ends = 0, 0.0, now + 1.0
        problem = self._take()
        self._spent += time.thread_time() - began
        if problem is not None:
            self._went_wrong(problem)
        elif self._handled >= _MOST:
            self._pause(self._delay())

    def _take(self) -> OSError | None:
        """Hand on what there is, within bounds; what went wrong, if something did."""
        for _ in range(_TURN):
            if self._group is None:  # closed by who was told of an event
                return None
            try:
                device = self._group.poll()
            except OSError as error:
                return self._group.take_error() or error
            self._failures = 0
            if device is None:
                return None
            self._handled += 1
            number = device.sys_name.removeprefix("cpu")
            if number.isascii() and number.isdigit():
                logs.debug("event", action=device.action, cpu=number)
                self._on_event(CpuEvent(device.action or "", int(number)))
        return None

    # -- when there is too much, or something is wrong -----------------------------------------------------------------

    def _went_wrong(self, error: OSError) -> None:
        """ENOBUFS: the kernel had more than the buffer holds. Anything else ends the same way: look at all."""
        self._losses.warning(error=str(error))
        self._failures += 1
        if self._failures >= _PATIENCE:
            self._open_again()
            return
        left = self._not_before - asyncio.get_running_loop().time()
        if left > 0:
            self._pause(left)
        else:
            self._make_good(str(error))

    def _delay(self) -> float:
        """Seconds for the next pause, by what was done since the last one."""
        spent, self._spent = self._spent, 0.0
        return min(max(_PAUSE, _SHARE * spent), _LONGEST_PAUSE)

    def _pause(self, seconds: float) -> None:
        """Leave events in the socket for a while."""
        if self._group is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._group.fileno())
            self._paused = True
            self._timer = loop.call_later(seconds, self.catch_up)

    def _make_good(self, why: str) -> None:
        """Drop what is in the socket, listen, and have everything looked at."""
        if self._group is None:
            return
        began = time.thread_time()
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._group.drain()
        except OSError as error:
            self._losses.warning(error=str(error))
            self._open_again()
            return
        if self._paused:
            self._paused = False
            loop.add_reader(self._group.fileno(), self._readable)
        self._on_lost(why)
        self._spent += time.thread_time() - began
        self._not_before = loop.time() + min(max(_PAUSE, _SHARE * self._spent), _LONGEST_PAUSE)


class _Group:
    """The kernel's group: a monitor of pyudev, and with it the socket, which a monitor keeps to itself.

    A monitor that finds an error on its socket says so at every call and never takes it off (pyudev 0.24,
    _os/poll.py): it has no errno and gives no event any more. So the error is taken off here.
    """

    def __init__(self) -> None:
        """Join. Raises OSError if the kernel does not let us."""
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        self._monitor.filter_by("cpu")
        # The same socket by another descriptor.
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))
        try:
            # Not by libudev, which insists on the whole size and so on CAP_NET_ADMIN; the kernel itself grants what
            # it may.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._monitor.start()
            # Last: libudev sets its own again when it starts.
            bpf.attach(self._socket)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """What is readable when there is an event, or an error."""
        return self._socket.fileno()

    def poll(self) -> Any:
        """The next event's device, None if there is none. Raises OSError, perhaps without an errno."""
        return self._monitor.poll(0)

    def take_error(self) -> OSError | None:
        """Take the error off the socket; None if there is none."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(code, os.strerror(code)) if code else None

    def drain(self) -> None:
        """Read and forget. An error is taken off by the read that tells of it; raises it if more and more come."""
        errors = 0
        for _ in range(_DRAINED):
            try:
                self._socket.recv(_LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: what was lost is made good like what is dropped
                errors += 1
                if errors >= _PATIENCE:
                    raise

    def close(self) -> None:
        """Leave."""
        self._socket.close()
