# SPDX-License-Identifier: Apache-2.0
"""Makes sessions with the agent, and says exactly why there is none: each cause has another remedy."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import partial

from vcpu_proto.link import BusyError, HostLink, LinkError, UnreachableError

from vcpu_host.core import codes
from vcpu_host.core.channel import no_channel, no_socket
from vcpu_host.core.model import Channel, HostView
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.text import printable
from vcpu_host.errors import AgentGoneError, RefusedError, UsageError
from vcpu_host.local.unix_sockets import is_abstract

from .client import LinkAgent
from .socket_wire import wire_to
from .status import of_link

#: Raises UsageError "not-our-port" if a path, or what a connection there leads to, is not the agent's port of this VM.
Check = Callable[[HostView, str, socket.socket | None], None]


class LinkDialer:
    """The :class:`~vcpu_host.ports.AgentDialer` role.

    ``named`` is the socket that the user named, or None to use the one that QEMU names. ``check`` sees the path that
    was named before there is a connection, and every connection: nothing is written before that, since it may be
    somebody's console, or another VM's agent that has the same path here as this one's has where its QEMU lives.
    """

    def __init__(self, named: str | None, check: Check, *, call_timeout: float = 10.0) -> None:
        self._named = named
        self._check = check
        self._call_timeout = call_timeout

    async def dial(self, host: HostView, timeout: float) -> LinkAgent:
        """See ports.AgentDialer. RefusedError "port-busy" if another program holds the port."""
        if self._named is not None and host.channel is not None and host.channel.socket is not None:
            self._check(host, self._named, None)
        trouble = obstacle(host)
        if trouble is not None:
            raise RefusedError(trouble) if trouble.code == BusyError.code else AgentGoneError(trouble)
        path = self._named or (host.channel.socket if host.channel else None)
        if path is None:
            raise AssertionError("obstacle() covers it")
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        try:
            link = await HostLink.connect(wire_to(path, partial(self._see, host, path)), timeout=timeout)
            try:
                return await LinkAgent.over(link, call_timeout=max(1.0, until - loop.time()))
            except BaseException:
                await link.close()
                raise
        except UnreachableError as error:
            elsewhere = _elsewhere(host.channel, error) if self._named is None and host.channel else None
            raise (AgentGoneError(elsewhere) if elsewhere else of_link(error)) from error
        except LinkError as error:
            raise of_link(error) from error

    def _see(self, host: HostView, path: str, connection: socket.socket) -> None:
        """The check of a connection. Where the user named nothing, nothing is wrong with the user's words."""
        try:
            self._check(host, path, connection)
        except UsageError as error:
            raise (AgentGoneError(error.reason) if self._named is None else error) from error


def _elsewhere(channel: Channel, error: UnreachableError) -> Reason | None:
    """What it means that QEMU, which listens there, has a name for its socket that leads nowhere from here."""
    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
        return None
    if is_abstract(channel.bound):
        why, hint = "QEMU lives in another network namespace", "run vcpuctl there, or give the port's chardev a path"
    else:
        why = "QEMU has a file system of its own (a container), or somebody has removed the socket"
        hint = "name the socket by its path here: --agent SOCKET"
    text = f"QEMU says that the agent's port is {printable(channel.bound)}, and nobody listens there, as seen from here"
    return Reason(error.code, Origin.VCPUCTL, f"{text}: {why}", hint, errno.errorcode[error.errno])


def obstacle(host: HostView) -> Reason | None:
    """What QEMU's side alone shows to be in the way, so that nobody waits for an answer that cannot come."""
    channel = host.channel
    if channel is None:
        return no_channel()
    if channel.name_withheld:
        return Reason(BusyError.code, Origin.VCPUCTL, "the agent's port is in use by another program", BusyError.hint)
    if channel.socket is None:
        return no_socket(channel)
    if not host.running:
        from vcpu_host.core.run_states import not_running  # late: most VMs run

        return not_running(host)
    return None if channel.guest_open else _closed(channel)


def _closed(channel: Channel) -> Reason:
    if channel.driver_up is False:
        return Reason(
            codes.GUEST_BOOTING,
            Origin.GUEST,
            "the guest has not started its virtio-serial driver: it is still booting, or hangs",
            "wait for its boot; look at its console",
        )
    return Reason(
        codes.AGENT_ABSENT,
        Origin.AGENT,
        "no program in the guest has the agent's port open",
        "install vcpu-guest in the guest, or start it: systemctl start vcpud; a booting guest needs a moment more",
    )
