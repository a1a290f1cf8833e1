# SPDX-License-Identifier: Apache-2.0
"""CPU events straight from the kernel; the only module that imports pyudev.

It listens to the kernel's own netlink group rather than to udevd's, so it waits for no udev worker and depends on no
rules. That is safe here: an event is only a hint, and what counts is sysfs, which the kernel itself fills.

However many events come, and whatever happens to the socket, the agent uses no more than a tenth of a CPU for long,
logs little, and keeps listening. It drops events unread that it cannot take one by one, and looks at everything then.
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

#: Bytes. An added CPU causes three events, each of about a kilobyte of socket memory. Without CAP_NET_ADMIN the kernel
#: grants at most net.core.rmem_max; if events are lost beyond it, a scan makes up for them.
_BUFFER = 1 << 20
#: Bytes; no event is longer (lib/kobject_uevent.c, UEVENT_BUFFER_SIZE is 2048).
_LARGEST = 8192
#: Messages read at once: far more than the buffer holds, and yet an end if they come faster than we read.
_DRAINED = 65536

#: Seconds for which events that nobody waits for are left in the socket: an eject causes four of them, just when the
#: kernel is busy.
_PAUSE = 0.25
#: Events taken in a row before other callbacks of the loop get their turn, and events taken in a second before the rest
#: is dropped. A plug of as many CPUs as there may be causes a few hundred a second.
_TURN = 128
_MOST = 1000
#: A pause is so many times longer than the work before it took, up to _LONGEST_PAUSE seconds.
_SHARE = 9
_LONGEST_PAUSE = 5.0
#: Failures in a row, with no event between them, after which the socket is replaced.
_PATIENCE = 8
#: If listening does not work at all: seconds to the first new attempt, and the most between two.
_RETRY, _LONGEST_RETRY = 1.0, 60.0


class Uevents:
    """The uevents of the `cpu` subsystem, an EventSource."""

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
        """Return the name for Hello: "none" once it listens in vain."""
        return "udev" if self.hearing or not self._started else "none"

    @property
    def alive(self) -> bool:
        """Say whether it is not closed: it recovers from whatever happens to its socket."""
        return self._started

    @property
    def hearing(self) -> bool:
        """Say whether it has a socket that works."""
        return self._group is not None

    def start(self, on_event: OnEvent, on_lost: OnLost, urgent: Urgent) -> None:
        """Listen: events from now on are queued. If the kernel does not allow it, try again now and then."""
        self._on_event, self._on_lost, self._urgent = on_event, on_lost, urgent
        self._started = True
        self._open()

    def close(self) -> None:
        """Stop listening."""
        self._started = False
        self._shut()

    def catch_up(self) -> None:
        """Drop the events that were put off, unread, and have everything looked at instead."""
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
        """Replace the socket, and have everything looked at: events may have been missed."""
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
        """Go on without a socket, and try again later. Whoever waits looks without events, see `hearing`."""
        if self._retry == _RETRY:
            logs.error(
                "events cannot be heard: whoever waits is told later, and nothing else changes", error=str(error)
            )
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
        """Pass events on, within bounds. Return the error if one occurred."""
        for _ in range(_TURN):
            if self._group is None:  # a receiver of an event has closed it
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
        """Look at all after an error, or open the socket again after too many.

        ENOBUFS: the kernel had more than the buffer holds. Anything else ends the same way.
        """
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
        """Return the seconds for the next pause, by what was done since the last one."""
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
        """Drop the events in the socket, listen again, and have everything looked at."""
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
    """Membership in the kernel's netlink group: a monitor of pyudev, and a second descriptor of its socket.

    A monitor that finds an error on its socket reports it at every call, without an errno, and never clears it (pyudev
    0.24, _os/poll.py): it returns no event any more. So the error is cleared here.
    """

    def __init__(self) -> None:
        """Join the group. Raise OSError if the kernel does not allow it."""
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        self._monitor.filter_by("cpu")
        # The same socket by another descriptor.
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))
        try:
            # Not through libudev: it insists on the whole size, which takes CAP_NET_ADMIN. The kernel itself grants as
            # much as it may.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._monitor.start()
            # Last, because libudev sets its own filter when it starts.
            bpf.attach(self._socket)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is an event or an error."""
        return self._socket.fileno()

    def poll(self) -> Any:
        """Return the next event's device, None if there is none. Raise OSError, perhaps without an errno."""
        return self._monitor.poll(0)

    def take_error(self) -> OSError | None:
        """Clear the socket's error and return it; None if there is none."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(code, os.strerror(code)) if code else None

    def drain(self) -> None:
        """Read and drop all events. A read that reports an error clears it; raise OSError if errors keep coming."""
        errors = 0
        for _ in range(_DRAINED):
            try:
                self._socket.recv(_LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: lost events count like dropped ones
                errors += 1
                if errors >= _PATIENCE:
                    raise

    def close(self) -> None:
        """Leave the group."""
        self._socket.close()
