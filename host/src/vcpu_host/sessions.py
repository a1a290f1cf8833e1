# SPDX-License-Identifier: Apache-2.0
"""The link session with the agent: one at a time, made when it is needed."""

from __future__ import annotations

from . import ports
from .core.model import HostView


class Sessions:
    """See the module's words. ``dial_timeout`` bounds one attempt, in seconds."""

    def __init__(self, vmm: ports.Vmm, dialer: ports.AgentDialer, dial_timeout: float) -> None:
        self.current: ports.GuestAgent | None = None
        self._vmm = vmm
        self._dialer = dialer
        self._dial_timeout = dial_timeout

    @property
    def live(self) -> ports.GuestAgent | None:
        """The present session, unless it has ended."""
        return None if self.current is None or self.current.ended else self.current

    async def get(self, host: HostView) -> ports.GuestAgent:
        """The present session, or a new one. ``host`` is a fresh look, for what it says of the port."""
        if self.current is not None and self.current.ended:
            await self.drop()
        if self.current is None:
            self.current = await self._dialer.dial(host, self._dial_timeout)
        return self.current

    async def renew(self) -> ports.GuestAgent:
        """A new session in any case."""
        await self.drop()
        return await self.get(await self._vmm.look())

    async def drop(self) -> None:
        """End the present session."""
        agent, self.current = self.current, None
        if agent is not None:
            await agent.close()
