# SPDX-License-Identifier: Apache-2.0
"""Both ends of the contract in one process: the host's client, the link over a port, the guest's servicer, a kernel."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc.aio
from kit.fakes.guest_port import opener
from kit.fakes.programs import FakePrograms, channels_of, tasks_of, units_of
from kit.fakes.sysfs import FakeKernel, firmware_id
from kit.fakes.virtio_port import VirtioPort
from kit.until import DEADLINE
from vcpu_guest.core.model import AgentInfo, CpuEvent, Environment
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.programs import Programs
from vcpu_guest.cpus.watched_writer import WatchedWriter
from vcpu_guest.cpus.workload import Looker
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.rpc.service import GuestAgentService, serve
from vcpu_host.agent.client import LinkAgent
from vcpu_host.agent.socket_wire import wire_to
from vcpu_host.ports import SetOnlineAnswer
from vcpu_proto.link import GuestLink, HostLink

IDENTITY = AgentInfo("1.2.3", "x86_64", "6.1.0-50-cloud-amd64", "b" * 36, "c" * 16, "acpi", "udev")


ENVIRONMENT = Environment(
    possible="0-15",
    isolated="3",
    kernel_max=8191,
    smt_control="on",
    auto_online_rules=("/etc/udev/rules.d/80.rules",),
    eject_enabled=True,
    clocksource="tsc",
    kernel_arguments=("nr_cpus=16", "nosmt"),
    hypervisor_flag=True,
    acpi=False,
    writable=False,
    unwritable=("/sys/devices/system/cpu/cpu1/online: EROFS",),
    partition_isolated="2",
    unhandled_gpes=(2, 31),
)


class Guest:
    """A guest: its kernel, and an agent that serves the port. ``port.host_path`` is for the host."""

    def __init__(self, folder: Path, port: VirtioPort) -> None:
        self.folder = folder
        self.port = port
        self.kernel = FakeKernel(folder / "sys")
        self.sysfs = Sysfs(self.kernel.root, self.kernel.write, self.kernel.attempt)
        self.inventory = Inventory(self.sysfs, Acpi())
        loop = asyncio.get_running_loop()
        self.kernel.listen(
            lambda action, number: loop.call_soon_threadsafe(self.inventory.on_event, CpuEvent(action, number))
        )
        self.inventory.scan()
        self.writer = Writer(self.sysfs, Acpi(), self.inventory)
        self.fake_programs = FakePrograms(folder)
        looker = Looker(self.sysfs, IDENTITY.kernel, tasks_of(folder), units_of(folder), partial(channels_of, folder))
        self.programs = programs = Programs(looker, keep=True)
        self.environment = ENVIRONMENT
        self.servicer = GuestAgentService(
            IDENTITY,
            self.inventory,
            WatchedWriter(self.writer, programs),
            "acpi",
            lambda: self.environment,
            programs=programs,
        )
        self._server: grpc.aio.Server | None = None
        self._link: GuestLink | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def socket(self) -> str:
        """The agent's own gRPC socket, for calls that the host's client would not make."""
        return str(self.folder / "grpc")

    async def start(self, server: grpc.aio.Server | None = None) -> None:
        """Serve, by the real servicer unless another server (that listens on ``socket``) is given."""
        self._server = server or await serve(self.servicer, self.socket)
        self._link = GuestLink(opener(self.port.guest_path), self.socket, instance=os.urandom(8))
        self._running = asyncio.create_task(self._link.run())

    def crash(self) -> None:
        """The agent is gone without a word."""
        assert self._link is not None
        self._link.abort()

    async def stop(self) -> None:
        """The agent ends in order."""
        assert self._link is not None
        await self._link.stop()

    async def end_server(self) -> None:
        """The gRPC server goes, as it does with the agent's process."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def end(self) -> None:
        if self._link is not None and self._running is not None:
            self._link.abort()
            await self._running
        await self.end_server()
        self.programs.close()
        self.kernel.released.set()
        assert await self.writer.close(DEADLINE)
        self.inventory.close()
        self.kernel.close()


@asynccontextmanager
async def agent_of(guest: Guest, *, call_timeout: float = DEADLINE) -> AsyncIterator[LinkAgent]:
    """The host's client, in a session with the guest's agent."""
    link = await HostLink.connect(wire_to(guest.port.host_path), timeout=DEADLINE)
    agent = await LinkAgent.over(link, call_timeout=call_timeout)
    try:
        yield agent
    finally:
        await agent.close()


async def switched(
    agent: LinkAgent, *slots: int, online: bool, wait: bool = False, timeout: float = DEADLINE
) -> list[SetOnlineAnswer]:
    """Ask for the CPUs of these slots; the answers to it."""
    ids = [firmware_id(slot) for slot in slots]
    return [answer async for answer in agent.set_online(ids, online=online, wait=wait, brief=False, timeout=timeout)]
