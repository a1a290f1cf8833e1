# SPDX-License-Identifier: Apache-2.0
"""Makes sessions with the agent, and says exactly why there is none: each cause has another remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from vcpu_proto.link import BusyError, HostLink, LinkError, OpenHostWire, UnreachableError

from vcpu_host.core import codes
from vcpu_host.core.model import Channel, HostView
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import AgentGoneError, RefusedError, VcpuctlError

from .client import LinkAgent
from .status import of_link


class Port(Protocol):
    """The agent's port as it is reached from here: ``socket_port.SocketPort`` by its chardev's unix socket."""

    def obstacle(self, channel: Channel | None) -> Reason | None:
        """Return why a port that stands so, or is missing, cannot be reached from here. BusyError's code: it is held.

        Return None if nothing is known to be in the way.
        """

    def wire(self, host: HostView) -> OpenHostWire:
        """Return what opens a wire to it.

        That raises UnreachableError or BusyError, or says by an error of ``vcpu_host.errors`` what is the matter.
        """

    def explain(self, host: HostView, error: UnreachableError) -> VcpuctlError:
        """Return what it means that no wire could be opened."""


class LinkDialer:
    """The :class:`~vcpu_host.ports.AgentDialer` role. ``call_timeout`` bounds each call of its sessions, in seconds.

    ``socket`` names a new private socket for each session; where it has no name, that lies in a directory of its own.
    """

    def __init__(
        self, port: Port, *, socket: Callable[[], str | None] | None = None, call_timeout: float = 10.0
    ) -> None:
        self._port = port
        self._socket = socket
        self._call_timeout = call_timeout

    async def dial(self, host: HostView, timeout: float) -> LinkAgent:
        """See ports.AgentDialer. Raise RefusedError "port-busy" if another program holds the port."""
        wire = self._port.wire(host)
        trouble = obstacle(host, self._port)
        if trouble is not None:
            raise RefusedError(trouble) if trouble.code == BusyError.code else AgentGoneError(trouble)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        try:
            link = await HostLink.connect(wire, timeout=timeout)
            try:
                socket = None if self._socket is None else self._socket()
                return await LinkAgent.over(link, call_timeout=max(1.0, until - loop.time()), socket=socket)
            except BaseException:
                await link.close()
                raise
        except UnreachableError as error:
            raise self._port.explain(host, error) from error
        except LinkError as error:
            raise of_link(error) from error


def obstacle(host: HostView, port: Port) -> Reason | None:
    """Return what the host's side alone shows to be in the way, so that nobody waits for an answer that cannot come."""
    trouble = port.obstacle(host.channel)
    if trouble is not None:
        return trouble
    if not host.running:
        from vcpu_host.core.run_states import not_running  # late: most VMs run

        return not_running(host)
    return None if host.channel is None or host.channel.guest_open else _closed(host.channel)


def _closed(channel: Channel) -> Reason:
    if channel.acpi_up is False:
        return Reason(
            codes.GUEST_BOOTING,
            Origin.GUEST,
            "no program in the guest has the agent's port open, and its ACPI is not up: it is still booting, or hangs, "
            "or its kernel runs without ACPI (acpi=off)",
            "wait for its boot; look at its console; in a guest that is up, take acpi=off from its kernel command "
            "line, and install vcpu-guest",
        )
    return Reason(
        codes.AGENT_ABSENT,
        Origin.AGENT,
        "no program in the guest has the agent's port open",
        "install vcpu-guest in the guest, or start it: systemctl start vcpud; a booting guest needs a moment more",
    )
