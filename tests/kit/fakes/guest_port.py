# SPDX-License-Identifier: Apache-2.0
"""The guest's port as a Unix socket, so that the whole agent can be tested without a virtual machine.

kit.fakes.virtio_port listens there (SOCK_SEQPACKET), and plays QEMU and virtio_console. Each packet from it begins with
one byte: ``H`` the host's end is open, ``h`` it is closed, ``D`` data follow, ``B`` the port is busy (then no packet
follows). Until the first packet the host's end is closed. Packets to it are data alone.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from functools import partial

from vcpu_guest import port


class SocketPort:
    """A vcpu_guest.port.Device on such a socket."""

    def __init__(self, path: str) -> None:
        """Raises OSError as connect(2) does. That another has it open comes later: EBUSY from changes() or read()."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._data = bytearray()
        try:
            self._socket.setblocking(False)
            self._socket.connect(path)
            self._host = False
            self._epoll = select.epoll()
            self._epoll.register(self._socket, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The epoll's own descriptor."""
        return self._epoll.fileno()

    def changes(self) -> int:
        """The mask that virtio_console's poll would give."""
        if not self._epoll.poll(0, 1):
            return 0
        self._take()
        if not self._host:
            return select.EPOLLIN | select.EPOLLHUP
        return select.EPOLLIN | select.EPOLLOUT

    def read(self, size: int) -> bytes:
        """Data first, then nothing (no host) or BlockingIOError."""
        if not self._data:
            self._take()
        if not self._data:
            if self._host:
                raise BlockingIOError
            return b""
        chunk = bytes(self._data[:size])
        del self._data[:size]
        return chunk

    def write(self, data: memoryview) -> int:
        """At most 32 KiB; BlockingIOError while there is no host."""
        if not self._host:
            raise BlockingIOError
        return self._socket.send(data)

    def close(self) -> None:
        """Gives the port back; what was not read is lost."""
        self._epoll.close()
        self._socket.close()

    def _take(self) -> None:
        """Takes one packet if nothing is held, so that back-pressure is the socket's."""
        while not self._data:
            try:
                packet = self._socket.recv(1 + 64 * 1024)
            except BlockingIOError:
                return
            if not packet:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            if packet[:1] == b"B":
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            if packet[:1] == b"D":
                self._data += packet[1:]
            else:
                self._host = packet[:1] == b"H"


#: vcpu_guest.port.opener for such a socket.
opener = partial(port.opener, open_device=SocketPort)
