# SPDX-License-Identifier: Apache-2.0
"""One operation in the simulated world, watched by a judge who sees both what was said and what is true."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vcpu_host.core.guest import CpuStatus
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation import record
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.operation.result import OperationResult
from vcpu_host.core.planning.plan import Operation, Plan, Request, StepKind
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Outcome, Reason
from vcpu_host.core.run_states import is_over
from vcpu_host.core.view import VmView, with_pending

from .ground import Sim
from .world import World

UP = (StepKind.PLUG, StepKind.ONLINE)


class Crash(Exception):  # noqa: N818 - it is no error
    """The coordinator dies: what it has asked for goes on without it."""


@dataclass(frozen=True)
class Line:
    """Of a story; made into words only when somebody reads it."""

    when: float
    what: object

    def __str__(self) -> str:
        return f"{self.when:.3f} {_short(self.what)}"


@dataclass
class Trial:
    """Carries out ``request`` in ``world``. AssertionError as soon as a promise is broken.

    ``lives`` is how many step boundaries the coordinator gets past before it dies; None if it does not.
    """

    world: World
    request: Request
    limits: Limits = field(default_factory=Limits)
    lives: int | None = None
    actions: list[ev.Action] = field(default_factory=list)
    story: list[Line] = field(default_factory=list)
    advances: int = 0
    crashed: bool = False

    def run(self) -> OperationResult | None:
        """The result; None if the plan refused or had nothing to do, or the coordinator died on the way."""
        self.plan: Plan = plan(self._view(), self.request)
        try:
            if self.plan.recover:
                patience = min(15.0, self.limits.timeout / 2)
                self._carry_out(Plan(Request(Operation.UNPLUG), self.plan.recover), Limits(timeout=patience))
                self.plan = plan(self._view(), self.request, recovered=True)
            return self._carry_out(self.plan, self.limits) if self.plan.steps else None
        except Crash:
            self.crashed = True
            self._tell("the coordinator dies")
            self.world.hang_up()
            return None

    def _view(self) -> VmView:
        """As an operation begins; what the look settles is struck out of the record."""
        view = self.world.view()
        for _ in range(20):
            if not view.unsettled:
                break
            self.world.pass_by(self.world.now + 0.2)
            view = self.world.view()
        self.world.record = record.settle(self.world.record, view)
        return with_pending(view, self.world.record)

    def _tell(self, what: object) -> None:
        self.story.append(Line(self.world.now, what))

    def _boundary(self) -> None:
        if self.lives is not None:
            if self.lives == 0:
                raise Crash
            self.lives -= 1

    def _carry_out(self, decided: Plan, limits: Limits) -> OperationResult:
        world = self.world
        self._kinds = {step.slot.index: step.kind for step in decided.steps}
        self._session = world.session
        self._offline: set[str] = set()
        self._absent: set[str] = set()
        self._heard: dict[str, float] = {}
        self._heard_of: dict[str, int] = {}
        # When the question was asked whose answer showed a thread offline or absent, and how many looks did in a row.
        self._down_at: dict[str, float] = {}
        self._down_looks: Counter[str] = Counter()
        # When a slot was shown empty: what was asked about the CPU in it before that says nothing of the next one.
        self._gone_at: dict[str, float] = {}
        self._looked_at = -1.0
        self._asked: dict[int, float] = {}
        self._before = {sim.index: (sim.holder, sim.fills, tuple(sim.online)) for sim in world.sims}
        self._began = world.now
        world.was_halted = set() if world.running else {world.halted}
        machine = Machine(
            decided,
            world.platform,
            limits,
            session=world.session,
            now=world.now,
            identities=frozenset(world.names),
        )
        deadline = machine.deadline
        asked: set[int] = set()
        while True:
            moment = world.now
            actions = machine.advance(moment)
            told = {action.slot for action in actions if isinstance(action, (ev.DoPlug, ev.DoUnplug))}
            if told:
                world.record = record.before(world.record, actions, world.host(), world.now)
                asked |= told
                world.elapse(min(world.now + world.recording(), deadline))
            for action in actions:
                self._do(action)
            self.advances += 1
            assert world.now <= deadline + 0.001, "no end at the deadline"
            if machine.finished:
                break
            assert machine.wake_at > moment, f"awake for nothing: {machine.dump()}"
            world.run_until(machine.wake_at)
            if not world.inbox:
                self._feed(machine, ev.Tick())
            while world.inbox:
                self._boundary()
                self._feed(machine, world.inbox.popleft())
        assert self.advances < 40 * (limits.timeout + 1) + 400 * world.total, "busy"
        result = machine.result(world.now)
        self._tell(result)
        for slot in result.slots:
            self._judge(world.sims[slot.slot], slot.outcome)
            self._judge_words(world.sims[slot.slot], slot.reason)
        world.record = record.after(world.record, result, asked, world.host())
        world.hang_up()
        return result

    def _do(self, action: ev.Action) -> None:
        self._boundary()
        self.actions.append(action)
        self._tell(action)
        if isinstance(action, ev.DoUnplug) and action.not_after is not None and self.world.now > action.not_after:
            self.world.inbox.append(ev.UnplugReturned(action.slot, None, sent=False))
            return
        self._allowed(action)
        self.world.do(action)

    def _feed(self, machine: Machine, event: ev.Event) -> None:
        self._tell(event)
        self._hear(event)
        machine.feed(event, self.world.now)
        if isinstance(event, ev.HostLooked) and is_over(event.view.status):
            assert machine.finished, f"waits for a guest that will not go on: {event.view.status}"

    # --- promise 2: what was confirmed, kept apart from the machine's own books ---------------------------------------

    def _hear(self, event: ev.Event) -> None:
        match event:
            case ev.AgentUp():
                self._session = event.session
                self._forget()
            case ev.AgentDown() | ev.VmReset():
                self._session = None
                self._forget()
            case ev.CpuSettled() if event.session == self._session:
                self._hear_answer(event)
            case ev.CpuArrived() if event.session == self._session:
                self._heard[event.cpu.firmware_id] = self.world.now
                self._heard_of.pop(event.cpu.firmware_id, None)
                if event.cpu.online:
                    self._offline.discard(event.cpu.firmware_id)
            case ev.GuestLooked() if event.session == self._session:
                self._hear_list(event)
            case ev.HostLooked():
                self._hear_host(event)
            case _:
                pass

    def _hear_host(self, event: ev.HostLooked) -> None:
        """Where a slot is empty, nothing that was said of its CPU is left."""
        for sim, slot in zip(self.world.sims, event.view.slots, strict=True):
            if not slot.filled and event.asked_at >= sim.plugged_at:
                for name in self.world.platform.firmware_ids(event.view, slot):
                    self._gone_at[name] = self.world.now
                    self._offline.discard(name)
                    self._absent.discard(name)
                    self._down_at.pop(name, None)
                    self._down_looks[name] = 0

    def _hear_answer(self, event: ev.CpuSettled) -> None:
        name, seen = event.result.firmware_id, event.result.observed
        self._heard[name] = self.world.now
        self._heard_of[name] = event.request
        asked_at = self._asked.get(event.request, -1.0)
        if seen is not None and seen.online:
            self._offline.discard(name)
            self._down_looks[name] = 0
        elif asked_at < self._gone_at.get(name, -1.0):
            return
        elif seen is not None and event.result.status in (CpuStatus.DONE, CpuStatus.ALREADY):
            self._offline.add(name)
            self._down(name, asked_at)
            self._looked_at = self.world.now
        elif seen is None and event.result.status is CpuStatus.ABSENT:
            self._absent.add(name)

    def _hear_list(self, event: ev.GuestLooked) -> None:
        shown = {cpu.firmware_id: cpu for cpu in event.view.cpus}
        asked_at = event.asked_at
        since = asked_at if event.request is None else self._asked.get(event.request)
        told = [*self._heard.items(), *self._gone_at.items()]
        newer = {name for name, when in told if since is not None and when > since}
        newer -= {name for name in newer if event.request is not None and self._heard_of.get(name) == event.request}
        self._offline -= {name for name, cpu in shown.items() if cpu.online} - newer
        if set(shown) <= set(self.world.names):
            self._offline |= self._absent - set(shown) - newer
        if asked_at is not None:
            self._looked_at = self.world.now
            for name in self._offline - newer:
                self._down(name, asked_at)
            for name in {name for name, cpu in shown.items() if cpu.online} - newer:
                self._down_looks[name] = 0

    def _down(self, name: str, asked_at: float) -> None:
        self._down_at[name] = asked_at
        self._down_looks[name] += 1

    def _forget(self) -> None:
        self._offline.clear()
        self._absent.clear()
        self._down_at.clear()
        self._down_looks.clear()

    def _allowed(self, action: ev.Action) -> None:
        if isinstance(action, ev.DoUnplug):
            host = self.world.host()
            names = set(self.world.platform.firmware_ids(host, host.slots[action.slot]))
            assert names <= self._offline, f"device_del of {action.slot} without its threads' word"
            assert action.slot in self._kinds
            for name in names:
                self._timely(action.slot, name)
        if isinstance(action, ev.DoSetOnline):
            assert action.firmware_ids
            assert all(action.firmware_ids)
            self._asked[action.request] = self.world.now

    def _timely(self, slot: int, name: str) -> None:
        """What allows a device_del is no word of a while ago, and it was true when it was given."""
        now, asked_at = self.world.now, self._down_at[name]
        slow_guest = self._down_looks[name] >= 3 and now - self._looked_at <= 0.02
        assert now - asked_at <= 0.25 or slow_guest, f"device_del of {slot} on what was true {now - asked_at:.1f} s ago"
        sim, thread = self.world.thread_of(name)
        if sim.present and sim.online[thread] and not sim.lied_about:
            assert sim.lit_at[thread] >= asked_at, f"device_del of {slot}, whose CPU was online all along"

    # --- promises 1 and 3: the verdicts, held against the truth -------------------------------------------------------

    def _judge(self, sim: Sim, outcome: Outcome) -> None:
        kind = self._kinds.get(sim.index)
        if kind is None or self.world.dead:
            return
        self.world.stamp(sim)
        since = max(sim.plugged_at, self._began)
        if outcome is Outcome.DONE:
            self._judge_done(sim, kind, since)
        elif outcome in (Outcome.REFUSED, Outcome.FAILED):
            if sim.touched or sim.lied_about:
                return
            holder, fills, online = self._before[sim.index]
            became = f"slot {sim.index}: {outcome}, yet {holder!r} became {sim.holder!r}"
            # What is undone may have another CPU in it, under our id. What is refused was not touched.
            assert (sim.holder is None) is (holder is None), became
            assert outcome is Outcome.FAILED or (sim.holder, sim.fills) == (holder, fills), became
            assert all(now or not was for was, now in zip(online, sim.online, strict=True)), (
                f"slot {sim.index}: {outcome}, left dark"
            )
            if kind in (StepKind.ONLINE, StepKind.OFFLINE):  # one plugged again may be brought online by its kernel
                assert tuple(sim.online) == online, f"slot {sim.index}: {outcome}, yet {online} became {sim.online}"

    def _judge_words(self, sim: Sim, reason: Reason | None) -> None:
        """Nobody is said not to know a CPU that he has shown, and a VM is paused only if it is."""
        if reason is not None and reason.code == "vm-paused":
            assert self.world.was_halted >= {"paused"}, f"slot {sim.index}: {reason.text}, yet it never was"
        if reason is not None and reason.code == "guest-ignored" and not sim.touched:
            assert sim.noticed_at < sim.plugged_at, f"slot {sim.index}: {reason.text}, yet the guest has shown it"

    def _judge_done(self, sim: Sim, kind: StepKind, since: float) -> None:
        if kind is StepKind.UNPLUG:
            assert sim.empty_at >= since, f"slot {sim.index} is said to be gone and never was"
        elif kind in UP:
            assert sim.holder is not None or sim.touched, f"slot {sim.index} is said to be up and is empty"
            lit = min(sim.lit_at.get(thread, -1.0) for thread in range(len(sim.online)))
            assert lit >= since or sim.lied_about, f"slot {sim.index} is said to be up and never was"
        else:
            dark = min(sim.dark_at.get(thread, -1.0) for thread in range(len(sim.online)))
            assert dark >= since or sim.lied_about, f"slot {sim.index} is said to be down and never was"


def _short(event: object) -> str:
    if isinstance(event, ev.HostLooked):
        return f"HostLooked({[slot.index for slot in event.view.slots if slot.filled]}, asked_at={event.asked_at:.3f})"
    if isinstance(event, ev.GuestLooked):
        cpus = ", ".join(f"{cpu.firmware_id} {'on' if cpu.online else 'off'}line" for cpu in event.view.cpus)
        return f"GuestLooked({event.session}: {cpus})"
    return str(event)


def scale_to(world: World, goal: int) -> OperationResult | None:
    """``scale`` once; None if there was nothing to do."""
    return Trial(world, Request(Operation.SCALE, goal)).run()
