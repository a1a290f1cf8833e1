# SPDX-License-Identifier: Apache-2.0
"""Every event at every point, sensible or not: no wrong success, no forbidden action, no dead end.

Nobody plays the VM here: hypothesis says whatever it likes. The model keeps its own books of what was proven, and only
that may be acted upon or reported.
"""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kit.sim.views import INFO, guest, host
from vcpu_host.core.guest import CpuResult, CpuStatus, GuestCpu, GuestView
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.planning.plan import Operation, Request, StepKind
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import join

_TOTAL = 4
_SLOTS = st.integers(0, _TOTAL - 1)
_REASON = Reason("no", Origin.GUEST, "no")
_ERRORS = st.sampled_from((None, None, _REASON))
_OST = st.builds(Ost, st.sampled_from((1, 3, 0x103)), st.sampled_from((0, 1, 0x80, 0x82, 0x84)))


class Model(RuleBasedStateMachine):
    """One operation, and what has been proven in it."""

    @initialize(
        operation=st.sampled_from(list(Operation)),
        online=st.sets(_SLOTS),
        offline=st.sets(_SLOTS),
        threads=st.sampled_from((1, 2)),
        atomic=st.booleans(),
        data=st.data(),
    )
    def begin(
        self, operation: Operation, online: set[int], offline: set[int], threads: int, atomic: bool, data: st.DataObject
    ) -> None:
        online = online | {0}
        view = host(_TOTAL, online | offline, threads=threads)
        shown = join(view, guest(view, online, offline - online), agent=INFO)
        if operation is Operation.SCALE:
            request = Request(operation, data.draw(st.integers(1, _TOTAL)) * threads, atomic=atomic)
        else:
            slots = data.draw(st.sets(_SLOTS, min_size=1))
            request = Request(operation, None, tuple(map(str, sorted(slots))), atomic=atomic)
        self.plan = plan(shown, request)
        self.threads = threads
        self.platform = shown.platform
        self.names = {index: self.platform.firmware_ids(view, view.slots[index]) for index in range(_TOTAL)}
        self.kinds = {step.slot.index: step.kind for step in self.plan.steps}
        self.session: str | None = "s0"
        self.sessions = 0
        self.now = 100.0
        self.requests: dict[int, float] = {}  # when each was sent
        self.looking_since: float | None = None
        self.offline_looks: Counter[str] = Counter()  # how often in a row
        self.looked_at = -1.0
        self.heard_at: dict[str, float] = {}
        self.offline_at: dict[str, float] = {}  # when the question was asked that showed it offline
        self.lit: dict[str, bool] = {}  # what was last read back in this session
        self.confirmed: set[str] = set()  # offline, by reading back, in this session
        self.missing: set[str] = set()  # the agent says that there is no such CPU
        self.adding: set[int] = set()
        self.deleting: set[int] = set()
        self.seen_filled: set[int] = set()  # by a look that was asked for after the plug
        self.seen_empty: set[int] = set()
        self.looks = [self.now]
        self.machine = Machine(
            self.plan, self.platform, Limits(timeout=30.0), session="s0", now=self.now, identities=shown.identities
        )
        self.done: dict[int, Outcome] = {}
        self._advance()

    # -- what the machine asks for ---------------------------------------------------------------------------------

    def _feed(self, event: ev.Event) -> None:
        self.machine.feed(event, self.now)
        self._advance()

    def _advance(self) -> None:
        self.sound = False
        finished = self.machine.finished
        actions = self.machine.advance(self.now)
        # What came about may have to be taken back when the last slot fails.
        assert not (finished and actions) or self.plan.request.atomic, "it acts after its end"
        for action in actions:
            self._allowed(action)
        json.dumps(self.machine.dump())
        self.sound = True

    def _allowed(self, action: ev.Action) -> None:
        match action:
            case ev.DoUnplug():
                assert action.slot in self.kinds
                assert action.slot not in self.deleting, "asked for again before it was answered"
                assert set(self.names[action.slot]) <= self.confirmed, f"device_del of {action.slot} without its word"
                ages = [self.now - self.offline_at.get(name, -1000.0) for name in self.names[action.slot]]
                shown = min(self.offline_looks.get(name, 0) for name in self.names[action.slot])
                assert max(ages) <= Limits().look_fresh or (shown >= 3 and self.now - self.looked_at <= 0.02), (
                    f"device_del of {action.slot} on what was true {max(ages)} s ago"
                )
                self.deleting.add(action.slot)
            case ev.DoPlug():
                assert action.slot in self.kinds
                assert action.slot not in self.adding, "plugged again before it was answered"
                self.adding.add(action.slot)
                self.seen_filled.discard(action.slot)
            case ev.DoSetOnline():
                assert self.session is not None, "nobody is there to ask"
                assert {name for index in self.kinds for name in self.names[index]} >= set(action.firmware_ids)
                self.requests[action.request] = self.now
            case ev.DoLookHost():
                self.looks.append(self.now)
            case ev.DoLookGuest():
                assert self.session is not None, "nobody is there to ask"
                assert self.looking_since is None, "asked twice at once"
                self.looking_since = self.now
            case ev.DoDial():
                assert self.session is None, "a second session"

    # -- what may happen ---------------------------------------------------------------------------------------------

    def _void(self) -> None:
        self.session = None
        self.requests.clear()
        self.lit.clear()
        self.confirmed.clear()
        self.missing.clear()
        self.offline_at.clear()
        self.offline_looks.clear()
        self.looking_since = None

    def _observed(self, cpu: GuestCpu) -> None:
        self.lit[cpu.firmware_id] = cpu.online
        if cpu.online:
            self.confirmed.discard(cpu.firmware_id)
            self.offline_at.pop(cpu.firmware_id, None)
            del self.offline_looks[cpu.firmware_id]

    def _cpu(self, index: int, thread: int, *, online: bool) -> GuestCpu:
        number = index * self.threads + thread % self.threads
        return GuestCpu(number, self.names[index][thread % self.threads], online)

    @rule(filled=st.sets(_SLOTS), status=st.sampled_from(("running", "running", "paused")), which=st.integers(0, 3))
    def look_is_answered(self, filled: set[int], status: str, which: int) -> None:
        asked = self.looks[max(0, len(self.looks) - 1 - which)]
        for index in range(_TOTAL):
            if index in self.adding:
                continue
            if index in filled:
                self.seen_filled.add(index)
            else:
                self.seen_filled.discard(index)
                self.seen_empty.add(index)
        self._feed(ev.HostLooked(host(_TOTAL, filled, threads=self.threads, status=status), asked))

    @rule(index=_SLOTS, error=_ERRORS)
    def plug_is_answered(self, index: int, error: Reason | None) -> None:
        if index in self.adding:
            self.adding.discard(index)
            self._feed(ev.PlugReturned(index, error))

    @rule(index=_SLOTS, error=st.sampled_from((None, _REASON, Reason("device-not-found", Origin.QEMU, "x"))))
    def removal_is_answered(self, index: int, error: Reason | None) -> None:
        if index in self.deleting:
            self.deleting.discard(index)
            self._feed(ev.UnplugReturned(index, error))

    @rule(
        index=_SLOTS,
        thread=st.integers(0, 1),
        status=st.sampled_from(list(CpuStatus)),
        online=st.sampled_from((None, True, False)),
        number=st.integers(1, 6),
        fresh=st.booleans(),
    )
    def cpu_is_settled(
        self, index: int, thread: int, status: CpuStatus, online: bool | None, number: int, fresh: bool
    ) -> None:
        session = self.session if fresh and self.session else "another"
        observed = None if online is None else self._cpu(index, thread, online=online)
        name = self.names[index][thread % self.threads]
        if session == self.session:
            self.heard_at[name] = self.now
        if session == self.session and number in self.requests:
            if observed is not None:
                self._observed(observed)
                if not observed.online and status in (CpuStatus.DONE, CpuStatus.ALREADY):
                    self.confirmed.add(name)
                    self.offline_at[name] = self.requests[number]
                    self.offline_looks[name] += 1
                    self.looked_at = self.now
            elif status is CpuStatus.ABSENT:
                self.missing.add(name)
        reason = _REASON if status is CpuStatus.REFUSED else None
        self._feed(ev.CpuSettled(session, number, CpuResult(name, status, reason, observed, 0.1)))

    @rule(
        cpus=st.dictionaries(st.tuples(_SLOTS, st.integers(0, 1)), st.booleans()),
        nameless=st.sampled_from((None, None, "", "acpi:of-no-slot")),
        answers=st.booleans(),
    )
    def snapshot_comes(self, cpus: dict[tuple[int, int], bool], nameless: str | None, answers: bool) -> None:
        if self.session is None or (answers and self.looking_since is None):
            return
        asked_at = self.looking_since if answers else None
        shown = {cpu.firmware_id: cpu for cpu in (self._cpu(i, t, online=lit) for (i, t), lit in sorted(cpus.items()))}
        if nameless is not None:
            shown[nameless] = GuestCpu(99, nameless, True)
        # What was heard of a CPU since the list was asked for is newer than the list.
        older = {name for name, heard in self.heard_at.items() if asked_at is not None and heard > asked_at}
        for cpu in shown.values():
            if cpu.firmware_id not in older:
                self._observed(cpu)
        if nameless is None:
            self.confirmed |= self.missing - set(shown) - older
            self.lit = {name: lit for name, lit in self.lit.items() if name in shown or name in older}
        if asked_at is not None:
            self.looking_since = None
            off = {name for name in self.confirmed if name in shown or nameless is None}
            self.offline_at.update(dict.fromkeys(off - older, asked_at))
            self.offline_looks.update(off - older)
            self.looked_at = self.now
        self._feed(ev.GuestLooked(self.session, GuestView(1, "b", "i", tuple(shown.values())), asked_at))

    @rule()
    def look_at_the_guest_fails(self) -> None:
        if self.session is not None and self.looking_since is not None:
            self.looking_since = None
            self._feed(ev.GuestLookFailed(self.session, _REASON))

    @rule(index=_SLOTS, thread=st.integers(0, 1), online=st.booleans())
    def cpu_arrives(self, index: int, thread: int, online: bool) -> None:
        if self.session is not None:
            cpu = self._cpu(index, thread, online=online)
            self._observed(cpu)
            self.heard_at[cpu.firmware_id] = self.now
            self._feed(ev.CpuArrived(self.session, cpu))

    @rule(number=st.integers(1, 6), error=st.sampled_from((None, _REASON, Reason("agent-rejected", Origin.AGENT, "x"))))
    def request_ends(self, number: int, error: Reason | None) -> None:
        if self.session is not None and number in self.requests:
            del self.requests[number]
            self._feed(ev.RequestEnded(self.session, number, error))

    @rule()
    def session_is_lost(self) -> None:
        self._void()
        self._feed(ev.AgentDown(Reason("agent-lost", Origin.AGENT, "x")))

    @rule()
    def session_is_made(self) -> None:
        self._void()
        self.sessions += 1
        self.session = f"s{self.sessions}"
        self._feed(ev.AgentUp(self.session, INFO))

    @rule()
    def guest_restarts(self) -> None:
        self._void()
        self._feed(ev.VmReset())

    @rule(index=_SLOTS, ost=_OST)
    def firmware_speaks(self, index: int, ost: Ost) -> None:
        self._feed(ev.OstReported(index, ost))

    @rule(index=_SLOTS, refused=st.booleans())
    def device_goes_or_stays(self, index: int, refused: bool) -> None:
        self._feed(ev.UnplugRefused(index) if refused else ev.DeviceDeleted(index))

    @rule(status=st.sampled_from(("stopped", "running")))
    def vm_stops_or_goes_on(self, status: str) -> None:
        self._feed(ev.VmStatus(status))

    @precondition(lambda self: self.now > 104.0)
    @rule(event=st.sampled_from((ev.Interrupted(), ev.VmStatus("shutdown"), ev.QemuGone(_REASON))))
    def all_is_over(self, event: ev.Event) -> None:
        self._feed(event)

    @rule(seconds=st.sampled_from((0.0, 0.01, 0.3, 2.0, 16.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self._feed(ev.Tick())

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def successes_are_proven(self) -> None:
        if not hasattr(self, "machine"):
            return
        for slot in self.machine.result(self.now).slots:
            if slot.slot not in self.kinds or self.done.get(slot.slot) == slot.outcome:
                continue
            self.done[slot.slot] = slot.outcome
            if slot.outcome is not Outcome.DONE:
                continue
            names = self.names[slot.slot]
            match self.kinds[slot.slot]:
                case StepKind.PLUG | StepKind.ONLINE:
                    assert slot.slot in self.seen_filled or self.kinds[slot.slot] is StepKind.ONLINE, (
                        "QEMU was not asked"
                    )
                    assert all(self.lit.get(name) for name in names), f"{names} are not all online: {self.lit}"
                case StepKind.OFFLINE:
                    assert set(names) <= self.confirmed
                case StepKind.UNPLUG:
                    assert slot.slot in self.seen_empty

    @invariant()
    def it_ends_in_time(self) -> None:
        if hasattr(self, "machine"):
            assert self.machine.finished or self.now < self.machine.deadline
            assert self.machine.finished or self.machine.wake_at <= self.machine.deadline

    def teardown(self) -> None:
        if getattr(self, "sound", False):
            self.now = max(self.now, self.machine.deadline)
            self._advance()
            assert self.machine.finished, self.machine.dump()


TestModel = Model.TestCase
TestModel.settings = settings(derandomize=True, deadline=None, max_examples=400, stateful_step_count=40)
