# SPDX-License-Identifier: Apache-2.0
"""One VM: looking at it, planning for it, and having plans carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from .. import ports
from ..core.identity import VmIdentity
from ..core.model import HostView, Recorded
from ..core.reason import Reason
from ..core.view import VmView
from ..core.vm_events import VmEvent
from ..errors import AgentGoneError, QemuGoneError, RefusedError, VcpuctlError, at_work
from .agent_session import Sessions
from .following import Follower
from .looking import Looker
from .waiting import first_of, hear_vmm, unless

if TYPE_CHECKING:
    from ..core.migration.compare import Comparison
    from ..core.migration.shape import Shape
    from ..core.operation.limits import Limits
    from ..core.operation.patience import Patience
    from ..core.operation.result import OperationResult
    from ..core.planning.plan import Plan, Request
    from .executor import Progress
    from .migration_target import Prepared

#: Hears what is the matter with the agent, and for how many seconds at most it is waited for.
Waits = Callable[[Reason, float], None]

#: How often ``watch`` looks without having heard of a change, in seconds.
WATCH_INTERVAL = 2.0
#: How often an operation that waits for the agent looks without having heard of a change, in seconds.
RETRY_INTERVAL = 1.0


class Coordinator:
    """One VM, through its monitor and, when it answers, its agent.

    ``dial_timeout`` bounds one attempt to reach the agent, in seconds. ``journal`` is the VM's write-ahead record,
    ``identity`` the QEMU that it is about, where that is known. ``workload`` is what is done about programs of the
    guest that an operation would hurt, where the request does not say it (``OnWorkload``).
    """

    def __init__(
        self,
        vmm: ports.Vmm,
        dialer: ports.AgentDialer,
        *,
        dial_timeout: float = 5.0,
        journal: ports.Journal | None = None,
        identity: VmIdentity | None = None,
        workload: str = "warn",
    ) -> None:
        self.identity = identity
        self.workload = workload
        self._vmm = vmm
        self._journal = journal or ports.NoJournal()
        self._sessions = Sessions(vmm, dialer, dial_timeout)
        self._looker = Looker(vmm, self._sessions, self._journal)
        self._one_look = asyncio.Lock()
        self._interrupt: Callable[[], None] | None = None
        self._interrupted = False  # before there was anything to interrupt
        self._follower = Follower(vmm, self._sessions, partial(self._look, renew=False))

    @property
    def agent(self) -> ports.GuestAgent | None:
        """The present link session, if there is one."""
        return self._sessions.current

    @property
    def link_sessions(self) -> int:
        """How many link sessions were made with the agent so far."""
        return self._sessions.count

    @property
    def name(self) -> str:
        """The VM's name, as QEMU has it (-name); empty if it has none, or was not looked at yet."""
        return self._looker.name

    async def close(self) -> None:
        """End the session and the monitor's connection."""
        await self._sessions.drop()
        await self._vmm.close()

    async def session(self) -> ports.GuestAgent:
        """Return the link session with the agent, made anew if it has ended.

        Raise AgentGoneError, which says why there is none.
        """
        try:
            return await self._looker.session()
        except QemuGoneError:
            self._follower.look_anew()
            raise

    # --- looking --------------------------------------------------------------------------------------------------

    async def look(self) -> VmView:
        """Return the whole map, both sides looked at now.

        An agent that cannot be asked is part of the map, not an error. A session that breaks off during the look (the
        agent is restarted, the guest reboots) is made anew, once: looking changes nothing, so it may be repeated.

        It may be called while ``run`` is under way, which it neither delays nor changes.
        """
        return await self._seen(self._look(renew=True))

    async def _look(self, *, renew: bool) -> VmView:
        if self._looker.operating:
            return await self._looker.beside(renew=renew)
        async with self._one_look:
            return await self._looker.observe_for(None, renew=renew)

    async def _seen(self, looking: Awaitable[VmView]) -> VmView:
        """Return what a look shows. If it fails, tell whoever watches: what they saw may not be true now."""
        try:
            return await looking
        except VcpuctlError:
            self._follower.look_anew()
            raise

    async def checkup(self) -> VmView:
        """Return what ``look`` does, with what the guest's programs make of its CPUs."""
        from .programs import for_doctor

        view = await self.look()
        return view if self._looker.operating else await for_doctor(self._sessions.live, view)

    async def shape(self) -> Shape:
        """Return which vCPUs the VM has now, and what is pending.

        Raise RefusedError if it is not known what is pending.
        """
        from ..core.migration.shape import shape_of

        view = await self._seen(self._looker.observe_qemu())
        if view.record_trouble is not None:
            raise RefusedError(view.record_trouble)
        return shape_of(view, await self._vmm.queues())

    def watch(
        self, stop: asyncio.Event | None = None, until: float | None = None, interval: float = WATCH_INTERVAL
    ) -> AsyncGenerator[VmView, None]:
        """Yield the map, now and whenever something may have changed, until ``stop`` or the loop's time ``until``.

        Changes are heard from QEMU's events and the agent's stream; every ``interval`` seconds it looks anyway. So it
        does when somebody else's look or operation has failed because QEMU does not answer: no event tells that. What
        the agent says of its guest beside its CPUs (``AgentInfo``) is not asked anew for each of these looks.

        All that watch share each look. Who is slow to ask for the next view gets the newest and none in between.
        """
        return self._follower.views(stop or asyncio.Event(), until, interval)

    # --- as the destination of a migration ----------------------------------------------------------------------------

    async def compare(self, source: Shape) -> Comparison:
        """Return what a migration of ``source`` to this QEMU would meet.

        Raise RefusedError if its record is unreadable.
        """
        from ..core.migration.compare import compare

        return compare(source, await self._vmm.look(), await self._vmm.queues(), await self._journal.load())

    async def prepare(self, source: Shape) -> Prepared:
        """Give this QEMU, which waits for ``source``, what it lacks, and hand it what is pending there."""
        from .migration_target import prepare

        return await prepare(source, self._vmm, self._journal)

    # --- acting ---------------------------------------------------------------------------------------------------

    async def plan(self, request: Request) -> Plan:
        """Return what ``run`` would do, from a fresh look. Raise UsageError for slots that the VM does not have."""
        from .programs import planned

        view = await (self._seen(self._looker.observe_qemu()) if request.without_agent else self.look())
        return (await planned(self._sessions.live, view, request, self._on_workload(request), shows=True))[1]

    def _on_workload(self, request: Request) -> str:
        return request.workload or self.workload

    async def run(
        self,
        request: Request,
        limits: Limits | None = None,
        progress: Progress | None = None,
        waits: Waits | None = None,
    ) -> OperationResult:
        """Carry the request out, end to end. ``waits`` hears what is waited for before there is anything to carry out.

        Without ``limits`` the time depends on how much there is to do. Raise UsageError for slots that the VM does not
        have, and UnreachableError if QEMU or the agent cannot be asked to begin with; nothing was changed then, and an
        agent that may answer yet was waited for (``Patience``). What goes wrong later is in the result. Raise
        RefusedError "vm-busy" while another ``run`` is under way: each would take what the other does for its own.
        """
        if self._looker.operating:
            raise at_work()
        from ..core.operation.limits import Limits

        limits = limits or Limits.within(None)
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._interrupt, self._interrupted = None, False
        self._sessions.until = began + limits.timeout
        self._looker.operating = True
        try:
            return await self._run(request, limits, progress, waits or _nobody_hears, began)
        finally:
            self._sessions.until = None
            self._looker.operating = False

    async def _run(
        self, request: Request, limits: Limits, progress: Progress | None, waits: Waits, began: float
    ) -> OperationResult:
        # Late: looking at a VM takes nothing of what changing one takes.
        from ..core.operation.patience import Patience
        from ..core.operation.stages import after_recovery, in_place_of, recovery
        from ..core.planning.plan import Operation
        from ..core.planning.planner import by_index, needs_guest

        patience = Patience(limits, began)
        # The guest's view can settle open intents, so ask the guest as well if there are any.
        alone = request.operation is Operation.PLUG and not await self._looker.has_record()
        asks = (lambda host: needs_guest(host, request)) if alone else None
        view, decided, events = await self._decide(request, asks, patience, waits)
        if not decided.refusals and any(slot.recorded is Recorded.BEHIND for slot in view.host.slots):
            await self._vmm.mend(view.host)
        first = recovery(decided, limits)
        if first is None:
            return await self._act(decided, view, limits, events, progress, patience)
        earlier, begun = await self._carry_out(first[0], view, first[1], events, progress), decided
        try:
            again = by_index(view, request)
            view, decided, events = await self._decide(again, None, patience, waits, recovered=True)
            decided = after_recovery(begun, decided)
            result = await self._act(decided, view, limits, events, progress, patience)
        except VcpuctlError as error:
            result = in_place_of(error.reason, request, earlier, asyncio.get_running_loop().time() - began)
        return result._replace(request=request, recovered=earlier.slots, before=earlier.before)

    async def _act(
        self,
        decided: Plan,
        view: VmView,
        limits: Limits,
        events: AsyncIterator[VmEvent],
        progress: Progress | None,
        patience: Patience,
    ) -> OperationResult:
        """Do what was decided, and all that belongs to it. Raise AgentGoneError if nothing but the agent is missing."""
        from ..core.operation.result import refused
        from ..core.operation.stages import lacks_agent

        loop = asyncio.get_running_loop()
        request, began = decided.request, patience.began
        if decided.refusals:
            trouble = lacks_agent(view, decided)
            if trouble is not None:
                raise AgentGoneError(patience.over(trouble, loop.time()))
            return refused(decided, view, loop.time() - began)
        result = await self._carry_out(decided, view, limits, events, progress, began=began)
        if not request.without_agent and self._on_workload(request) != "ignore":
            from .programs import told

            stop = asyncio.Event()
            self._interrupt = stop.set
            if self._interrupted:
                stop.set()
            left = began + limits.timeout - loop.time()
            result = await told(self._sessions.live, view, decided, result, stop, left)
        if request.config:
            from .keeping import kept

            result = await kept(self._vmm, view.host, result)
        return result

    async def _decide(
        self,
        request: Request,
        asks: Callable[[HostView], bool] | None,
        patience: Patience,
        waits: Waits,
        *,
        recovered: bool = False,
    ) -> tuple[VmView, Plan, AsyncIterator[VmEvent]]:
        """Return a plan, the look that it was made from, and QEMU's events since before that.

        Where nothing but the agent is missing, it is looked for again as long as ``patience`` has it.
        """
        from ..core.operation.stages import lacks_agent
        from .programs import planned

        async def look() -> tuple[VmView, Plan, AsyncIterator[VmEvent]]:
            events = self._vmm.events()
            view = await self._seen(
                self._looker.observe_qemu(operation=True)
                if request.without_agent
                else self._looker.observe_for(asks, operation=True)
            )
            on = self._on_workload(request)
            return *(await planned(self._sessions.live, view, request, on, recovered=recovered)), events

        seen = await look()
        if lacks_agent(seen[0], seen[1]) is None:
            return seen
        loop = asyncio.get_running_loop()
        stop, changed = asyncio.Event(), asyncio.Event()
        self._interrupt = stop.set
        listener = loop.create_task(hear_vmm(self._vmm.events(), changed))
        try:
            while (trouble := lacks_agent(seen[0], seen[1])) is not None and not self._interrupted:
                left = patience.left(trouble, loop.time())
                if left <= 0:
                    break
                waits(trouble, left)
                await first_of(stop, changed, seconds=min(left, RETRY_INTERVAL))
                changed.clear()
                seen = await unless(stop, look()) or seen
        finally:
            self._interrupt = None
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        return seen

    async def _carry_out(
        self,
        plan: Plan,
        view: VmView,
        limits: Limits,
        events: AsyncIterator[VmEvent],
        progress: Progress | None,
        *,
        began: float | None = None,
    ) -> OperationResult:
        """Run the machine on a plan without refusals. Its time counts from ``began``, or from now."""
        from ..core.operation.machine import Machine
        from .executor import Run, no_progress
        from .shared_record import for_one

        agent = self._sessions.current
        session = agent.session if agent else None
        now = asyncio.get_running_loop().time() if began is None else began
        machine = Machine(
            plan, view.platform, limits, session=session, now=now, identities=view.identities, before=view
        )
        watch = self._on_workload(plan.request) != "ignore"
        journal = for_one(self._journal)
        run = Run(self._vmm, self._sessions, machine, view.host, progress or no_progress, journal, watch=watch)
        self._interrupt = run.interrupt
        if self._interrupted:
            run.interrupt()
        result = await run.to_end(events)
        if run.lost_qemu:
            self._follower.look_anew()
        self._looker.said(run.said)
        return result

    def interrupt(self) -> None:
        """End the wait of the operation under way: what is not settled becomes unknown."""
        self._interrupted = True
        if self._interrupt is not None:
            self._interrupt()


def _nobody_hears(trouble: Reason, left: float) -> None:
    """Tell nobody: nobody wants to know what is waited for."""
    del trouble, left
