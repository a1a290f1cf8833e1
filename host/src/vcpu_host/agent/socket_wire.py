# SPDX-License-Identifier: Apache-2.0
"""A wire to the agent's port by the unix socket of its chardev, for ``vcpu_proto.link.HostLink``."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable

from vcpu_proto.link import BusyError, HostWire, OpenHostWire, UnreachableError, WireProtocol

from ..local.unix_sockets import bound_name, dial, is_busy

#: Raises if what a connection leads to is not the agent's port: nothing has been written to it by then.
Check = Callable[[socket.socket], None]


def wire_to(path: str | os.PathLike[str], check: Check | None = None) -> OpenHostWire:
    """Return what opens a wire to the socket at ``path``, which may be "@NAME", an abstract socket.

    It raises UnreachableError, BusyError, and what ``check`` raises, which sees each connection before anything is
    written to it. Without ``check`` whatever listens there is taken for the port.
    """
    name = os.fspath(path)

    async def open_wire(protocol: WireProtocol) -> SocketWire:
        try:
            connection = dial(name)
        except BlockingIOError:
            raise BusyError(name) from None
        except OSError as error:
            raise UnreachableError(name, error) from error
        try:
            if check is not None:
                check(connection)
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=connection)
        except BaseException:
            connection.close()
            raise
        return SocketWire(transport, name)

    return open_wire


class SocketWire(HostWire):
    """A connection to the chardev's socket."""

    def taken(self) -> bool:
        """Return whether QEMU has read all that was written (SIOCOUTQ, unix(7))."""
        number = self.transport.get_extra_info("socket").fileno()
        (unread,) = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
        return int(unread) == 0 and super().taken()

    def is_busy(self) -> bool:
        """Return whether QEMU serves another client. The name that QEMU bound tells: ours may be another path to it."""
        return is_busy(bound_name(self.transport.get_extra_info("socket")))
