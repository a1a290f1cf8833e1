# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl watch``: the map whenever it changes; a table that redraws on a terminal, JSON lines otherwise."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from vcpu_host.documents import Document
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.vm import Vm
from vcpu_host.sharing.wire import Message

from . import render
from .exitcodes import Exit
from .progress import Progress


async def watch(args: argparse.Namespace, vm: Vm) -> Exit:
    """Show changes until interrupted, or for ``--timeout`` seconds."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    live = args.output != "json" and sys.stdout.isatty()
    with _screen() if live else nullcontext() as screen, Progress.of(args) as progress:

        def hear(message: Message) -> None:
            if "view" in message:
                _show(screen, message["view"], args.output)
            elif not live:
                progress.hear(message)

        watching = loop.create_task(vm.ask(Call(Kind.WATCH, timeout=args.timeout), hear))
        stopped = loop.create_task(stop.wait())
        try:
            await asyncio.wait({watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching
        finally:
            for task in (watching, stopped):
                task.cancel()
            await asyncio.gather(watching, stopped, return_exceptions=True)
    return Exit.DONE


def _screen() -> AbstractContextManager[Any]:
    from rich.live import Live

    from .tables import console

    # A map that is longer than the terminal scrolls; "ellipsis" would leave its end out.
    return Live(console=console(), auto_refresh=False, screen=False, vertical_overflow="visible")


def _show(screen: Any, view: Document, output: str) -> None:
    if screen is None:
        render.emit_json(view)
    else:
        from .tables import Screen, for_terminal

        with render.writing():
            screen.update(Screen(for_terminal(view, output)), refresh=True)
