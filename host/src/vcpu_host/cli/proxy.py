# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl agent-proxy``: the agent's service on a socket that stays, whoever holds the VM."""

from __future__ import annotations

import argparse
import asyncio
import signal

from vcpu_host.agent.proxy import Upstream, serve
from vcpu_host.errors import VcpuctlError
from vcpu_host.local.unix_sockets import plain_name
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.vm import Vm
from vcpu_host.sharing.wire import Message

from .exitcodes import Exit

#: Seconds until a VM that could not be reached is tried again.
_AGAIN = 1.0


async def proxy(args: argparse.Namespace, vm: Vm) -> Exit:
    """Serve until interrupted. Raise if the VM cannot be reached to begin with; later that is what clients are told."""
    stop, up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    upstream = Upstream()
    first = loop.create_future()
    following = loop.create_task(_follow(vm, upstream, first))
    stopped = loop.create_task(stop.wait())
    try:
        await asyncio.wait({first, following, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            await following
        if not stop.is_set():
            await serve(upstream, plain_name(args.listen), stop, up=up)
    finally:
        for task in (following, stopped):
            task.cancel()
        await asyncio.gather(following, stopped, return_exceptions=True)
        await upstream.is_at(None)
    return Exit.DONE


async def _follow(vm: Vm, upstream: Upstream, first: asyncio.Future[None]) -> None:
    """Tell ``upstream`` where the service is, as the VM goes from one holder to the next."""
    heard: asyncio.Queue[str | None] = asyncio.Queue()

    def hear(message: Message) -> None:
        if "proxy" in message:
            heard.put_nowait(message["proxy"])

    async def take() -> None:
        while True:
            path = await heard.get()
            await upstream.is_at(path)
            if path is not None and not first.done():
                first.set_result(None)

    taking = asyncio.ensure_future(take())
    try:
        while True:
            try:
                await vm.ask(Call(Kind.PROXY), hear)
            except VcpuctlError:
                if not first.done():
                    raise
            await upstream.is_at(None)
            await asyncio.sleep(_AGAIN)
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
