# SPDX-License-Identifier: Apache-2.0
"""Ours: the library call, with its connection made, and the whole ``vcpuctl`` process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from vcpu_host import documents
from vcpu_host.agent.dialer import LinkDialer
from vcpu_host.agent.socket_port import SocketPort
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Outcome
from vcpu_host.qmp import connect
from vcpu_host.vm.coordinator import Coordinator

VCPUCTL = str(Path(sys.executable).parent / "vcpuctl")


class NotDoneError(Exception):
    """An operation that is to be measured did not succeed."""


@asynccontextmanager
async def coordinator(qmp_socket: str) -> AsyncIterator[Coordinator]:
    """A coordinator with its session made, as a program that keeps one would have it."""
    monitor = await connect(qmp_socket)
    whole = Coordinator(monitor, LinkDialer(SocketPort(None, monitor.check_port)))
    try:
        await whole.session()
        yield whole
    finally:
        await whole.close()


async def operate(vm: Coordinator, operation: Operation, slots: Sequence[int]) -> float:
    """One operation; the seconds that the library call took."""
    request = Request(operation, None, tuple(str(slot) for slot in slots))
    began = time.monotonic()
    result = await vm.run(request, Limits(timeout=240.0))
    spent = time.monotonic() - began
    if result.outcome is not Outcome.DONE:
        raise NotDoneError(f"{operation}: {documents.of_result(result)}")
    return spent


def cycle(qmp_socket: str, slots: Sequence[int]) -> tuple[float, float]:
    """Plug and unplug the slots; the seconds of both calls."""

    async def both() -> tuple[float, float]:
        async with coordinator(qmp_socket) as vm:
            up = await operate(vm, Operation.PLUG, slots)
            return up, await operate(vm, Operation.UNPLUG, slots)

    return asyncio.run(both())


def process(qmp_socket: str, *words: str) -> float:
    """Run ``vcpuctl`` as a process; its wall time in seconds."""
    began = time.monotonic()
    argv = [VCPUCTL, *(["--qmp", qmp_socket] if qmp_socket else []), *words]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=240)
    return time.monotonic() - began
