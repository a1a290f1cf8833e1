# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl watch``: the map whenever it changes; a table that redraws on a terminal, JSON lines otherwise."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from vcpu_host import documents
from vcpu_host.core.view import VmView
from vcpu_host.vm.coordinator import Coordinator

from . import render
from .exitcodes import Exit


async def watch(args: argparse.Namespace, vm: Coordinator) -> Exit:
    """Show changes until interrupted, or for ``--timeout`` seconds."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    live = args.output != "json" and sys.stdout.isatty()
    with _screen() if live else nullcontext() as screen:
        shown: dict[str, object] | None = None
        until = loop.time() + args.timeout if args.timeout else None
        async for view in vm.watch(stop, until):
            document = documents.of_view(view)
            told = documents.without_descriptors(document)
            if told == shown:
                continue
            shown = told
            _show(screen, view, document, args.output)
    return Exit.DONE


def _screen() -> AbstractContextManager[Any]:
    from rich.live import Live

    from .tables import console

    # A map that is longer than the terminal scrolls; "ellipsis" would leave its end out.
    return Live(console=console(), auto_refresh=False, screen=False, vertical_overflow="visible")


def _show(screen: Any, view: VmView, document: dict[str, object], output: str) -> None:
    if screen is None:
        render.emit_json(document)
    else:
        from .tables import Screen, for_terminal

        screen.update(Screen(for_terminal(view, output)), refresh=True)
