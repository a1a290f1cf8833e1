# SPDX-License-Identifier: Apache-2.0
"""The gRPC server, which runs only while a host is there.

For as long as a server exists, gRPC's core keeps threads that wake up once a second and more often. So the server is
started when a session begins, which takes milliseconds, and ended when there has been none for a while: an agent whose
host is silent costs no wake-up at all.
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

    from vcpu_guest.rpc.service import GuestAgentService

#: Seconds without a session after which the server ends. Longer than the pause between two commands of a person.
LINGER = 30.0


class LocalServer:
    """Serves `agent` on the unix socket `path`, from `up()` until no host has had a session for a while.

    `has_host` says whether a host has a session; it is asked every `linger` seconds while the server runs.
    """

    def __init__(
        self, agent: GuestAgentService, path: str, has_host: Callable[[], bool], linger: float = LINGER
    ) -> None:
        self.path = path
        self._has_host = has_host
        self._agent = agent
        self._linger = linger
        self._lock = asyncio.Lock()
        self._server: grpc.aio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Say whether the server exists now."""
        return self._server is not None

    async def up(self) -> str:
        """Start the server if it does not run, and return the path of its socket. Raise OSError if it cannot listen."""
        async with self._lock:
            if self._server is not None and not self._reachable():
                # Somebody removed the socket: nobody could ever reach this server again.
                logs.warning("the server's socket has gone, starting it anew", path=self.path)
                await self._end()
            if self._server is None:
                from vcpu_guest.rpc.service import serve

                self._server = await serve(self._agent, self.path)
                logs.debug("server started")
            self._arm()
        return self.path

    async def close(self) -> None:
        """End the server at once, with all of its calls."""
        async with self._lock:
            await self._end()

    def _reachable(self) -> bool:
        return os.path.exists(self.path)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._linger, self._look)

    def _look(self) -> None:
        if self._has_host():
            self._arm()
        else:
            self._ending = asyncio.get_running_loop().create_task(self._end_if_idle())

    async def _end_if_idle(self) -> None:
        async with self._lock:
            # A session may have begun while this waited for the lock.
            if self._has_host():
                self._arm()
            else:
                await self._end()

    async def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Forget it first: even if stop() fails, the next up() starts another one.
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
            # gRPC's threads end with the last reference, and reference cycles hold some.
            del server
            gc.collect()
            logs.debug("server ended")
