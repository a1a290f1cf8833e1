# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl watch``: the map whenever it changes; a table that redraws on a terminal, JSON lines otherwise."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Any

from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.vm import Vm
from vcpu_host.sharing.wire import Message

from .exitcodes import Exit
from .progress import Progress
from .views import Views

#: Seconds in which what was seen before an interruption is shown yet.
_LAST_WORDS = 1.0


async def watch(args: argparse.Namespace, vm: Vm) -> Exit:
    """Show changes until interrupted, or for ``--timeout`` seconds."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    live = args.output != "json" and sys.stdout.isatty()
    views = Views(args.output, live=live)
    with Progress.of(args) as progress:

        def hear(message: Message) -> None:
            if "view" in message:
                views.show(message["view"])
            elif not live:
                progress.hear(message)

        watching = loop.create_task(vm.ask(Call(Kind.WATCH, timeout=args.timeout), hear))
        stopped = loop.create_task(stop.wait())
        ends: set[asyncio.Future[Any]] = {views.ended, stopped}
        try:
            await asyncio.wait({watching, *ends}, return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            # The VM is free by now: who reads slowly has time.
            views.finish()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({views.ended}, timeout=_LAST_WORDS)
        finally:
            for task in (watching, stopped):
                task.cancel()
            await asyncio.gather(watching, stopped, return_exceptions=True)
    if views.ended.done():
        views.ended.result()
    if not watching.cancelled():
        watching.result()
    return Exit.DONE
