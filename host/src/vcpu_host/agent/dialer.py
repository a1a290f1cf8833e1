# SPDX-License-Identifier: Apache-2.0
"""Makes sessions with the agent, and says exactly why there is none: each cause has another remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vcpu_proto.link import HostLink, LinkError

from vcpu_host.core.model import Channel, HostView, Reason, Who
from vcpu_host.core.run_states import not_running
from vcpu_host.errors import AgentGoneError

from .client import LinkAgent
from .status import of_link

_DEVICE_LINES = (
    "start QEMU with -device virtio-serial-pci -chardev socket,id=vcpuctl,path=...,server=on,wait=off "
    "-device virtserialport,chardev=vcpuctl,id=vcpuctl,name=org.vcpuctl.agent.0"
)


class LinkDialer:
    """The :class:`~vcpu_host.ports.AgentDialer` role.

    ``socket`` is the one that the user named, or None to use the one that QEMU names. ``check`` raises if a socket is
    not the agent's: nothing is written to a chardev before that, since it may be somebody's console.
    """

    def __init__(
        self, socket: str | None, check: Callable[[HostView, str], None], *, call_timeout: float = 10.0
    ) -> None:
        self._socket = socket
        self._check = check
        self._call_timeout = call_timeout

    async def dial(self, host: HostView, timeout: float) -> LinkAgent:
        """See ports.AgentDialer. RefusedError "port-busy" if another program holds the port."""
        if self._socket is not None:
            self._check(host, self._socket)
        trouble = obstacle(host, self._socket)
        if trouble is not None:
            raise AgentGoneError(trouble)
        path = self._socket or (host.channel.socket if host.channel else None)
        if path is None:
            raise AssertionError("obstacle() covers it")
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        try:
            link = await HostLink.connect(path, timeout=timeout)
            try:
                return await LinkAgent.over(link, call_timeout=max(1.0, until - loop.time()))
            except BaseException:
                await link.close()
                raise
        except LinkError as error:
            raise of_link(error) from error


def obstacle(host: HostView, named: str | None) -> Reason | None:
    """What QEMU's side alone shows to be in the way, so that nobody waits for an answer that cannot come."""
    channel = host.channel
    if channel is None:
        text = "this VM has no virtio-serial port named org.vcpuctl.agent.0"
        return Reason("no-channel", Who.VCPUCTL, text, _DEVICE_LINES)
    if channel.socket is None and named is None:
        text = "the agent's port is not joined to a unix socket that could be found"
        return Reason("no-socket", Who.VCPUCTL, text, "name it: --agent SOCKET")
    if not host.running:
        return not_running(host)
    return None if channel.guest_open else _closed(channel)


def _closed(channel: Channel) -> Reason:
    if channel.driver_up is False:
        return Reason(
            "guest-booting",
            Who.GUEST,
            "the guest has not started its virtio-serial driver: it is still booting, or hangs",
            "wait for its boot; look at its console",
        )
    return Reason(
        "agent-absent",
        Who.AGENT,
        "no program in the guest has the agent's port open",
        "install vcpu-guest in the guest, or start it: systemctl start vcpud; a booting guest needs a moment more",
    )
