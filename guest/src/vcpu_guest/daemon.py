# SPDX-License-Identifier: Apache-2.0
"""The running agent: listens for events, scans, serves, joins the port, feeds the watchdog, and ends in order."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import Any

from vcpu_proto.link import GuestLink

from vcpu_guest import __version__, logs
from vcpu_guest.core import cpulist
from vcpu_guest.core.model import Identity
from vcpu_guest.cpus.eject_gate import Gate
from vcpu_guest.cpus.hooks import HookedSwitch, Hooks
from vcpu_guest.cpus.inventory import Watcher
from vcpu_guest.cpus.writer import Switch
from vcpu_guest.errors import StartError
from vcpu_guest.machine import Doors
from vcpu_guest.mistakes import Mistakes
from vcpu_guest.notify import Notifier
from vcpu_guest.port import PortError, opener
from vcpu_guest.rpc.server import LocalServer

#: Seconds that a write in progress gets when the agent is told to stop; the unit's TimeoutStopSec is longer.
STOP_TIMEOUT = 10.0


def identify(doors: Doors, instance: bytes) -> Identity:
    """Who this start of the agent is."""
    return Identity(
        agent_version=__version__,
        arch=doors.arch,
        kernel=doors.kernel,
        boot_id=doors.boot_id,
        instance_id=instance.hex(),
        platform=doors.platform.name,
        event_source="+".join(filter(None, (doors.events.name, doors.connectors.name))),
    )


async def run(
    doors: Doors, socket_path: str, port: str | None, *, gate_directory: str | None = None, hooks: Hooks | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. `port` None: no link, for tests and for looking by hand.

    `gate_directory`: where the eject gate keeps its mark; None: there is no gate. `hooks` are run if they are given.

    Raises StartError, ConfigError or OSError if it can't begin or can't go on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    mistakes = Mistakes(loop)
    watcher = Watcher(doors.sysfs, doors.platform)
    # Listen first, then scan: what happens in between is seen twice rather than never.
    watcher.hear(doors.events)
    watcher.scan()
    gate = None if gate_directory is None else Gate(doors.sysfs, watcher, gate_directory)
    if gate is not None:
        await gate.shut()
    switch = Switch(doors.sysfs, doors.platform, watcher, doors.connectors)

    # Late, and after the events' socket is bound: this import is most of the start-up time.
    from vcpu_guest.rpc.service import GuestAgent

    instance = os.urandom(8)
    runner = switch if hooks is None else HookedSwitch(switch, hooks)
    agent = GuestAgent(identify(doors, instance), watcher, runner, doors.platform.scheme, doors.environment, gate)
    notifier = Notifier()
    async with AsyncExitStack() as stack:
        stack.callback(doors.events.close)
        stack.callback(watcher.close)
        stack.callback(watcher.history.close)
        if gate is not None:
            stack.push_async_callback(gate.close)
        if hooks is not None:
            stack.push_async_callback(hooks.close)
        server = LocalServer(agent, socket_path)
        stack.push_async_callback(server.close)
        await server.up()
        link_ends: asyncio.Future[None] = loop.create_future()
        if port is not None:
            link = GuestLink(opener(port), server.up, instance=instance)
            server.busy = lambda: link.host_in_session
            if gate is not None:
                gate.session = lambda: link.sessions if link.host_in_session else None
            stack.push_async_callback(link.stop)
            link_ends = loop.create_task(_serve(link))
        stack.push_async_callback(_settle_writes, switch)
        # The port is opened in the task's first step, and being ready means to have it.
        await asyncio.sleep(0)
        if link_ends.done():
            link_ends.result()
        notifier.ready(f"listening, platform {doors.platform.name}")
        online = cpulist.render(doors.sysfs.mask("online"))
        logs.info(
            "started", version=__version__, platform=doors.platform.name, instance=instance.hex(), cpus_online=online
        )
        # The first look at the udev rules takes long, and the first Hello need not wait for it.
        await asyncio.to_thread(doors.environment)
        try:
            await _until(stop, doors, link_ends, notifier, mistakes)
        finally:
            notifier.stopping()
            logs.info("stopping")


async def _serve(link: GuestLink) -> None:
    try:
        await link.run()
    except PortError as error:
        raise StartError(str(error)) from error


async def _settle_writes(switch: Switch) -> None:
    if not await switch.close(STOP_TIMEOUT):
        logs.warning("an online write is still in the kernel", waited_seconds=STOP_TIMEOUT)


async def _until(
    stop: asyncio.Event, doors: Doors, link_ends: asyncio.Future[None], notifier: Notifier, mistakes: Mistakes
) -> None:
    """Wait for the order to stop, and feed the watchdog for as long as changes are heard of and the link is there."""
    period = None if notifier.watchdog is None else notifier.watchdog / 2
    loop = asyncio.get_running_loop()
    ordered, changed = loop.create_task(stop.wait()), loop.create_task(doors.connectors.ended())
    awaited: set[asyncio.Future[Any]] = {ordered, link_ends, changed, mistakes.too_many}
    try:
        while not ordered.done():
            if not doors.events.alive:
                raise StartError("the source of events has ended")
            if not doors.connectors.alive:
                raise StartError(f"hotplug events can no longer be handled as before ({doors.connectors.name})")
            notifier.alive()
            await asyncio.wait(awaited, timeout=period, return_when=asyncio.FIRST_COMPLETED)
            if link_ends.done():
                link_ends.result()
                raise StartError("the link to the host has ended")
            if mistakes.too_many.done():
                raise StartError(f"the same goes wrong again and again: {mistakes.too_many.result()}")
    finally:
        for task in (ordered, changed):
            task.cancel()
        await asyncio.gather(ordered, changed, return_exceptions=True)
