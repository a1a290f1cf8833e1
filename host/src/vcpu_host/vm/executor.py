# SPDX-License-Identifier: Apache-2.0
"""One operation under way: runs the state machine, does what it asks for, and feeds it what came of that.

Adapters report into one queue; each report goes into the machine. Whatever an adapter raises becomes an event: nothing
is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from .. import ports
from ..core import codes
from ..core.guest import CpuResult
from ..core.model import HostView, Ost
from ..core.operation import events as ev
from ..core.operation.machine import Machine
from ..core.operation.result import OperationResult
from ..core.reason import Origin, Reason
from ..core.vm_events import PortChanged, VmEvent
from ..errors import AgentGoneError, QemuError, QemuGoneError, TooLateError, VcpuctlError
from .agent_session import Sessions
from .recording import Change, Recording

T = TypeVar("T")
#: What may end the operation: what has not been sent by then is not begun.
_ENDS = (ev.Interrupted, ev.QemuGone, ev.VmStatus)
Progress = Callable[[ev.Event | ev.Action, Machine], None]


def no_progress(what: ev.Event | ev.Action, machine: Machine) -> None:
    """Tell nobody: nobody watches."""
    del what, machine


class Run:
    """One run of the machine: its tasks and its queue. ``watch``: the agent remembers the masks of threads."""

    def __init__(
        self,
        vmm: ports.Vmm,
        sessions: Sessions,
        machine: Machine,
        host: HostView,
        progress: Progress,
        journal: ports.Journal,
        *,
        watch: bool = False,
    ) -> None:
        self._watch = watch
        self._recording = Recording(journal, self._begin, self._refuse)
        self._writing: asyncio.Task[None] | None = None
        self._vmm = vmm
        self._sessions = sessions
        self._machine = machine
        self._host = host
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[ev.Event | BaseException] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests: dict[int, asyncio.Task[Reason | None]] = {}
        self.said: dict[int, Ost] = {}  # by the guest, of slots, since the run began
        self.lost_qemu = False  # it did not answer any more

    async def to_end(self, vm_events: AsyncIterator[VmEvent]) -> OperationResult:
        """Run until the machine has finished; no task is left behind."""
        await self._recording.load()
        self._spawn(self._listen(vm_events))
        if self._sessions.current is not None:
            self._spawn(self._await_loss(self._sessions.current))
        try:
            while True:
                while not self._queue.empty():
                    self._feed(self._queue.get_nowait())
                now = self._loop.time()
                if now >= self._machine.deadline:
                    self._withdraw()
                self._act(self._machine.advance(now))
                if self._machine.finished:
                    result = self._machine.result(self._loop.time())
                    await self._recording.end(result, self._host)
                    return result
                self._feed(await self._next_event())
        finally:
            await self._stop_tasks()

    def _act(self, actions: list[ev.Action]) -> None:
        """Start the actions; those that change QEMU's side go on record first."""
        changes = [action for action in actions if isinstance(action, (ev.DoPlug, ev.DoUnplug))]
        if changes:
            self._recording.add(changes)
            if self._writing is None or self._writing.done():
                self._writing = self._spawn(self._recording.write(lambda: self._host))
        for action in actions:
            if not isinstance(action, (ev.DoPlug, ev.DoUnplug)):
                self._begin(action)

    def _begin(self, action: ev.Action) -> None:
        self._progress(action, self._machine)
        self._start(action)

    def _refuse(self, action: Change, why: Reason) -> None:
        returned = ev.PlugReturned if isinstance(action, ev.DoPlug) else ev.UnplugReturned
        self._put(returned(action.slot, why))

    def _withdraw(self) -> None:
        """Send nothing more of what waits for the record."""
        if self._writing is not None and self._recording.waits:
            self._writing.cancel()
        for action in self._recording.withdraw():
            returned = ev.PlugReturned if isinstance(action, ev.DoPlug) else ev.UnplugReturned
            self._machine.feed(returned(action.slot, None, sent=False), self._loop.time())

    def interrupt(self) -> None:
        """See Coordinator.interrupt."""
        self._put(ev.Interrupted())

    def _feed(self, event: ev.Event | BaseException) -> None:
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, _ENDS):
            self._withdraw()
        self._machine.feed(event, self._loop.time())
        self._progress(event, self._machine)

    async def _next_event(self) -> ev.Event | BaseException:
        delay = max(0.0, self._machine.wake_at - self._loop.time())
        try:
            async with asyncio.timeout(delay):
                return await self._queue.get()
        except TimeoutError:
            return ev.Tick()

    def _put(self, event: ev.Event) -> None:
        self.lost_qemu |= isinstance(event, ev.QemuGone)
        self._queue.put_nowait(event)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._gone)
        return task

    def _gone(self, task: asyncio.Task[Any]) -> None:
        """End the run if a task fails in a way that nobody foresaw: waiting for its answer would hide it."""
        self._tasks.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self._queue.put_nowait(problem)

    async def _stop_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- actions --------------------------------------------------------------------------------------------------

    def _start(self, action: ev.Action) -> None:
        match action:
            case ev.DoPlug():
                self._spawn(self._add(action))
            case ev.DoUnplug():
                self._spawn(self._del(action))
            case ev.DoSetOnline():
                self._ask(action)
            case ev.DoCancel():
                task = self._requests.get(action.request)
                if task is not None:
                    task.cancel()
            case ev.DoLookHost():
                self._spawn(self._look())
            case ev.DoLookGuest():
                self._look_guest()
            case ev.DoDial():
                self._spawn(self._dial())

    async def _add(self, action: ev.DoPlug) -> None:
        try:
            await self._vmm.plug(self._host.slots[action.slot])
            self._put(ev.PlugReturned(action.slot, None))
        except QemuGoneError as error:
            self._put(ev.QemuGone(error.reason))
        except VcpuctlError as error:
            self._put(ev.PlugReturned(action.slot, error.reason))

    async def _del(self, action: ev.DoUnplug) -> None:
        first = self._recording.sending(action.slot)
        try:
            await self._vmm.unplug(self._host.slots[action.slot], action.not_after)
            self._put(ev.UnplugReturned(action.slot, None))
        except TooLateError:
            self._recording.held_up(action.slot, first=first)
            self._put(ev.UnplugReturned(action.slot, None, sent=False))
        except QemuGoneError as error:
            self._put(ev.QemuGone(error.reason))
        except VcpuctlError as error:
            self._put(ev.UnplugReturned(action.slot, error.reason))

    async def _look(self) -> None:
        asked_at = self._loop.time()
        try:
            self._host = await self._vmm.look_slots(self._host)
            self._put(ev.HostLooked(self._host, asked_at))
        except VcpuctlError as error:
            self._put(ev.QemuGone(error.reason))

    def _look_guest(self) -> None:
        agent = self._sessions.current
        if agent is not None:  # else AgentDown is in the queue, and with it the machine forgets the look
            self._spawn(self._list_cpus(agent))

    async def _list_cpus(self, agent: ports.GuestAgent) -> None:
        asked_at = self._loop.time()
        try:
            self._put(ev.GuestLooked(agent.session, await agent.list_cpus(), asked_at))
        except VcpuctlError as error:
            # Whether the session has ended with it is told by itself (_await_loss).
            self._put(ev.GuestLookFailed(agent.session, error.reason))

    async def _dial(self) -> None:
        try:
            agent = await self._sessions.renew()
        except QemuError as error:
            self._put(ev.QemuGone(error.reason))
        except QemuGoneError as error:
            self._put(ev.QemuGone(error.reason))
        except VcpuctlError as error:
            self._put(ev.AgentDown(error.reason))
        else:
            self._session_began(agent)

    def _session_began(self, agent: ports.GuestAgent) -> None:
        self._spawn(self._await_loss(agent))
        self._put(ev.AgentUp(agent.session, agent.info))

    async def _await_loss(self, agent: ports.GuestAgent) -> None:
        text = await agent.lost()
        if self._sessions.current is agent:
            self._put(ev.AgentDown(Reason(codes.AGENT_LOST, Origin.AGENT, text, "see vcpuctl doctor")))

    async def _check_port(self, agent: ports.GuestAgent) -> None:
        """Check whether the agent has ended: a port was closed in the guest.

        An agent that ends in order says so itself, one that is killed cannot. The event may be older than the session,
        so what counts is how the agent's port stands now.
        """
        try:
            channel = (await self._vmm.look()).channel
        except VcpuctlError as error:
            self._put(ev.QemuGone(error.reason))
            return
        if channel is not None and not channel.guest_open and self._sessions.current is agent:
            text = "the agent has ended: nobody in the guest has its port open"
            self._put(ev.AgentDown(Reason(codes.AGENT_LOST, Origin.AGENT, text, "see vcpuctl doctor")))

    def _ask(self, action: ev.DoSetOnline) -> None:
        agent = self._sessions.current
        if agent is None:
            return  # AgentDown is in the queue, and with it the machine forgets this request
        session, number = agent.session, action.request

        def ended(task: asyncio.Task[Reason | None]) -> None:
            # Not at the end of the task's own code: one that is cancelled before it began never runs that.
            self._requests.pop(number, None)
            lost = task.cancelled() or task.exception() is not None
            self._put(ev.RequestEnded(session, number, None if lost else task.result()))

        task = self._requests[number] = self._spawn(self._set_online(agent, action))
        task.add_done_callback(ended)

    async def _set_online(self, agent: ports.GuestAgent, action: ev.DoSetOnline) -> Reason | None:
        """Return why the request ended before its end, or None."""
        session = agent.session
        seconds_left = max(0.1, self._machine.deadline - self._loop.time())
        try:
            async for answer in agent.set_online(
                action.firmware_ids,
                online=action.online,
                wait=action.wait,
                brief=action.brief,
                for_eject=action.for_eject,
                watch=self._watch,
                timeout=seconds_left,
            ):
                if isinstance(answer, ports.Arrived):
                    self._put(ev.CpuArrived(session, answer.cpu))
                elif isinstance(answer, CpuResult):
                    self._put(ev.CpuSettled(session, action.request, answer))
                else:
                    self._put(ev.GuestLooked(session, answer, request=action.request))
        except AgentGoneError as problem:
            # The link may still stand: an agent that breaks the contract is asked nothing more in this session.
            if self._sessions.current is agent:
                self._put(ev.AgentDown(problem.reason))
            return problem.reason
        except VcpuctlError as problem:
            return problem.reason
        return None

    # --- what the VM tells by itself --------------------------------------------------------------------------------

    async def _listen(self, vm_events: AsyncIterator[VmEvent]) -> None:
        async for event in vm_events:
            if isinstance(event, PortChanged):
                if not event.open and self._sessions.current is not None:
                    self._spawn(self._check_port(self._sessions.current))
                continue
            if isinstance(event, ev.OstReported):
                self.said[event.slot] = event.ost
            self._put(event)
