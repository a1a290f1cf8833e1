# SPDX-License-Identifier: Apache-2.0
"""What holds whatever is heard: samples late, missing, doubled or absurd, guests that boot, commands of others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import settings as few
from hypothesis import strategies as st
from kit.autoscale.guest import Load, SimGuest
from vcpu_host.autoscale.decision import Decision, Direction
from vcpu_host.autoscale.outside import HostRoom, Outside
from vcpu_host.autoscale.policy import Policy
from vcpu_host.autoscale.sample import CpuTimes, LoadSample
from vcpu_host.autoscale.settings import Mode, Settings
from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Outcome, Reason

_ANY = st.one_of(st.floats(-1e6, 1e12), st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300]))
_CPU = st.builds(CpuTimes, st.integers(0, 40), _ANY, _ANY, _ANY, st.one_of(st.none(), _ANY))
#: Whatever a guest may send.
_ABSURD = st.builds(
    LoadSample,
    _ANY,
    st.sampled_from(["one boot", "another"]),
    st.lists(_CPU, max_size=4).map(tuple),
    st.one_of(st.none(), st.integers(-5, 10**9)),
    st.one_of(st.none(), _ANY),
    st.one_of(st.none(), _ANY),
)
_LOAD = st.builds(Load, st.floats(0, 40), st.floats(0, 10), st.sampled_from([0.0, 0.05, 0.3, 0.9]))
#: What happens, and how many seconds pass before it.
_HAPPENS = st.one_of(
    st.tuples(st.just("live"), _LOAD),
    st.tuples(st.just("live"), _LOAD),
    st.tuples(st.just("absurd"), _ABSURD),
    st.tuples(st.just("twice"), st.none()),
    st.tuples(st.just("reboot"), st.none()),
    st.tuples(st.just("backwards"), st.floats(0.1, 1000)),
    st.tuples(st.just("lost"), st.none()),
    st.tuples(st.just("operator"), st.integers(1, 16)),
    st.tuples(st.just("outcome"), st.sampled_from(list(Outcome))),
)
_STORY = st.lists(st.tuples(st.sampled_from([0.25, 1.0, 4.0, 40.0]), _HAPPENS), min_size=5, max_size=40)
_SETTINGS = st.builds(
    lambda low, more, window, turn: Settings(
        max=low + more, min=low, mode=Mode.ACT, down_window=window, turn_pause=turn, boot_grace=0.0, operator_hold=20.0
    ),
    st.integers(1, 4),
    st.integers(0, 8),
    st.sampled_from([5.0, 30.0, 120.0]),
    st.sampled_from([0.0, 10.0]),
)


@dataclass
class Move:
    """A change that was begun at ``at`` and ended a moment later."""

    at: float
    decision: Decision
    outcome: Outcome


class Story:
    """A policy in a world where anything happens. It does what the policy decides, as far as ``outcome`` has it."""

    def __init__(self, settings: Settings, room: int | None) -> None:
        self.settings = settings
        self.policy = Policy(settings)
        self.guest = SimGuest(settings.min)
        self.now = 0.0
        self.room = room
        self.outcome = Outcome.DONE
        self.skew = 0.0
        self.last: LoadSample | None = None
        self.decisions: list[Decision] = []
        self.moves: list[Move] = []

    def happen(self, seconds: float, what: str, value: Any) -> None:
        self.now += seconds
        self.guest.now += seconds
        match what:
            case "live":
                self.guest.now -= seconds
                for _ in range(max(1, min(int(seconds / 0.25), 16))):
                    self.guest.step(value, 0.25)
                self._hear(replace(self.guest.sample(), guest_time=self.guest.now + 3600 - self.skew))
            case "absurd":
                self._hear(value)
            case "twice":
                if self.last is not None:
                    self._hear(self.last)
            case "reboot":
                self.guest = SimGuest(self.guest.vcpus, boot=f"boot {self.now}")
            case "backwards":
                self.skew += value
            case "lost":
                self.policy.lost(Reason(codes.AGENT_LOST, Origin.AGENT, "it is gone"))
            case "operator":
                self.guest.vcpus = value
                self.policy.operated(self.now)
            case "outcome":
                self.outcome = value
        self._decide()

    def _hear(self, sample: LoadSample) -> None:
        self.last = sample
        self.policy.sample(sample, self.now)

    def _decide(self) -> None:
        outside = Outside(self.guest.vcpus, possible=12, room=HostRoom(self.room))
        decision = self.policy.decide(outside, self.now)
        assert decision == self.policy.decide(outside, self.now), "to decide changes nothing"
        self.decisions.append(decision)
        if decision.direction is Direction.HOLD:
            return
        self.policy.begun(decision, self.now)
        self.now += 0.5
        if self.outcome in (Outcome.DONE, Outcome.UNKNOWN):
            self.guest.vcpus = decision.goal
        self.policy.ended(self.outcome, None, self.now)
        self.moves.append(Move(self.now - 0.5, decision, self.outcome))


def _told(settings: Settings, story: list[Any], room: int | None = None) -> Story:
    told = Story(settings, room)
    for seconds, (what, value) in story:
        told.happen(seconds, what, value)
    return told


@given(_SETTINGS, _STORY, st.one_of(st.none(), st.integers(-2, 5)))
def test_no_vm_grows_above_its_maximum_or_the_budget_or_shrinks_below_its_minimum(
    settings: Settings, story: list[Any], room: int | None
) -> None:
    for move in _told(settings, story, room).moves:
        decision = move.decision
        if decision.direction is Direction.DOWN:
            assert decision.goal >= settings.min
        else:
            assert decision.goal <= min(settings.max, 12)
            assert room is None or decision.goal - decision.online <= room


@given(_SETTINGS, _STORY)
def test_no_vm_changes_its_direction_within_its_window(settings: Settings, story: list[Any]) -> None:
    moves = [move for move in _told(settings, story).moves if move.outcome is not Outcome.REFUSED]
    for before, after in pairwise(moves):
        if before.decision.direction is after.decision.direction:
            continue
        up = after.decision.direction is Direction.UP
        assert after.at - (before.at + 0.5) >= (settings.turn_pause if up else settings.down_window) - 1e-6


@given(_SETTINGS, _STORY)
def test_every_decision_says_why_and_a_hold_changes_nothing(settings: Settings, story: list[Any]) -> None:
    known = codes.table()
    for decision in _told(settings, story).decisions:
        assert decision.checks
        assert all(check.code in known and check.text for check in decision.checks)
        if decision.direction is Direction.HOLD:
            assert decision.goal == decision.online


@few(max_examples=50)
@given(
    st.floats(0, 0.99),
    st.floats(0, 1),
    st.integers(1, 8),
    st.integers(20, 100),
    st.booleans(),
    st.floats(0.1, 1),
    st.floats(0, 0.99),
)
def test_no_vm_grows_on_steal_alone(
    used: float, stolen: float, vcpus: int, seconds: int, clock: bool, target: float, limit: float
) -> None:
    """Whatever the host takes, and whatever that makes wait: the guest's own work leaves its CPUs idle."""
    settings = Settings(max=16, min=vcpus, mode=Mode.ACT, boot_grace=0.0, target=target, steal=limit)
    policy = Policy(settings)
    used *= min(target + 0.04, 0.94)
    stolen = min(stolen, 1 - used)
    for second in range(seconds):
        idle, told = (1 - used - stolen) * second, stolen * second * clock
        cpus = tuple(CpuTimes(number, used * second, told, 0.0, 10 * stolen * second, idle) for number in range(vcpus))
        policy.sample(LoadSample(100.0 + second, "boot", cpus, None, stolen * second, 0.0), float(second))
        assert policy.decide(Outside(vcpus, 16), float(second)).direction is Direction.HOLD


@few(max_examples=200)
@given(st.floats(0, 0.94), st.floats(0, 1), st.integers(2, 8))
@example(0.435, 0.0, 2)
def test_no_vm_shrinks_to_where_its_load_fills_it(used: float, stolen: float, vcpus: int) -> None:
    """``used`` and ``stolen`` are shares of the time of each vCPU."""
    settings = Settings(max=16, mode=Mode.ACT, boot_grace=0.0, down_window=10.0)
    policy, stolen = Policy(settings), min(stolen, 1 - used)
    for second in range(15):
        times = (used * second, stolen * second, 0.0, 0.0, (1 - used - stolen) * second)
        cpus = tuple(CpuTimes(number, *times) for number in range(vcpus))
        policy.sample(LoadSample(100.0 + second, "boot", cpus, None, 0.0, 0.0), float(second))
    goal = policy.decide(Outside(vcpus, 16), 14.0).goal
    if goal < vcpus:
        assert used * vcpus < 0.85 * goal + 1e-6
        assert (used + stolen) * vcpus < 0.95 * goal + 1e-6


@few(max_examples=40)
@given(st.floats(0, 12), st.integers(1, 8), st.booleans())
def test_a_steady_load_comes_to_rest(amount: float, vcpus: int, requests: bool) -> None:
    settings = Settings(max=8, mode=Mode.ACT, boot_grace=0.0, down_window=30.0, down_pause=5.0)
    policy, guest, changed = Policy(settings), SimGuest(vcpus), 0.0
    load = Load(work=min(amount, 6.0)) if requests else Load(threads=amount)
    while guest.now < 800:
        guest.step(load, 1.0)
        policy.sample(guest.sample(), guest.now)
        decision = policy.decide(Outside(guest.vcpus, 8), guest.now)
        if decision.direction is not Direction.HOLD:
            policy.begun(decision, guest.now)
            guest.vcpus, changed = decision.goal, guest.now
            policy.ended(Outcome.DONE, None, guest.now)
    assert guest.now - changed > 200, (guest.vcpus, changed)
    assert guest.vcpus >= min(8, math.floor(load.threads or load.work))
    # Not more than the target's idle share above the need, and one for the rest.
    assert guest.vcpus <= max(1, math.ceil((load.threads or load.work) / settings.target) + 1)
