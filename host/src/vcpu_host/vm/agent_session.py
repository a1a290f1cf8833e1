# SPDX-License-Identifier: Apache-2.0
"""The link session with the agent: one at a time, made when it is needed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from .. import ports
from ..core import codes
from ..core.model import HostView
from ..core.vm_events import PortChanged
from ..errors import AgentGoneError

#: Seconds that an attempt gets, however little time there is: an agent that is there needs some milliseconds.
_LEAST = 1.0


class Sessions:
    """The one link session of a VM, made anew when it has ended.

    ``dial_timeout`` bounds one attempt, in seconds. So does ``until``, the loop's time at which the caller's time is
    over; an attempt gets ``_LEAST`` seconds in any case.
    """

    def __init__(self, vmm: ports.Vmm, dialer: ports.AgentDialer, dial_timeout: float) -> None:
        self.current: ports.GuestAgent | None = None
        self._vmm = vmm
        self._dialer = dialer
        self._dial_timeout = dial_timeout
        self.until: float | None = None
        self.count = 0  # of those that were made
        self._one_dial = asyncio.Lock()
        self._made = asyncio.Event()

    @property
    def live(self) -> ports.GuestAgent | None:
        """The present session, unless it has ended."""
        return None if self.current is None or self.current.ended else self.current

    async def get(self, host: HostView) -> ports.GuestAgent:
        """Return the present session, or a new one. ``host`` is a fresh look, for what it says of the port."""
        async with self._one_dial:  # the port takes one client
            if self.current is not None and self.current.ended:
                await self.drop()
            if self.current is None:
                self.current = await self._dial(host)
                self.count += 1
                self._made.set()
            return self.current

    async def made(self, seconds: float) -> ports.GuestAgent | None:
        """Return the present session, or the one that somebody else makes within so many seconds, or None."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.live is None:
                    self._made.clear()
                    await self._made.wait()
        return self.live

    async def _dial(self, host: HostView) -> ports.GuestAgent:
        """Dial as the dialer does. Nobody answers on a port that was closed meanwhile (the agent stops): say that then.

        QEMU reports the closing, unless the port has no id; so it is looked for after a dial that failed, too.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._dial_timeout
        if self.until is not None:
            until = min(until, max(self.until, loop.time() + _LEAST))
        while True:
            try:
                agent = await self._dial_while_open(host, until - loop.time())
            except AgentGoneError as error:
                if error.reason.code != codes.NO_ANSWER:
                    raise
                host = await self._vmm.look()
                if host.channel is None or host.channel.guest_open:
                    raise
            else:
                if agent is not None:
                    return agent
                host = await self._vmm.look()

    async def _dial_while_open(self, host: HostView, timeout: float) -> ports.GuestAgent | None:
        """Return the session, dialed anew, or None if the guest closed the port first."""
        loop = asyncio.get_running_loop()
        closed = loop.create_task(self._port_closed())
        dial = loop.create_task(self._dialer.dial(host, max(0.0, timeout)))
        try:
            await asyncio.wait({closed, dial}, return_when=asyncio.FIRST_COMPLETED)
            return None if closed.done() and not dial.done() else await dial
        finally:
            closed.cancel()
            dial.cancel()
            await asyncio.gather(closed, dial, return_exceptions=True)

    async def _port_closed(self) -> None:
        async for event in self._vmm.events():
            if isinstance(event, PortChanged) and not event.open:
                return

    async def renew(self) -> ports.GuestAgent:
        """Return a new session in any case."""
        await self.drop()
        return await self.get(await self._vmm.look())

    async def drop(self) -> None:
        """End the present session."""
        agent, self.current = self.current, None
        if agent is not None:
            await agent.close()
