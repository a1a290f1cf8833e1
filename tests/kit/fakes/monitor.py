# SPDX-License-Identifier: Apache-2.0
"""A monitor of pyudev of which only the kernel's side is made up.

Its socket is a Unix one for datagrams, since that can have an error in the way of netlink: poll(2) says so (POLLERR)
until it is taken off, by SO_ERROR or by a read. The error and what comes after it are there at once and are never lost,
which cannot be said of UDP on the loopback. And poll() is pyudev's own, which raises for as long as there is an error.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from types import SimpleNamespace
from typing import Any

from pyudev._os.poll import Poll


def _bound() -> socket.socket:
    """Return a socket with a name of the kernel's choice, in no file system."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind("")
    return made


class FakeMonitor:
    """Takes the place of pyudev.Monitor."""

    def __init__(self) -> None:
        self._reading, self._kernel = _bound(), _bound()
        self._reading.setblocking(False)
        self._reading.connect(self._kernel.getsockname())
        self._kernel.connect(self._reading.getsockname())
        self.filters: list[str] = []
        self.polls = 0

    # -- the kernel's side -------------------------------------------------------------------------------------------

    def tell(self, action: str, name: str) -> None:
        """An event, in a form that the agent's filter does not know and lets through."""
        self._kernel.send(f"{action} {name}\0SUBSYSTEM=cpu\0".encode())

    def overflow(self) -> None:
        """An error comes onto the socket, and stays there.

        Here it is ECONNRESET: the other end turns to somebody else before it has read what was sent to it
        (net/unix/af_unix.c, unix_dgram_disconnected), and comes back.
        """
        with contextlib.suppress(ConnectionResetError):  # the one that is there already
            self._reading.send(b"")
        self._reading.send(b"nobody reads this")
        with _bound() as somebody_else:
            self._kernel.connect(somebody_else.getsockname())
        self._kernel.connect(self._reading.getsockname())

    def close(self) -> None:
        """The end of the test."""
        self._kernel.close()
        self._reading.close()

    # -- pyudev's ----------------------------------------------------------------------------------------------------

    def filter_by(self, subsystem: str) -> None:
        """Only noted."""
        self.filters.append(subsystem)

    def start(self) -> None:
        """Nothing to do."""
        assert self.filters, "without a filter every event of the machine would come"

    def fileno(self) -> int:
        """The socket."""
        return self._reading.fileno()

    def poll(self, timeout: float) -> Any:
        """As pyudev's: the next device, or None. Raises an OSError without an errno while there is an error."""
        assert timeout == 0, "the event loop must not be blocked"
        self.polls += 1
        if not Poll.for_events((self, "r")).poll(timeout):
            return None
        try:
            action, _, name = self._reading.recv(100).decode().partition("\0")[0].partition(" ")
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            raise
        return SimpleNamespace(action=action or None, sys_name=name)
