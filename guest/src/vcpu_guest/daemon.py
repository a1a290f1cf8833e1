# SPDX-License-Identifier: Apache-2.0
"""The running agent: listens for events, scans, serves, joins the port, feeds the watchdog, and ends in order."""

from __future__ import annotations

import asyncio
import os
import signal

from vcpu_guest import __version__, logs
from vcpu_guest.core.model import Identity
from vcpu_guest.doors import Doors
from vcpu_guest.errors import StartError
from vcpu_guest.events import EventSource
from vcpu_guest.notify import Notifier
from vcpu_guest.switch import Switch
from vcpu_guest.watcher import Watcher

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
        event_source=doors.events.name,
    )


async def run(doors: Doors, socket_path: str, port: str | None) -> None:
    """Serve until SIGTERM or SIGINT. `port` None: no link, for tests and for looking by hand.

    Raises StartError, or OSError, if it can't begin or can't go on.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notifier = Notifier()
    watcher = Watcher(doors.sysfs, doors.platform)
    # Listen first, then scan: what happens in between is seen twice rather than never.
    doors.events.start(watcher.on_event, watcher.on_lost)
    watcher.scan()
    switch = Switch(doors.sysfs, doors.platform, watcher)

    # Late, and after the events' socket is bound: this import is most of the start-up time.
    from vcpu_guest.service import GuestAgent, serve

    identity = identify(doors, os.urandom(8))
    agent = GuestAgent(identity, watcher, switch, doors.platform.scheme, doors.environment)
    server = await serve(agent, socket_path)
    notifier.ready(f"listening, platform {doors.platform.name}")
    logs.info(
        "started",
        version=__version__,
        platform=doors.platform.name,
        events=doors.events.name,
        instance=identity.instance_id,
    )
    try:
        await _until(stop, doors.events, notifier)
    finally:
        notifier.stopping()
        logs.info("stopping")
        if not await switch.close(STOP_TIMEOUT):
            logs.warning("an online write is still in the kernel", waited_seconds=STOP_TIMEOUT)
        await server.stop(None)
        watcher.close()
        doors.events.close()


async def _until(stop: asyncio.Event, events: EventSource, notifier: Notifier) -> None:
    """Wait for the order to stop, and meanwhile feed the watchdog for as long as changes are heard of."""
    period = None if notifier.watchdog is None else notifier.watchdog / 2
    while not stop.is_set():
        if not events.alive:
            raise StartError("the event source has ended")
        notifier.alive()
        try:
            await asyncio.wait_for(stop.wait(), period)
        except TimeoutError:
            continue
