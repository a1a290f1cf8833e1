# SPDX-License-Identifier: Apache-2.0
"""Carries out what the core decides, on one VM: the only place with tasks.

Adapters report into one queue; each report goes into the state machine, and what the machine asks for is done. Whatever
an adapter raises becomes an event: nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

from . import ports
from .core import events as ev
from .core import words
from .core.machine import Machine
from .core.model import AgentInfo, CpuResult, GuestView, HostView, Reason, Who
from .core.plan import Plan, Request, plan
from .core.policy import Policy
from .core.result import OperationResult, refused
from .core.view import VmView, join
from .errors import AgentGoneError, QemuError, QemuGoneError, VcpuctlError

#: How often ``watch`` looks without having heard of a change, in seconds.
WATCH_INTERVAL = 2.0

Progress = Callable[[ev.Event | ev.Action, Machine], None]


def _no_progress(what: ev.Event | ev.Action, machine: Machine) -> None:
    """Nobody watches."""
    del what, machine


class Sessions:
    """The link session with the agent: one at a time, made when it is needed."""

    def __init__(self, vmm: ports.Vmm, dialer: ports.AgentDialer, dial_timeout: float) -> None:
        self.current: ports.GuestAgent | None = None
        self._vmm = vmm
        self._dialer = dialer
        self._dial_timeout = dial_timeout

    async def get(self, host: HostView) -> ports.GuestAgent:
        """The present session, or a new one. ``host`` is a fresh look, for what it says of the port."""
        if self.current is not None and self.current.ended:
            await self.drop()
        if self.current is None:
            self.current = await self._dialer.dial(host, self._dial_timeout)
        return self.current

    async def renew(self) -> ports.GuestAgent:
        """A new session in any case."""
        await self.drop()
        return await self.get(await self._vmm.look())

    async def drop(self) -> None:
        """End the present session."""
        agent, self.current = self.current, None
        if agent is not None:
            await agent.close()


class Coordinator:
    """One VM, through its monitor and, when it answers, its agent.

    ``dial_timeout`` bounds one attempt to reach the agent, in seconds.
    """

    def __init__(self, vmm: ports.Vmm, dialer: ports.AgentDialer, *, dial_timeout: float = 5.0) -> None:
        self._vmm = vmm
        self._sessions = Sessions(vmm, dialer, dial_timeout)
        self._interrupt: Callable[[], None] | None = None

    @property
    def agent(self) -> ports.GuestAgent | None:
        """The present link session, if there is one."""
        return self._sessions.current

    async def close(self) -> None:
        """End the session and the monitor's connection."""
        await self._sessions.drop()
        await self._vmm.close()

    async def session(self) -> ports.GuestAgent:
        """The link session with the agent, made anew if it has ended. AgentGoneError says why there is none."""
        current = self._sessions.current
        return await self._sessions.renew() if current is None or current.ended else current

    # --- looking --------------------------------------------------------------------------------------------------

    async def observe(self) -> VmView:
        """The whole map, both sides looked at now. An agent that cannot be asked is part of the map, not an error."""
        # With a session at hand both sides are asked at once: the guest's answer takes longer than all of QEMU's.
        early = self._sessions.current
        asked = None if early is None or early.ended else asyncio.ensure_future(early.list_cpus())
        guest: GuestView | None = None
        info: AgentInfo | None = None
        trouble: Reason | None = None
        try:
            host = await self._vmm.look()
            if early is not None and not host.running:
                # The session is good, but nobody is there to answer before the VM goes on.
                return join(host, None, agent_trouble=words.not_running(host))
            agent = await self._sessions.get(host)
            guest = await (asked if asked is not None and agent is early else agent.list_cpus())
            info = agent.info
        except AgentGoneError as error:
            await self._sessions.drop()
            trouble = error.reason
        finally:
            if asked is not None:
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
        return join(host, guest, agent=info, agent_trouble=trouble)

    async def watch(self, stop: asyncio.Event, until: float | None) -> AsyncIterator[VmView]:
        """The map, now and whenever something may have changed, until ``stop`` or the loop's time ``until``.

        Changes are heard from QEMU's events and the agent's stream; every ``WATCH_INTERVAL`` seconds it looks anyway.
        """
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        listeners = [loop.create_task(self._hear_vmm(changed))]
        heard: ports.GuestAgent | None = None
        try:
            while not stop.is_set() and (until is None or loop.time() < until):
                changed.clear()
                yield await self.observe()
                if self._sessions.current is not heard and self._sessions.current is not None:
                    heard = self._sessions.current
                    listeners.append(loop.create_task(_hear_agent(heard, changed)))
                await _first_of(stop, changed, seconds=WATCH_INTERVAL if until is None else until - loop.time())
        finally:
            for task in listeners:
                task.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)

    async def _hear_vmm(self, changed: asyncio.Event) -> None:
        async for _ in self._vmm.events():
            changed.set()

    # --- acting ---------------------------------------------------------------------------------------------------

    async def plan(self, request: Request) -> Plan:
        """What ``run`` would do, from a fresh look."""
        return plan(await self.observe(), request)

    async def run(self, request: Request, policy: Policy, progress: Progress = _no_progress) -> OperationResult:
        """Carry the request out, end to end.

        Raises UnreachableError if QEMU or the agent cannot be asked to begin with (nothing was changed then); what goes
        wrong later is in the result.
        """
        began = asyncio.get_running_loop().time()
        events = self._vmm.events()
        view = await self.observe()
        decided = plan(view, request)
        if decided.refusals:
            if view.guest is None and decided.refusals[0].reason is view.agent_trouble:
                raise AgentGoneError(decided.refusals[0].reason)
            return refused(decided, asyncio.get_running_loop().time() - began)
        agent = self._sessions.current
        session = agent.session if agent else None
        machine = Machine(decided, view.platform, policy, session=session, now=began)
        run = _Run(self._vmm, self._sessions, machine, view.host, progress)
        self._interrupt = run.interrupt
        return await run.to_end(events)

    def interrupt(self) -> None:
        """End the wait of the operation under way: what is not settled becomes unknown."""
        if self._interrupt is not None:
            self._interrupt()


async def _hear_agent(agent: ports.GuestAgent, changed: asyncio.Event) -> None:
    try:
        async for _ in agent.watch():
            changed.set()
    except AgentGoneError:
        changed.set()


async def _first_of(*events: asyncio.Event, seconds: float) -> None:
    """Wait for one of the events, or for so many seconds, whatever comes first."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=max(0.0, min(seconds, WATCH_INTERVAL)), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class _Run:
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

    async def to_end(self, vmm_events: Any) -> OperationResult:
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

    async def _listen(self, vmm_events: Any) -> None:
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
