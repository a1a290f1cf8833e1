# SPDX-License-Identifier: Apache-2.0
"""The running agent: listens for events, scans, serves, joins the port, feeds the watchdog, and ends in order.

This module alone puts the agent's parts together.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from vcpu_proto.link import GuestLink
from vcpu_proto.notify import Notifier

from vcpu_guest import __version__, logs
from vcpu_guest.core import cpulist
from vcpu_guest.core.model import AgentInfo
from vcpu_guest.cpus.eject_gate import EjectGate
from vcpu_guest.cpus.hooked_writer import HookedWriter
from vcpu_guest.cpus.hooks import Hooks
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.programs import Programs, looking_threads
from vcpu_guest.cpus.watched_writer import WatchedWriter
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.errors import StartError
from vcpu_guest.machine import Machine
from vcpu_guest.port import PortError, opener
from vcpu_guest.process.loop_errors import LoopErrors
from vcpu_guest.process.urgency import Urgency
from vcpu_guest.rpc.server import LocalServer

#: Seconds that a write in progress gets when the agent is told to stop; the unit's TimeoutStopSec is longer.
STOP_TIMEOUT = 10.0


def agent_info(machine: Machine, instance: bytes) -> AgentInfo:
    """Return who this start of the agent is; `instance` is random, and new for each start."""
    return AgentInfo(
        agent_version=__version__,
        arch=machine.arch,
        kernel=machine.kernel,
        boot_id=machine.boot_id,
        instance_id=instance.hex(),
        platform=machine.platform.name,
        event_source="+".join(filter(None, (machine.events.name, machine.hotplug.name))),
    )


def _stop_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return what is set at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@dataclass(frozen=True, slots=True)
class _Parts:
    """The agent's parts, put together. `gate` and `link` are None where there is none."""

    inventory: Inventory
    gate: EjectGate | None
    writer: Writer
    programs: Programs
    look_around: Callable[[], object]
    server: LocalServer
    link: GuestLink | None


async def run(
    machine: Machine,
    socket_path: str,
    port: str | None,
    *,
    gate_directory: str | None = None,
    hooks: Hooks | None = None,
    keep_affinity: bool = False,
    load: bool = True,
) -> None:
    """Serve until SIGTERM or SIGINT. `port` None: no link, for tests and for looking by hand.

    `gate_directory`: where the eject gate keeps its mark; None: there is no gate. `hooks` are run if they are given.
    `keep_affinity`: masks of threads that a change of CPUs has widened are put back.
    `load`: hosts may watch the load.

    Raise StartError, ConfigError or OSError if the agent cannot begin or cannot go on.
    """
    loop = asyncio.get_running_loop()
    stop = _stop_signals(loop)
    loop_errors = LoopErrors(loop)
    instance = os.urandom(8)
    parts = await _assemble(
        machine, instance, socket_path, port, gate_directory, hooks, keep_affinity=keep_affinity, load=load
    )
    notifier = Notifier()
    async with AsyncExitStack() as stack:
        stack.callback(machine.events.close)
        stack.callback(parts.inventory.close)
        stack.callback(parts.inventory.history.close)
        stack.callback(parts.programs.close)
        if parts.gate is not None:
            stack.push_async_callback(parts.gate.close)
        if hooks is not None:
            stack.push_async_callback(hooks.close)
        stack.push_async_callback(parts.server.close)
        await parts.server.up()
        link_ends: asyncio.Future[None] = loop.create_future()
        if parts.link is not None:
            stack.push_async_callback(parts.link.stop)
            link_ends = loop.create_task(_serve(parts.link))
        stack.push_async_callback(_settle_writes, parts.writer)
        # The port is opened in the task's first step, and being ready means to have it.
        await asyncio.sleep(0)
        if link_ends.done():
            link_ends.result()
        _say_ready(machine, instance, notifier)
        # The first look at the udev rules takes long, and the first Hello need not wait for it.
        await asyncio.to_thread(parts.look_around)
        try:
            await _until(stop, machine, link_ends, notifier, loop_errors)
        finally:
            notifier.stopping()
            logs.info("stopping")


async def _assemble(
    machine: Machine,
    instance: bytes,
    socket_path: str,
    port: str | None,
    gate_directory: str | None,
    hooks: Hooks | None,
    *,
    keep_affinity: bool,
    load: bool,
) -> _Parts:
    """Put the parts together. On return the agent hears events, has scanned, and keeps its gate closed."""
    inventory = Inventory(machine.sysfs, machine.platform)
    # Listen first, then scan: a change in between is seen twice rather than never.
    inventory.hear(machine.events)
    inventory.scan()

    # The gate and the server ask the link for its session; the link asks for the server only while it runs.
    async def server_path() -> str:
        return await server.up()

    link = None if port is None else GuestLink(opener(port, machine.open_port), server_path, instance=instance)
    has_host, session = _session_of(link)
    gate = None if gate_directory is None else EjectGate(machine.sysfs, inventory, gate_directory, session)
    if gate is not None:
        await gate.shut()
    writer = Writer(machine.sysfs, machine.platform, inventory, machine.hotplug)
    programs = Programs(machine.looker(), keep=keep_affinity)
    watched = WatchedWriter(writer, programs)

    # Late, and after the events' socket is bound: this import is most of the start-up time.
    from vcpu_guest.rpc.load_stream import LoadWatch
    from vcpu_guest.rpc.service import GuestAgentService

    service = GuestAgentService(
        agent_info(machine, instance),
        inventory,
        watched if hooks is None else HookedWriter(watched, hooks),
        machine.platform.scheme,
        machine.environment,
        gate,
        hurry=Urgency(spared=looking_threads).hurry,
        programs=programs,
        load=LoadWatch(machine.open_load if load else None, lambda: bool(writer.in_hand())),
    )
    server = LocalServer(service, socket_path, has_host)
    return _Parts(inventory, gate, writer, programs, service.look_around, server, link)


def _session_of(link: GuestLink | None) -> tuple[Callable[[], bool], Callable[[], int | None]]:
    """Return two functions: whether a host is there, and which session it has, None if it has none.

    Without a link everybody on the socket may be a host, at any time.
    """
    if link is None:
        return (lambda: True), (lambda: None)
    return (lambda: link.host_in_session), (lambda: link.sessions if link.host_in_session else None)


async def _serve(link: GuestLink) -> None:
    try:
        await link.run()
    except PortError as error:
        raise StartError(str(error)) from error


def _say_ready(machine: Machine, instance: bytes, notifier: Notifier) -> None:
    platform, online = machine.platform.name, cpulist.render(machine.sysfs.mask("online"))
    notifier.ready(f"listening, platform {platform}")
    logs.info("started", version=__version__, platform=platform, instance=instance.hex(), cpus_online=online)


async def _settle_writes(writer: Writer) -> None:
    if not await writer.close(STOP_TIMEOUT):
        logs.warning("an online write is still in the kernel", waited_seconds=STOP_TIMEOUT)


async def _until(
    stop: asyncio.Event,
    machine: Machine,
    link_ends: asyncio.Future[None],
    notifier: Notifier,
    loop_errors: LoopErrors,
) -> None:
    """Wait for the order to stop. Feed the watchdog for as long as changes are heard of and the link is there."""
    period = None if notifier.watchdog is None else notifier.watchdog / 2
    loop = asyncio.get_running_loop()
    ordered, changed = loop.create_task(stop.wait()), loop.create_task(machine.hotplug.ended())
    awaited: set[asyncio.Future[Any]] = {ordered, link_ends, changed, loop_errors.too_many}
    try:
        while not ordered.done():
            if not machine.events.alive:
                raise StartError("the source of events has ended")
            if not machine.hotplug.alive:
                raise StartError(f"hotplug events can no longer be handled as before ({machine.hotplug.name})")
            notifier.alive()
            await asyncio.wait(awaited, timeout=period, return_when=asyncio.FIRST_COMPLETED)
            if link_ends.done():
                link_ends.result()
                raise StartError("the link to the host has ended")
            if loop_errors.too_many.done():
                raise StartError(f"the same error occurs again and again: {loop_errors.too_many.result()}")
    finally:
        for task in (ordered, changed):
            task.cancel()
        await asyncio.gather(ordered, changed, return_exceptions=True)
