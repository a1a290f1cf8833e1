# SPDX-License-Identifier: Apache-2.0
"""The agent's gRPC service of a VM that this process holds, for other processes of this user (``agent-proxy``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..documents import Document
from ..local import directory as runtime
from .answers import Say
from .hub import Hub

if TYPE_CHECKING:
    from ..vm.coordinator import Coordinator


class Offer:
    """Offers the service on a socket of its own, from when it is first asked for."""

    def __init__(self, vm: Coordinator, hub: Hub) -> None:
        self._vm = vm
        self._hub = hub
        self._path = runtime.new_socket("proxy-")
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def answer(self, say: Say) -> Document:
        """Say where the service is; return when it ends."""
        from ..agent.proxy import serve

        if self._serving is None:
            up = asyncio.Event()
            serving = serve(self._vm.session, str(self._path), self._stop, changing=self._hub.operation, up=up)
            self._serving = asyncio.ensure_future(serving)
            ready = asyncio.ensure_future(up.wait())
            await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
        say({"proxy": str(self._path)})
        await asyncio.shield(self._serving)
        return {}

    async def close(self) -> None:
        """End it."""
        self._stop.set()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
