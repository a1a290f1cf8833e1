# SPDX-License-Identifier: Apache-2.0
"""The loop of one VM: hears its load, asks the policy, and has ``scale`` done what that decides.

It is a caller like any other: its ``scale`` is planned, carried out, recorded and written down as an operator's is. It
stands back for everybody else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ..autoscale.budget import Budget
from ..autoscale.decision import Decision, Direction
from ..autoscale.history import Entry, History
from ..autoscale.outside import HostRoom, Outside
from ..autoscale.policy import Policy
from ..autoscale.settings import Mode, Settings, WallTime
from ..core import codes
from ..core.intent import IntentKind
from ..core.model import SlotState
from ..core.planning.plan import Operation, Request
from ..core.reason import Origin, Outcome, Reason
from ..documents import Document, of_view, read_reason
from ..documents.autoscale import of_autoscaler
from ..errors import OutcomeLostError, VcpuctlError
from ..local.pressure import cpu_pressure
from ..sharing.calls import Call, Kind

if TYPE_CHECKING:
    from ..core.guest import LoadSupport
    from ..sharing.hold import Held
    from ..sharing.wire import Message

#: How often the load is told, in seconds: while no task waits, while some do, and where the kernel tells by itself.
CALM, BUSY, QUIET = 1.0, 0.25, 10.0
#: Seconds between two samples that are taken, whatever a guest sends.
_LEAST = 0.05
#: And so many more for each CPU in the last one: ten times of what it takes to read it (8 us, CPython 3.11).
_LEAST_PER_CPU = 1e-4
#: How often is decided without having heard anything, in seconds: schedules begin, and pauses end.
_TICK = 5.0
#: After how many seconds a guest whose load is not heard of is asked again: at first, and at most.
_FIRST, _LONGEST = 1.0, 30.0
#: An operation of the loop's own that somebody needs the VM from gets so many seconds to say how it stands.
_LAST_WORDS = 10.0
#: How often it is told to end meanwhile: one that has not quite begun does not hear it.
_AGAIN = 0.2
#: For so many seconds after an operation of the loop's own looks may come that began before its end.
_OWN = 5.0


class Decided(Protocol):
    """Hears what is decided."""

    def decided(self, name: str, decision: Decision, mode: str) -> None:
        """Hear that the policy was asked."""

    def changed(self, name: str, place: str, entry: Entry, mode: str) -> None:
        """Hear that it says something else than before, and the VM is to change, or would."""


class Autoscaler:
    """The loop of the VM with this name. ``host_limit`` is the host's own pressure above which nothing grows."""

    def __init__(
        self,
        name: str,
        place: str,
        settings: Settings,
        budget: Budget,
        host_limit: float,
        heard: Decided,
        clock: Callable[[], float] = time.time,
        policy: Policy | None = None,
    ) -> None:
        self._name = name
        self._place = place
        self._settings = settings
        self._budget = budget
        self._host_limit = host_limit
        self._heard = heard
        self._clock = clock
        self._policy = policy or Policy(settings)
        self._history = History()
        self._seen: Outside | None = None
        self._trouble: Reason | None = Reason(codes.NO_LOAD, Origin.VCPUCTL, "the VM was not looked at yet")
        self._filled: frozenset[int] | None = None  # the slots, at the last look
        self._own_ended = float("-inf")  # when the loop's last operation did
        self._open: frozenset[int] = frozenset()  # of which something was pending then
        self._support: LoadSupport | None = None
        self._held: Held | None = None
        self._working: asyncio.Task[None] | None = None

    # --- what others tell it ------------------------------------------------------------------------------------------

    def looked(self, document: Document) -> None:
        """Take a look at the VM (``documents.of_view``). One that others have changed is theirs for a while."""
        vm, slots = document["vm"], document["slots"]
        if self._working is None:
            self._counts(vm["plugged_vcpus"])
        self._trouble = document["record_trouble"] and read_reason(document["record_trouble"])
        online = vm["online_vcpus"]
        if online is None or document["agent"] is None:
            trouble = document["agent_trouble"]
            text = "the agent does not answer, so it is not known how many vCPUs are online"
            self._trouble = read_reason(trouble) if trouble else Reason(codes.NO_AGENT, Origin.AGENT, text)
            return
        pending = {slot["slot"]: slot["pending"]["operation"] for slot in slots if slot["pending"] is not None}
        filled = [slot for slot in slots if slot["filled"]]
        self._seen = Outside(
            online=online,
            possible=vm["possible_vcpus"],
            step=max((slot["vcpus"] for slot in slots), default=1),
            fixed=sum(slot["vcpus"] for slot in filled if not slot["removable"]),
            plugged=vm["plugged_vcpus"],
            parked=sum(slot["vcpus"] for slot in filled if _is_dark(slot)),
            leaving=IntentKind.UNPLUG in pending.values(),
        )
        before, self._filled = self._filled, frozenset(slot["slot"] for slot in filled)
        settling, self._open = self._open, frozenset(pending)
        # A look that began before the loop's own operation ended shows the VM as it was then.
        own = self._working is not None or self._now - self._own_ended < _OWN
        if not own and before is not None and (before ^ self._filled) - settling:
            self._policy.operated(self._now)

    def gone(self, reason: Reason) -> None:
        """Take that the VM cannot be looked at; what comes back may be another one."""
        self._trouble, self._seen, self._filled = reason, None, None
        self._policy.lost(reason)

    def operated(self) -> None:
        """Take that an operation has ended which was not the loop's own."""
        if self._working is None:
            self._policy.operated(self._now)

    async def stands_back(self) -> None:
        """Leave the VM to somebody else: end what is under way, and do nothing for a while."""
        self._policy.operated(self._now)
        if self._working is not None and self._held is not None:
            await _ended(self._working, self._held)

    def reconfigure(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        self._settings = settings
        self._policy.reconfigure(settings)

    def answer(self, call: Call) -> Document:
        """Return how it stands, after switching it, if that is asked for."""
        if call.switch:
            self._policy.switch(on=call.switch == "on")
        decision = self._decision()
        return of_autoscaler(
            self._settings,
            decision,
            self._history.entries,
            enabled=self._policy.enabled,
            support=self._support,
            now=self._now,
        )

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def run(self, held: Held) -> None:
        """Follow the load of the VM that is held, until cancelled."""
        self._held = held
        tasks = {asyncio.ensure_future(self._tick()), asyncio.ensure_future(self._watch(held))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:  # none of them ends but by a fault
                task.result()
        finally:
            working, self._held = self._working, None
            if working is not None:
                await _ended(working, held)
                tasks.add(working)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._consider()

    async def _watch(self, held: Held) -> None:
        pause = _FIRST
        while True:
            try:
                agent = await held.vm.session()
                self._support = agent.info.load
                missing = not_told(agent.info.load, can=agent.info.tells_load)
                if missing is not None:
                    self._policy.lost(missing)
                    pause = _LONGEST
                else:
                    again = False
                    async with aclosing(agent.watch_load(CALM, BUSY, QUIET)) as samples:
                        async for sample in samples:
                            if self._trouble is not None and not again:
                                # A look has failed, and the agent answers again: the next look may be far away.
                                # Once: what this one does not end, such as a bad record, the next would not either.
                                again = True
                                self.looked(of_view(await held.vm.look()))
                            if self._seen is not None and len(sample.cpus) > self._seen.possible:
                                raise _too_many(len(sample.cpus), self._seen.possible)
                            pause = _FIRST
                            self._policy.sample(sample, self._now)
                            self._consider()
                            # Meanwhile a guest that sends more waits, by the link's back-pressure. The more it costs to
                            # read and to think over what it sends, the longer.
                            await asyncio.sleep(_LEAST + len(sample.cpus) * _LEAST_PER_CPU)
            except VcpuctlError as error:
                self._policy.lost(error.reason)
            self._consider()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    def _consider(self) -> None:
        """Decide, and begin what is decided."""
        held = self._held
        if held is None or self._seen is None or self._working is not None:
            return
        if held.operating:
            self._policy.operated(self._now)
        decision = self._decision()
        mode = self._settings.mode
        self._heard.decided(self._name, decision, mode)
        acts = mode is Mode.ACT and decision.direction is not Direction.HOLD
        entry = self._history.take(decision, self._clock(), acted=acts)
        if entry is not None and decision.direction is not Direction.HOLD:
            self._heard.changed(self._name, self._place, entry, mode)
        if acts:
            self._policy.begun(decision, self._now)
            if decision.direction is Direction.UP:
                # Parked ones are plugged, and those that it gets come on top.
                self._budget.grows(self._name, decision.goal + self._seen.plugged - self._seen.usable)
            self._working = asyncio.ensure_future(self._carry_out(held, decision))

    async def _carry_out(self, held: Held, decision: Decision) -> None:
        began = self._now
        outcome, why = Outcome.UNKNOWN, None
        try:
            outcome, why = await _scaled(held, decision.goal)
            try:
                document = of_view(await held.vm.look())
                self.looked(document)
                self._counts(document["vm"]["plugged_vcpus"])
            except VcpuctlError as error:
                # What the next look shows is the loop's own doing, not somebody else's. Until then the budget counts
                # what the VM was growing to.
                self._trouble, self._filled = error.reason, None
        finally:
            self._working, self._own_ended = None, self._now
            self._policy.ended(outcome, why, self._now)
            self._history.ended(outcome, self._now - began, "" if why is None else str(why))

    def _counts(self, plugged: int) -> None:
        """Note that the VM has so many vCPUs, and takes no more of the budget."""
        self._budget.has(self._name, plugged)
        self._budget.grows(self._name, None)

    def _decision(self) -> Decision:
        now = time.localtime(self._clock())
        outside = replace(
            self._seen or Outside(online=0, possible=self._settings.max),
            trouble=self._trouble,
            room=HostRoom(self._budget.left, cpu_pressure(), self._host_limit, self._budget.unseen),
            clock=WallTime(now.tm_wday, now.tm_hour * 60 + now.tm_min),
        )
        return self._policy.decide(outside, self._now)

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _is_dark(slot: Document) -> bool:
    """Return whether the guest says that its SMT mode keeps all of a slot offline (``core.planning.smt.dark``)."""
    return slot["state"] == SlotState.OFFLINE and all(thread["parked"] for thread in slot["threads"])


def not_told(support: LoadSupport | None, *, can: bool) -> Reason | None:
    """Return why an agent does not tell the guest's load; None if it does."""
    if support is None:
        text, hint = "the agent is of a version that does not tell the guest's load", "update vcpu-guest in the guest"
        return Reason(codes.LOAD_UNSUPPORTED, Origin.AGENT, text, hint)
    if not support.allowed:
        text = "the guest's administrator does not let the agent tell the load"
        return Reason(codes.LOAD_FORBIDDEN, Origin.GUEST, text, "load = true in the guest's vcpud.conf allows it")
    if not can:
        text = "the guest's kernel does not tell the load: its agent cannot read /proc/stat"
        return Reason(codes.LOAD_UNSUPPORTED, Origin.AGENT, text, "compare vcpud's unit with the package's")
    return None


async def _ended(working: asyncio.Task[None], held: Held) -> None:
    """Have the loop's own operation end, and wait for that, but not for ever."""
    until = asyncio.get_running_loop().time() + _LAST_WORDS
    while not working.done() and (left := until - asyncio.get_running_loop().time()) > 0:
        held.vm.interrupt()
        await asyncio.wait({working}, timeout=min(_AGAIN, left))


def _too_many(cpus: int, possible: int) -> VcpuctlError:
    text = f"the agent tells the load of {cpus} CPUs, and the VM can have {possible}"
    return VcpuctlError(Reason(codes.AGENT_BAD_MESSAGE, Origin.AGENT, text, "update vcpud in the guest"))


async def _scaled(held: Held, goal: int) -> tuple[Outcome, Reason | None]:
    """Have the VM scaled. Return how that ended, and the first reason that there is for it."""
    call = Call(Kind.RUN, Request(Operation.SCALE, goal), autoscaler=True)
    try:
        async with held.operation(call):
            document = await held.answer(call, _nobody_hears)
    except OutcomeLostError as error:
        return Outcome.UNKNOWN, error.reason
    except VcpuctlError as error:
        return Outcome.REFUSED, error.reason
    reasons = [document["reason"], *(slot["reason"] for slot in document["slots"])]
    outcome = Outcome(document["outcome"])
    first = next((reason for reason in reasons if reason is not None), None)
    return outcome, None if first is None or outcome is Outcome.DONE else read_reason(first)


def _nobody_hears(message: Message) -> None:
    del message
