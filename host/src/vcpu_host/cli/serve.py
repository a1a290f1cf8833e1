# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl serve``: the coordinator that stays."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal

from vcpu_host.local import directory
from vcpu_host.service.serve import serve as serve_vms

from .exitcodes import Exit


async def serve(args: argparse.Namespace) -> Exit:
    """Serve until interrupted."""
    if not gc.isenabled():  # as main left it
        gc.freeze()
        gc.enable()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve_vms(args.socket or directory.service_socket(), stop)
    return Exit.DONE
