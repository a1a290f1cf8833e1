# SPDX-License-Identifier: Apache-2.0
"""A monitor of pyudev of which only the kernel's side is made up.

Its socket is one of UDP on the loopback, since that has an error in the way of netlink: poll(2) says so (POLLERR) until
it is taken off, by SO_ERROR or by a read. And poll() is pyudev's own, which raises for as long as there is one.
"""

from __future__ import annotations

import errno
import select
import socket
from types import SimpleNamespace
from typing import Any

from pyudev._os.poll import Poll

_LOOPBACK = "127.0.0.1"


class FakeMonitor:
    """Takes the place of pyudev.Monitor."""

    def __init__(self) -> None:
        self._reading = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._reading.bind((_LOOPBACK, 0))
        self._reading.setblocking(False)
        self._kernel = self._speak(0)
        self._reading.connect(self._kernel.getsockname())
        self.filters: list[str] = []
        self.polls = 0

    def _speak(self, port: int) -> socket.socket:
        kernel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        kernel.bind((_LOOPBACK, port))
        kernel.connect(self._reading.getsockname())
        return kernel

    # -- the kernel's side -------------------------------------------------------------------------------------------

    def tell(self, action: str, name: str) -> None:
        """An event."""
        self._kernel.send(f"{action} {name}".encode())

    def overflow(self) -> None:
        """An error comes onto the socket, and stays there. With UDP it is that nobody listens at the other end."""
        port = self._kernel.getsockname()[1]
        self._kernel.close()
        self._reading.send(b"nobody hears this")
        poll = select.poll()
        poll.register(self._reading, 0)  # an error is told of in any case
        assert poll.poll(10_000), "no error came"
        self._kernel = self._speak(port)

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
            action, _, name = self._reading.recv(100).decode().partition(" ")
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            raise
        return SimpleNamespace(action=action or None, sys_name=name)
