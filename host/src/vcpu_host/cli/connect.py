# SPDX-License-Identifier: Apache-2.0
"""From the command line's options to a coordinator of one VM: the lock, the monitor, the agent."""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vcpu_host.local import vm_files
from vcpu_host.local.journal import Journal
from vcpu_host.local.lock import VmLock
from vcpu_host.vm.coordinator import Coordinator

from .target import sockets

#: How long a command waits for another vcpuctl on the same VM before it says that it is busy, in seconds.
LOCK_PATIENCE = 2.0


def command_line() -> str:
    """What a lock's holder is known by."""
    return shlex.join(["vcpuctl", *sys.argv[1:]])[:150]


@asynccontextmanager
async def coordinator(args: argparse.Namespace) -> AsyncIterator[Coordinator]:
    """The coordinator of the VM that the options name; exclusive while the context lasts."""
    async with coordinator_of(sockets(args)) as vm:
        yield vm


@asynccontextmanager
async def coordinator_of(where: vm_files.VmSockets) -> AsyncIterator[Coordinator]:
    """As ``coordinator``, of the VM with these sockets."""
    from vcpu_host.agent.dialer import LinkDialer
    from vcpu_host.qmp import vmm as qmp

    if not gc.isenabled():  # as main left it: all that stays is loaded now
        gc.freeze()
        gc.enable()
    what = command_line()
    async with VmLock(where.qmp, what) as socket_lock:
        await socket_lock.acquire(LOCK_PATIENCE)
        monitor = await qmp.connect(where.qmp)
        try:
            process = await monitor.process()
            async with VmLock.of_process(process.name, what) as process_lock:
                await process_lock.acquire(LOCK_PATIENCE)
                dialer = LinkDialer(where.agent, monitor.check_port)
                whole = Coordinator(monitor, dialer, journal=Journal(process.name), process=process)
                try:
                    yield whole
                finally:
                    await whole.close()
        finally:
            await monitor.close()
