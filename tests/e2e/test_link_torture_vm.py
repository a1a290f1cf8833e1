# SPDX-License-Identifier: Apache-2.0
"""Abrupt ends of either side on a real port of a real guest: the next call always comes through, and soon.

200 of them with ALL=1; each day the first 60, which have every kind of end.

The same at every byte and 2,000 times, on a port that is made of sockets: tests/component/test_link_torture.py.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from kit.e2e.machine import Machine
from kit.lab import Vm
from vcpu_host.agent.client import LinkAgent
from vcpu_host.agent.socket_wire import wire_to
from vcpu_host.errors import VcpuctlError
from vcpu_proto.link import HostLink, LinkError
from vcpu_proto.link.frames import TOKEN_BYTES
from vcpu_proto.link.session import Role, Session

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

SEED = 20161125
#: Of the ends by the host's side alone, in one life of the agent, so many come before its memory is taken.
WARM_UP = 20
#: Every how many of the mixed ends the agent is killed.
KILL_EVERY = 8

#: Seconds after which a call is given up that follows an end on the host's side: 1 s on an idle machine (p99).
SLOWEST = 30.0
#: The same after the agent was killed: systemd waits 0.5 s, and importing gRPC in TCG takes seconds.
RESTARTED = 120.0
#: Growth that is no leak: the allocator's arenas (KiB), a descriptor that is being closed.
RSS_SLACK, FD_SLACK = 2048, 2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


class Cutter:
    """A relay to the chardev's socket that drops both sides, without a word, after so many bytes."""

    def __init__(self, target: Path, folder: Path) -> None:
        self.path = folder / "cut"
        self.left = 0
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def cutting(self, after: int) -> AsyncIterator[str]:
        """The socket to connect to; it and all of its connections are gone at the end."""
        self.left = after
        server = await asyncio.start_unix_server(self._serve, self.path)
        try:
            yield str(self.path)
        finally:
            server.close()
            self._drop()
            self.path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(self._target)
        self._writers += [writer, there_writer]
        await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(4096):
                part = data[: self.left]
                self.left -= len(part)
                writer.write(part)
                await writer.drain()
                if self.left <= 0:
                    break
        self._drop()

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


class Torture:
    """The ways to end, and the call that must succeed after each."""

    def __init__(self, vm: Vm, folder: Path, seed: int) -> None:
        self._vm = vm
        self._socket = str(vm.agent_socket)
        self._cutter = Cutter(vm.agent_socket, folder)
        self._random = random.Random(seed)
        self._ways: list[Callable[[], Awaitable[None]]] = [self._cut, self._cut, self._cut, self._raw, self._drop]

    async def end_host(self, number: int) -> None:
        """Some abrupt end on the host's side; one in twenty is a process of vcpuctl, killed."""
        await (self._killed_client() if number % 20 == 7 else self._random.choice(self._ways)())

    async def _cut(self) -> None:
        """The connection goes at a random byte of a session that calls, lists and watches."""
        async with self._cutter.cutting(int(self._random.lognormvariate(6, 1.5)) + 1) as path:
            with suppress(LinkError, VcpuctlError, TimeoutError):
                async with asyncio.timeout(3):
                    await _use(await HostLink.connect(wire_to(path), timeout=2))

    async def _raw(self) -> None:
        """Somebody writes what is no session, or the beginning of one, and hangs up."""
        opening = Session(Role.HOST).open(self._random.randbytes(TOKEN_BYTES))
        _, writer = await asyncio.open_unix_connection(self._socket)
        writer.write(
            self._random.choice(
                [
                    PREFACE,
                    self._random.randbytes(self._random.randrange(1, 6000)),
                    opening[: self._random.randrange(1, len(opening))],
                    opening + PREFACE[: self._random.randrange(1, len(PREFACE))],
                ]
            )
        )
        if self._random.random() < 0.5:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await writer.drain()
        writer.transport.abort()

    async def _drop(self) -> None:
        """The host's end goes in the middle of a stream of answers."""
        link = await HostLink.connect(wire_to(self._socket), timeout=SLOWEST)
        agent = await LinkAgent.over(link, call_timeout=SLOWEST)
        watch = agent.watch()
        await anext(watch)
        link.abort()
        with suppress(VcpuctlError):
            await anext(watch)
        await agent.close()

    async def _killed_client(self) -> None:
        argv = [sys.executable, "-m", "vcpu_host.cli.main", "--qmp", str(self._vm.qmp_socket), "-o", "json", "watch"]
        client = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
        assert client.stdout is not None
        assert await asyncio.wait_for(client.stdout.readline(), 30)
        client.kill()
        await client.communicate()

    async def kill_agent(self) -> None:
        """SIGKILL in the guest, in the middle of a session."""
        async with await HostLink.connect(wire_to(self._socket), timeout=SLOWEST):
            await asyncio.to_thread(self._vm.shell, "kill -KILL $(systemctl show -P MainPID vcpud)")

    async def call(self, timeout: float) -> float:
        """Hello over a new session, on the first try; how long it took, in seconds."""
        began = time.monotonic()
        link = await HostLink.connect(wire_to(self._socket), timeout=timeout)
        agent = await LinkAgent.over(link, call_timeout=timeout)
        seconds = time.monotonic() - began
        assert agent.info.platform == "acpi"
        await agent.close()
        return seconds


async def _use(link: HostLink) -> None:
    agent = await LinkAgent.over(link, call_timeout=2)
    try:
        await agent.list_cpus()
        async for _ in agent.watch():
            await agent.list_cpus()
    finally:
        await agent.close()


async def footprint(vm: Vm) -> tuple[int, int]:
    """The agent's resident memory (KiB) and descriptors, as its kernel counts them."""
    pid = "$(systemctl show -P MainPID vcpud)"
    script = f"p={pid}; sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$p/status; ls /proc/$p/fd | wc -l"
    rss, descriptors = (await asyncio.to_thread(vm.shell, script)).split()
    return int(rss), int(descriptors)


def told(name: str, seconds: list[float]) -> None:
    """Show the figures. What is judged is that each call succeeded on its first try, in its time."""
    p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
    print(f"{name}: n={len(seconds)} p50={statistics.median(seconds):.3f} p99={p99:.3f} max={max(seconds):.3f} s")


@pytest.mark.parametrize(("mixed", "by_host"), [(16, 44), pytest.param(40, 160, marks=pytest.mark.slow)])
async def test_every_call_after_an_abrupt_end_succeeds_and_nothing_is_left_behind(
    machine: Machine, mixed: int, by_host: int
) -> None:
    """So many ends with the agent killed in between, then so many by the host's side alone."""
    with tempfile.TemporaryDirectory(prefix="vt", dir="/tmp") as folder:
        torture = Torture(machine.vm, Path(folder), SEED)
        after_kill, after_end = [], []
        for number in range(mixed):
            if number % KILL_EVERY == 0:
                await torture.kill_agent()
                after_kill.append(await torture.call(RESTARTED))
            else:
                await torture.end_host(number)
                after_end.append(await torture.call(SLOWEST))

        before = (0, 0)
        for number in range(by_host):
            if number == WARM_UP:
                before = await footprint(machine.vm)
            await torture.end_host(number)
            after_end.append(await torture.call(SLOWEST))
        after = await footprint(machine.vm)

    told("after the agent was killed", after_kill)
    told("after an end on the host's side", after_end)
    print(f"agent: {before[0]} -> {after[0]} KiB, {before[1]} -> {after[1]} descriptors")
    assert len(after_kill) + len(after_end) == mixed + by_host
    assert after[0] <= before[0] + RSS_SLACK
    assert after[1] <= before[1] + FD_SLACK
    assert machine.vcpuctl("plug").status == 0
    assert machine.online() == {0, 1}
