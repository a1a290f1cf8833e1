# SPDX-License-Identifier: Apache-2.0
"""The agent's port by the unix socket of its chardev, which QEMU names or the user."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial

from vcpu_proto.link import BusyError, OpenHostWire, UnreachableError

from vcpu_host.core.channel import no_channel, no_socket
from vcpu_host.core.model import Channel, HostView
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.text import printable
from vcpu_host.errors import AgentGoneError, UsageError, VcpuctlError
from vcpu_host.local.unix_sockets import is_abstract

from .socket_wire import wire_to
from .status import of_link

#: Raises UsageError "not-our-port" if a path, or what a connection there leads to, is not the agent's port of this VM.
Check = Callable[[HostView, str, socket.socket | None], None]


class SocketPort:
    """Fills ``dialer.Port``.

    ``named`` is the socket that the user named, or None to use the one that QEMU names. ``check`` sees the path that
    was named before there is a connection, and every connection: nothing is written before that, since it may be
    somebody's console, or another VM's agent that has the same path here as this one's has where its QEMU lives.
    """

    def __init__(self, named: str | None, check: Check) -> None:
        self._named = named
        self._check = check

    def obstacle(self, channel: Channel | None) -> Reason | None:
        """See ``dialer.Port``."""
        if channel is None:
            return no_channel()
        if channel.name_withheld:
            return Reason(
                BusyError.code, Origin.VCPUCTL, "the agent's port is in use by another program", BusyError.hint
            )
        return no_socket(channel) if channel.socket is None else None

    def wire(self, host: HostView) -> OpenHostWire:
        """See ``dialer.Port``. Raise what ``check`` raises."""
        named = None if host.channel is None else host.channel.socket
        if self._named is not None and named is not None:
            self._check(host, self._named, None)
        path = self._named or named or ""
        return wire_to(path, partial(self._see, host, path))

    def explain(self, host: HostView, error: UnreachableError) -> VcpuctlError:
        """See ``dialer.Port``."""
        elsewhere = _elsewhere(host.channel, error) if self._named is None and host.channel else None
        return AgentGoneError(elsewhere) if elsewhere else of_link(error)

    def _see(self, host: HostView, path: str, connection: socket.socket) -> None:
        """Check a connection. Where the user named nothing, nothing is wrong with the user's words."""
        try:
            self._check(host, path, connection)
        except UsageError as error:
            raise (AgentGoneError(error.reason) if self._named is None else error) from error


def _elsewhere(channel: Channel, error: UnreachableError) -> Reason | None:
    """Return what it means that QEMU, which listens there, has a name for its socket that leads nowhere from here."""
    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
        return None
    if is_abstract(channel.bound):
        why, hint = "QEMU lives in another network namespace", "run vcpuctl there, or give the port's chardev a path"
    else:
        why = "QEMU has a file system of its own (a container), or somebody has removed the socket"
        hint = "name the socket by its path here: --agent SOCKET"
    text = f"QEMU says that the agent's port is {printable(channel.bound)}, and nobody listens there, as seen from here"
    return Reason(error.code, Origin.VCPUCTL, f"{text}: {why}", hint, errno.errorcode[error.errno])
