# SPDX-License-Identifier: Apache-2.0
"""One operation under way: runs the state machine, does what it asks for, and feeds it what came of that.

Adapters report into one queue; each report goes into the machine. Whatever an adapter raises becomes an event: nothing
is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

from . import ports
from .core import events as ev
from .core.machine import Machine
from .core.model import CpuResult, HostView, Reason, Who
from .core.result import OperationResult
from .errors import AgentGoneError, QemuError, QemuGoneError, VcpuctlError
from .sessions import Sessions

Progress = Callable[[ev.Event | ev.Action, Machine], None]


def no_progress(what: ev.Event | ev.Action, machine: Machine) -> None:
    """Nobody watches."""
    del what, machine


class Run:
    """One run of the machine: its tasks and its queue."""

    def __init__(
        self, vmm: ports.Vmm, sessions: Sessions, machine: Machine, host: HostView, progress: Progress
    ) -> None:
        self._vmm = vmm
        self._sessions = sessions
        self._machine = machine
        self._host = host
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[ev.Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: dict[int, asyncio.Task[None]] = {}

    async def to_end(self, vmm_events: AsyncIterator[ports.VmmEvent]) -> OperationResult:
        """Run until the machine has finished; no task is left behind."""
        self._spawn(self._listen(vmm_events))
        if self._sessions.current is not None:
            self._spawn(self._await_loss(self._sessions.current))
        try:
            while True:
                for action in self._machine.advance(self._loop.time()):
                    self._progress(action, self._machine)
                    self._start(action)
                if self._machine.finished:
                    return self._machine.result(self._loop.time())
                self._feed(await self._next_event())
                while not self._queue.empty():
                    self._feed(self._queue.get_nowait())
        finally:
            await self._stop_tasks()

    def interrupt(self) -> None:
        """See Coordinator.interrupt."""
        self._put(ev.Interrupted())

    def _feed(self, event: ev.Event) -> None:
        self._machine.feed(event, self._loop.time())
        self._progress(event, self._machine)

    async def _next_event(self) -> ev.Event:
        delay = max(0.0, self._machine.wake_at - self._loop.time())
        try:
            async with asyncio.timeout(delay):
                return await self._queue.get()
        except TimeoutError:
            return ev.Tick()

    def _put(self, event: ev.Event) -> None:
        self._queue.put_nowait(event)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    # --- actions --------------------------------------------------------------------------------------------------

    def _start(self, action: ev.Action) -> None:
        match action:
            case ev.DoAdd():
                self._spawn(self._add(action))
            case ev.DoDel():
                self._spawn(self._del(action))
            case ev.DoSetOnline():
                self._requests[action.request] = self._spawn(self._set_online(action))
            case ev.DoCancel():
                task = self._requests.get(action.request)
                if task is not None:
                    task.cancel()
            case ev.DoLookHost():
                self._spawn(self._look())
            case ev.DoDial():
                self._spawn(self._dial())

    async def _add(self, action: ev.DoAdd) -> None:
        try:
            await self._vmm.device_add(self._host.slots[action.slot], action.device_id)
            self._put(ev.Added(action.slot, None))
        except QemuGoneError as error:
            self._put(ev.QemuLost(error.reason))
        except QemuError as error:
            self._put(ev.Added(action.slot, error.reason))

    async def _del(self, action: ev.DoDel) -> None:
        try:
            await self._vmm.device_del(action.target)
            self._put(ev.DelReturned(action.slot, None))
        except QemuGoneError as error:
            self._put(ev.QemuLost(error.reason))
        except QemuError as error:
            self._put(ev.DelReturned(action.slot, error.reason))

    async def _look(self) -> None:
        asked_at = self._loop.time()
        try:
            self._host = await self._vmm.look_slots(self._host)
            self._put(ev.HostLooked(self._host, asked_at))
        except VcpuctlError as error:
            self._put(ev.QemuLost(error.reason))

    async def _dial(self) -> None:
        try:
            agent = await self._sessions.renew()
        except AgentGoneError as error:
            self._put(ev.AgentDown(error.reason))
            return
        except VcpuctlError as error:
            self._put(ev.QemuLost(error.reason))
            return
        self._spawn(self._await_loss(agent))
        self._put(ev.AgentUp(agent.session, agent.info))

    async def _await_loss(self, agent: ports.GuestAgent) -> None:
        text = await agent.lost()
        if self._sessions.current is agent:
            self._put(ev.AgentDown(Reason("agent-lost", Who.AGENT, text, "see vcpuctl doctor")))

    async def _check_port(self, agent: ports.GuestAgent) -> None:
        """A port was closed in the guest. An agent that ends in order says so itself, one that is killed cannot.

        The event may be older than the session, so what counts is how the agent's port stands now.
        """
        try:
            channel = (await self._vmm.look()).channel
        except VcpuctlError as error:
            self._put(ev.QemuLost(error.reason))
            return
        if channel is not None and not channel.guest_open and self._sessions.current is agent:
            text = "the agent has ended: nobody in the guest has its port open"
            self._put(ev.AgentDown(Reason("agent-lost", Who.AGENT, text, "see vcpuctl doctor")))

    async def _set_online(self, action: ev.DoSetOnline) -> None:
        agent = self._sessions.current
        if agent is None:
            return  # AgentDown is in the queue, and with it the machine forgets this request
        session, error = agent.session, None
        seconds_left = max(0.1, self._machine.deadline - self._loop.time())
        try:
            async for answer in agent.set_online(
                action.firmware_ids, online=action.online, wait=action.wait, timeout=seconds_left
            ):
                if isinstance(answer, ports.Arrived):
                    self._put(ev.CpuArrived(session, answer.cpu))
                elif isinstance(answer, CpuResult):
                    self._put(ev.CpuSettled(session, action.request, answer))
                else:
                    self._put(ev.GuestLooked(session, answer))
        except VcpuctlError as problem:
            error = problem.reason
        finally:
            self._put(ev.RequestEnded(session, action.request, error))
            self._requests.pop(action.request, None)

    # --- QEMU's events --------------------------------------------------------------------------------------------

    async def _listen(self, vmm_events: AsyncIterator[ports.VmmEvent]) -> None:
        async for event in vmm_events:
            if isinstance(event, ports.PortChanged) and not event.open and self._sessions.current is not None:
                self._spawn(self._check_port(self._sessions.current))
            translated = self._translate(event)
            if translated is not None:
                self._put(translated)

    @staticmethod
    def _translate(event: ports.VmmEvent) -> ev.Event | None:
        match event:
            case ports.OstReported():
                return ev.OstSeen(event.slot, event.ost)
            case ports.DeviceDeleted():
                return ev.PathDeleted(event.path)
            case ports.UnplugRefused():
                return ev.PathUnplugRefused(event.path)
            case ports.VmReset():
                return ev.Restarted()
            case ports.VmStatus():
                return ev.StatusChanged(event.status)
            case ports.QemuGone():
                reason = Reason("qemu-gone", Who.QEMU, event.text, "QEMU died or closed its monitor: see its log")
                return ev.QemuLost(reason)
            case ports.PortChanged():
                return None  # see _check_port
