# SPDX-License-Identifier: Apache-2.0
"""The gRPC server, there only while a host is.

gRPC's core keeps threads that wake up once a second and more for as long as a server exists. So the server is started
when a session begins, which takes milliseconds, and ended when there has been none for a while: an agent whose host
is silent costs no wake-up at all.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from vcpu_guest import logs

if TYPE_CHECKING:
    import grpc.aio

    from vcpu_guest.rpc.service import GuestAgent

#: Seconds without a session after which the server ends. Longer than the pause between two commands of a person.
LINGER = 30.0


class LocalServer:
    """Serves `agent` on the unix socket `path` whenever it is asked to."""

    def __init__(self, agent: GuestAgent, path: str, linger: float = LINGER) -> None:
        self.path = path
        #: Says whether a host has a session; asked every `linger` seconds while the server runs.
        self.busy: Callable[[], bool] = lambda: True
        self._agent = agent
        self._linger = linger
        self._lock = asyncio.Lock()
        self._server: grpc.aio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the server exists now."""
        return self._server is not None

    async def up(self) -> str:
        """Have it run; the socket's path. Raises OSError if it can't listen."""
        async with self._lock:
            if self._server is not None and not self._reachable():
                # Whoever took it away: a server without it is none, and would stay so for as long as it runs.
                logs.warning("the server's socket has gone, starting it anew", path=self.path)
                await self._end()
            if self._server is None:
                from vcpu_guest.rpc.service import serve

                self._server = await serve(self._agent, self.path)
                logs.debug("server started")
            self._arm()
        return self.path

    async def close(self) -> None:
        """End it at once, with all of its calls."""
        async with self._lock:
            await self._end()

    def _reachable(self) -> bool:
        return os.path.exists(self.path)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._linger, self._look)

    def _look(self) -> None:
        if self.busy():
            self._arm()
        else:
            self._ending = asyncio.get_running_loop().create_task(self._end_if_idle())

    async def _end_if_idle(self) -> None:
        async with self._lock:
            # A session may have begun while this waited for the lock.
            if self.busy():
                self._arm()
            else:
                await self._end()

    async def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # From here on it is none, also if stopping it should fail.
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
            # The last reference ends gRPC's threads, and cycles hold some.
            del server
            gc.collect()
            logs.debug("server ended")
