# SPDX-License-Identifier: Apache-2.0
"""Looking at one VM: QEMU's side, the guest's, and what is on record, joined into one map."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from .. import ports
from ..core import codes
from ..core.guest import AgentInfo, GuestView
from ..core.intent import Intent
from ..core.model import HostView, Ost
from ..core.operation import record
from ..core.reason import Origin, Reason
from ..core.view import VmView, join, with_pending
from ..errors import AgentGoneError, RefusedError
from .agent_session import Sessions

#: A CPU gets its firmware name a moment after its arrival: pauses before further looks, in seconds.
_NAMELESS = (0.05, 0.2, 0.5, 1.0)

#: How long who looks beside an operation waits for its session with the agent, in seconds.
_SOON = 1.0

_NO_SESSION = Reason(
    codes.AGENT_LOST,
    Origin.AGENT,
    "the operation that is under way has no session with the agent at this moment",
    "look again when it has ended",
)


class _Recorded(NamedTuple):
    """What is on record, or the trouble with it."""

    intents: tuple[Intent, ...] = ()
    trouble: Reason | None = None

    @property
    def pending(self) -> bool:
        """Whether anything is, or that cannot be told."""
        return bool(self.intents) or self.trouble is not None


class Looker:
    """Looks at a VM. It keeps what need not be asked for twice in one link session.

    ``observe_for`` may make a session, and strikes out of the record what it settles; ``beside`` does neither. What
    the agent says of its guest (``AgentInfo``) is asked anew in a session that is older than the look.

    Who strikes out holds the VM. Where others write the record, too (``ports.Journal.shared``), that is who has had the
    agent's channel since before it read the record and looked at QEMU: what others ask for meanwhile looks as if it had
    ended, since its slot is as it was. All other looks settle for the eye alone.
    """

    def __init__(self, vmm: ports.Vmm, sessions: Sessions, journal: ports.Journal) -> None:
        self._vmm = vmm
        self._sessions = sessions
        self._journal = journal
        self._host: HostView | None = None  # as last looked at
        self._named_in: str | None = None  # the session in which a list had every CPU explained by a slot
        #: Whether an operation is under way: then the record is its business.
        self.operating = False

    @property
    def name(self) -> str:
        """See ``Coordinator.name``."""
        return "" if self._host is None else self._host.vm_name

    async def session(self) -> ports.GuestAgent:
        """Return the link session with the agent, made anew if it has ended.

        Raise AgentGoneError, which says why there is none.
        """
        live = self._sessions.live
        if live is not None:
            return live
        if self.operating:
            raise AgentGoneError(_NO_SESSION)
        await self._sessions.drop()
        self._host = await self._vmm.look()
        return await self._sessions.get(self._host)

    def said(self, said: dict[int, Ost]) -> None:
        """Take what the guest has said of slots since the last look.

        A later one in this session does not ask for it.
        """
        if said and self._host is not None:
            self._host = self._host._replace(ost={**self._host.ost, **said})

    async def beside(self, *, renew: bool = True) -> VmView:
        """Return the map while an operation is under way, which alone makes and ends sessions and keeps the record."""
        since = asyncio.get_running_loop().time()
        agent = await self._sessions.made(_SOON)
        before = await self._recorded()
        host = await (self._vmm.look() if self._host is None else self._vmm.look_slots(self._host))
        if agent is None or not host.running:
            from ..core.run_states import not_running  # late: most VMs run

            trouble = _NO_SESSION if host.running else not_running(host)
            return await self._with_pending(join(host, None, agent_trouble=trouble), before)
        try:
            if renew:
                await agent.renew_info(since)
            guest = await agent.list_cpus()
        except AgentGoneError as error:
            return await self._with_pending(join(host, None, agent_trouble=error.reason), before)
        return await self._with_pending(join(host, guest, agent=agent.info), before)

    async def observe_for(
        self, needs_guest: Callable[[HostView], bool] | None, *, operation: bool = False, renew: bool = True
    ) -> VmView:
        """Return both sides; where ``needs_guest`` says no, QEMU's side alone, beside an agent that is known to live.

        In a session in which the guest has not shown its CPUs yet it is asked all the same: one that no slot explains
        makes every plug end in doubt (``core.proof``). ``operation``: it is the operation under way that looks.
        Without ``renew`` what the agent said earlier in the session is good enough: for one look of many.
        """
        since = asyncio.get_running_loop().time() if renew else -math.inf
        view = await self._observe(needs_guest, since, operation=operation)
        if view.agent_trouble is not None and view.agent_trouble.code == codes.AGENT_LOST:
            view = await self._observe(needs_guest, since, operation=operation)
        for pause in _NAMELESS:
            if not view.unsettled:
                break
            await asyncio.sleep(pause)
            view = await self._observe(needs_guest, since, operation=operation)
        return view

    async def observe_qemu(self, *, operation: bool = False) -> VmView:
        """Return QEMU's side alone: the agent is neither asked nor missed."""
        live = self._sessions.live
        before = await self._recorded()
        self._host = await self._vmm.look()
        strikes = self._may_strike(live, operation=operation)
        return await self._with_pending(join(self._host, None), before, strikes=strikes)

    async def _observe(
        self, needs_guest: Callable[[HostView], bool] | None, since: float, *, operation: bool
    ) -> VmView:
        # With a session at hand both sides are asked at once: the guest's answer takes longer than all of QEMU's.
        live = self._sessions.live
        renewed = None if live is None else asyncio.ensure_future(live.renew_info(since))
        asked = None if live is None or needs_guest else asyncio.ensure_future(live.list_cpus())
        guest: GuestView | None = None
        info: AgentInfo | None = None
        trouble: Reason | None = None
        agent = live
        try:
            before = await self._recorded()
            host = await self._look_at_host(live, before)
            if live is not None and not host.running:
                # The session is good, but nobody is there to answer before the VM goes on.
                from ..core.run_states import not_running  # late: most VMs run

                view = join(host, None, agent_trouble=not_running(host))
                return await self._with_pending(view, before, strikes=self._may_strike(live, operation=operation))
            agent = await self._sessions.get(host)
            if agent is not live and self._journal.shared:
                # Until now somebody else may have had the channel, and changed what was seen without it.
                before = await self._recorded()
                host = self._host = await (self._vmm.look() if before.pending else self._vmm.look_slots(host))
            if renewed is not None and agent is live:
                await renewed
            if needs_guest is None or needs_guest(host) or agent.session != self._named_in:
                guest = await (asked if asked is not None and agent is live else agent.list_cpus())
            else:
                await agent.check()
            info = agent.info
        except AgentGoneError as error:
            if operation or not self.operating:  # else the session is the operation's
                await self._sessions.drop()
            trouble = error.reason
        except RefusedError as error:
            if operation or error.reason.code != codes.PORT_BUSY:
                raise
            trouble = error.reason  # whoever looks refuses nobody, and is not refused: the map says who has the agent
        finally:
            await _end(renewed, asked)
        view = join(host, guest, agent=info, agent_trouble=trouble)
        if guest is not None and self._sessions.current is not None:
            self._named_in = None if view.unexplained else self._sessions.current.session
        return await self._with_pending(view, before, strikes=self._may_strike(agent, operation=operation))

    def _may_strike(self, agent: ports.GuestAgent | None, *, operation: bool) -> bool:
        """Return whether a look in this session may strike out what it settles.

        Not while an operation is under way whose look this is not: it may have recorded more since.
        """
        held = not self._journal.shared or (agent is not None and self._sessions.live is agent)
        return held and (operation or not self.operating)

    async def _with_pending(self, view: VmView, before: _Recorded, *, strikes: bool = False) -> VmView:
        """Return the map, with what earlier operations left open.

        ``strikes``: what it settles is struck out of the record. What was recorded after this look began, which is not
        in ``before``, is not judged by it.
        """
        now = await self._recorded()
        if now.trouble is not None:
            return view._replace(record_trouble=now.trouble)
        judged = frozenset(before.intents)
        left = judged.intersection(record.settle(now.intents, view))
        open_still = tuple(intent for intent in now.intents if intent in left or intent not in judged)
        if strikes and open_still != now.intents:
            with suppress(RefusedError):  # the record may keep settled entries; the next look removes them
                await self._journal.save(open_still)
        return with_pending(view, open_still) if open_still else view

    async def _recorded(self) -> _Recorded:
        try:
            return _Recorded(await self._journal.load())
        except RefusedError as error:
            return _Recorded(trouble=error.reason)

    async def has_record(self) -> bool:
        """Return whether earlier operations have left anything open, or that cannot be told."""
        return (await self._recorded()).pending

    async def _look_at_host(self, live: ports.GuestAgent | None, before: _Recorded) -> HostView:
        """Return a look at QEMU.

        With a session at hand, what was looked at for making it (the channel, old _OST) is not looked at again. Unless
        something is open: what the guest has said of it since counts.
        """
        host = self._host
        anew = live is None or host is None or before.pending
        if live is not None and host is not None and not anew:
            host = await self._vmm.look_slots(host)
            anew = live.ended
        if host is None or anew:
            host = await self._vmm.look()
        self._host = host
        return host


async def _end(*tasks: asyncio.Future[Any] | None) -> None:
    """End what is under way of these; what came of it does not matter any more."""
    for task in tasks:
        if task is not None:
            task.cancel()
    await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
