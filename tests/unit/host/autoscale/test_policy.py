# SPDX-License-Identifier: Apache-2.0
"""What the policy decides, one situation at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from kit.autoscale.guest import Load, SimGuest
from vcpu_host.autoscale.decision import Decision, Direction
from vcpu_host.autoscale.outside import HostRoom, Outside
from vcpu_host.autoscale.policy import STALE, Policy
from vcpu_host.autoscale.sample import CpuTimes, LoadSample
from vcpu_host.autoscale.settings import Mode, Schedule, Settings, WallTime
from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Outcome, Reason

SETTINGS = Settings(max=8, mode=Mode.ACT, boot_grace=0.0)


class Rig:
    """A policy and a guest that it watches; ``live`` does what it decides."""

    def __init__(
        self, settings: Settings = SETTINGS, vcpus: int = 1, *, steal_clock: bool = True, **outside: object
    ) -> None:
        self.settings = settings
        self.policy = Policy(settings)
        self.guest = SimGuest(vcpus, steal_clock)
        self.outside = {"possible": 16, **outside}
        self.seen: list[Decision] = []

    def decide(self) -> Decision:
        return self.policy.decide(Outside(online=self.guest.vcpus, **self.outside), self.guest.now)  # type: ignore[arg-type]

    def watch(self, load: Load, seconds: float) -> Decision:
        """Let so much time pass under a load, and carry nothing out."""
        until = self.guest.now + seconds
        while self.guest.now < until:
            self.guest.step(load, 0.25)
            self.policy.sample(self.guest.sample(), self.guest.now)
            self.seen.append(self.decide())
        return self.seen[-1]

    def live(self, load: Load, seconds: float) -> Decision:
        """Let so much time pass under a load, and carry out what is decided."""
        until = self.guest.now + seconds
        while self.guest.now < until:
            decision = self.watch(load, 0.25)
            if decision.direction is not Direction.HOLD:
                self.policy.begun(decision, self.guest.now)
                self.guest.vcpus = decision.goal
                self.policy.ended(Outcome.DONE, None, self.guest.now)
        return self.seen[-1]

    def moves(self) -> list[Decision]:
        return [decision for decision in self.seen if decision.direction is not Direction.HOLD]


def test_four_busy_processes_on_one_vcpu_take_it_to_four_at_once_and_no_further() -> None:
    rig = Rig()
    rig.live(Load(), 10)
    rig.live(Load(threads=4), 60)
    assert [(move.online, move.goal) for move in rig.moves()] == [(1, 4)]
    assert rig.moves()[0].at <= 10 + SETTINGS.up_window + 0.5
    assert rig.decide().code == codes.NOBODY_WAITS


def test_a_moments_load_is_none() -> None:
    rig = Rig()
    rig.live(Load(), 10)
    rig.live(Load(threads=4), 1)
    rig.live(Load(), 10)
    assert rig.moves() == []


def test_a_vm_shrinks_to_what_was_needed_at_most_and_not_before_the_window_is_over() -> None:
    rig = Rig()
    rig.live(Load(threads=6), 30)
    assert rig.guest.vcpus == 6
    grew = rig.moves()[-1].at
    rig.live(Load(threads=1), 2 * SETTINGS.down_window)
    shrank = rig.moves()[-1]
    assert (shrank.direction, shrank.code) == (Direction.DOWN, codes.LOAD_NEEDS_LESS)
    assert shrank.at - grew >= SETTINGS.down_window
    assert rig.guest.vcpus in (1, 2)


def test_a_busy_vm_in_which_nobody_waits_does_not_grow() -> None:
    assert Rig().watch(Load(threads=1), 30).code == codes.NOBODY_WAITS


def test_tasks_that_wait_beside_idle_cpus_are_held_back_by_something_else() -> None:
    rig = Rig()
    rig.watch(Load(threads=0.5), 1)
    guest = rig.guest
    for _ in range(40):
        guest.step(Load(threads=0.5), 0.25)
        guest._pressure += 0.2  # a quota: tasks wait, and no CPU is busy
        rig.policy.sample(guest.sample(), guest.now)
    assert rig.decide().code == codes.WAITS_NOT_BUSY


@pytest.mark.parametrize("clock", [True, False], ids=["steal-clock", "no-steal-clock"])
def test_a_guest_whose_host_is_short_does_not_grow_and_says_so(clock: bool) -> None:
    rig = Rig(steal_clock=clock)
    decision = rig.watch(Load(threads=4, stolen=0.3), 30)
    assert decision.code == codes.HOST_SHORT
    assert decision.wanted == 4
    assert decision.load is not None
    assert decision.load.steal == pytest.approx(0.3)


@pytest.mark.parametrize("clock", [True, False], ids=["steal-clock", "no-steal-clock"])
def test_a_guest_does_not_shrink_because_its_host_takes_its_time_away(clock: bool) -> None:
    rig = Rig(vcpus=4, steal_clock=clock)
    rig.live(Load(threads=4, stolen=0.6), 3 * SETTINGS.down_window)
    assert rig.moves() == []


@pytest.mark.parametrize(
    ("vcpus", "work", "stolen", "limit"),
    [
        (1, 0.80, 0.09, 0.1),
        (2, 1.575, 0.09, 0.1),
        (2, 1.12, 0.4, 0.5),
        (3, 1.6, 0.45, 1.0),
        (1, 0.62, 0.35, 1.0),
        (4, 2.25, 0.4, 1.0),
        (1, 0.84, 0.12, 0.2),
        (1, 0.87, 0, 0.1),
    ],
)
def test_steady_steal_makes_no_vm_swing(vcpus: int, work: float, stolen: float, limit: float) -> None:
    rig = Rig(replace(SETTINGS, steal=limit), vcpus)
    rig.live(Load(work=work, stolen=stolen), 400)  # it comes to rest
    found = len(rig.moves())
    rig.live(Load(work=work, stolen=stolen), 1200)
    assert [(move.at, move.online, move.goal) for move in rig.moves()[found:]] == []


def test_steal_fills_no_cpu_that_has_idle_time_left() -> None:
    rig = Rig(vcpus=4)
    for second in range(30):
        cpus = tuple(CpuTimes(n, 0.775 * second, 0.09 * second, 0.0, second, 0.135 * second) for n in range(4))
        rig.policy.sample(LoadSample(100.0 + second, "boot", cpus, None, 0.3 * second, 0.0), float(second))
        rig.guest.now = float(second)
    assert rig.decide().code == codes.WAITS_NOT_BUSY


@pytest.mark.parametrize("clock", [True, False], ids=["steal-clock", "no-steal-clock"])
def test_who_lets_the_host_be_short_gets_what_the_load_takes(clock: bool) -> None:
    rig = Rig(replace(SETTINGS, steal=1.0), steal_clock=clock)
    rig.live(Load(threads=4, stolen=0.6), 60)
    assert rig.guest.vcpus == 4


def test_the_maximum_bounds_what_is_wanted_and_holds_when_it_is_reached() -> None:
    rig = Rig(replace(SETTINGS, max=3))
    rig.live(Load(threads=4), 10)
    assert rig.guest.vcpus == 3
    assert rig.moves()[0].checks[0].code == codes.AT_MAXIMUM
    assert rig.decide().code == codes.AT_MAXIMUM


def test_a_vm_never_gets_more_than_it_can_ever_have() -> None:
    rig = Rig(possible=2)
    rig.live(Load(threads=4), 10)
    assert rig.guest.vcpus == 2


def test_the_hosts_budget_bounds_what_a_vm_gets() -> None:
    rig = Rig(room=HostRoom(vcpus=2))
    assert rig.watch(Load(threads=4), 10).goal == 3
    rig = Rig(room=HostRoom(vcpus=0))
    assert rig.watch(Load(threads=4), 10).code == codes.OVER_BUDGET


def test_nothing_grows_while_the_hosts_own_tasks_wait() -> None:
    assert Rig(room=HostRoom(pressure=0.9)).watch(Load(threads=4), 10).code == codes.HOST_PRESSED


def test_a_slot_of_several_vcpus_comes_and_goes_whole() -> None:
    rig = Rig(vcpus=2, step=2)
    assert rig.watch(Load(threads=5), 10).goal == 6
    rig = Rig(replace(SETTINGS, max=7), vcpus=2, step=2)
    assert rig.watch(Load(threads=8), 10).goal == 6
    rig = Rig(vcpus=8, step=4)
    assert rig.watch(Load(threads=2), 200).goal == 4


def test_a_guest_that_has_just_booted_is_left_to_it() -> None:
    rig = Rig(replace(SETTINGS, boot_grace=3660.0))
    assert rig.watch(Load(threads=4), 30).code == codes.JUST_BOOTED
    assert rig.watch(Load(threads=4), 60).goal == 4


def test_minimum_and_schedule_hold_without_any_load() -> None:
    rig = Rig(replace(SETTINGS, min=2))
    assert (rig.decide().goal, rig.decide().code) == (2, codes.BELOW_MINIMUM)
    office = Schedule(frozenset({0}), 480, 1080, 4)
    rig = Rig(replace(SETTINGS, schedules=(office,)), clock=WallTime(0, 600))
    assert rig.decide().goal == 4
    rig = Rig(replace(SETTINGS, schedules=(office,)), clock=WallTime(0, 1100))
    assert rig.decide().code == codes.NO_LOAD


def test_what_is_above_the_maximum_is_brought_down() -> None:
    assert Rig(replace(SETTINGS, max=2), vcpus=4).decide().goal == 2


def test_load_of_long_ago_decides_nothing() -> None:
    rig = Rig()
    rig.watch(Load(threads=4), 1)
    rig.guest.now += STALE + 2
    assert rig.decide().code in (codes.LOAD_STALE, codes.NO_LOAD)


def test_why_no_load_is_heard_is_told() -> None:
    rig = Rig()
    rig.watch(Load(threads=4), 10)
    rig.policy.lost(Reason(codes.LOAD_FORBIDDEN, Origin.GUEST, "the administrator forbids it"))
    assert rig.decide().code == codes.LOAD_FORBIDDEN
    assert rig.watch(Load(threads=4), 10).goal == 4


def test_after_a_refusal_the_next_attempt_waits_longer_each_time_and_tells_why() -> None:
    rig = Rig()
    why = Reason(codes.NO_MEMORY, Origin.GUEST, "the guest has no memory for it")
    waits = []
    for _ in range(3):
        while (decision := rig.watch(Load(threads=4), 0.25)).direction is Direction.HOLD:
            assert rig.guest.now < 200
        waits.append(rig.guest.now)
        rig.policy.begun(decision, rig.guest.now)
        rig.policy.ended(Outcome.REFUSED, why, rig.guest.now)
        held = rig.watch(Load(threads=4), 0.25)
        assert held.code == codes.BACKS_OFF
        assert "no memory" in held.text
    assert 5 <= waits[1] - waits[0] < 7
    assert 10 <= waits[2] - waits[1] < 12


def test_a_success_ends_the_back_off() -> None:
    rig = Rig()
    rig.watch(Load(threads=4), 10)
    rig.policy.begun(rig.decide(), rig.guest.now)
    rig.policy.ended(Outcome.PARTIAL, None, rig.guest.now)
    rig.live(Load(threads=4), 30)
    assert rig.guest.vcpus == 4


def test_after_unknown_nothing_is_done_until_the_vm_has_settled() -> None:
    rig = Rig()
    rig.watch(Load(threads=4), 10)
    rig.policy.begun(rig.decide(), rig.guest.now)
    assert rig.decide().code == codes.UNDER_WAY
    rig.policy.ended(Outcome.UNKNOWN, None, rig.guest.now)
    rig.outside["leaving"] = True
    assert rig.watch(Load(threads=4), 60).code == codes.PENDING
    rig.outside["leaving"] = False
    assert rig.watch(Load(threads=4), 1).goal == 4


def test_an_unknown_plug_is_taken_up_again_after_longer_each_time() -> None:
    rig = Rig()
    rig.watch(Load(threads=4), 10)
    waits = []
    for _ in range(3):
        rig.policy.begun(rig.decide(), rig.guest.now)
        rig.policy.ended(Outcome.UNKNOWN, None, rig.guest.now)
        began = rig.guest.now
        while rig.watch(Load(threads=4), 0.25).direction is Direction.HOLD:
            assert rig.guest.now < began + 100
        waits.append(rig.guest.now - began)
    assert waits == sorted(waits)
    assert waits[0] >= 10
    assert waits[2] >= 20


def test_a_vm_shrinks_to_what_can_be_unplugged_and_is_left_there() -> None:
    rig = Rig(replace(SETTINGS, down_window=5.0, down_pause=0.0), vcpus=6, fixed=4)
    rig.live(Load(), 30)
    assert [(move.online, move.goal) for move in rig.moves()] == [(6, 4)]
    held = rig.decide()
    assert held.code == codes.AT_MINIMUM
    assert "can be unplugged" in held.text


def test_a_vm_with_more_than_its_maximum_that_cannot_go_is_left_with_these() -> None:
    rig = Rig(replace(SETTINGS, max=2), vcpus=6, fixed=4)
    assert rig.decide().goal == 4
    rig.guest.vcpus = 4
    assert rig.watch(Load(threads=6), 20).direction is Direction.HOLD


def test_under_a_budget_nothing_grows_before_all_vms_were_looked_at() -> None:
    rig = Rig(room=HostRoom(8, unseen=2))
    held = rig.watch(Load(threads=4), 10)
    assert held.code == codes.OVER_BUDGET
    assert "2 VMs" in held.text
    rig.outside["room"] = HostRoom(8)
    assert rig.watch(Load(threads=4), 1).goal == 4


def test_other_settings_count_at_once_and_what_was_done_stays_known() -> None:
    rig = Rig()
    rig.watch(Load(threads=8), 10)
    rig.policy.operated(rig.guest.now)
    rig.policy.reconfigure(replace(SETTINGS, max=3))
    assert rig.decide().code == codes.OPERATOR_HOLDS
    rig.policy.switch(on=True)
    assert rig.decide().goal == 3


def test_an_unknown_end_that_left_no_record_settles_after_a_while() -> None:
    rig = Rig()
    rig.watch(Load(threads=4), 10)
    rig.policy.begun(rig.decide(), rig.guest.now)
    rig.policy.ended(Outcome.UNKNOWN, None, rig.guest.now)
    assert rig.watch(Load(threads=4), 1).code == codes.OUTCOME_UNKNOWN
    assert rig.watch(Load(threads=4), 15).goal == 4


def test_an_operators_own_command_wins_for_a_while_that_is_told() -> None:
    rig = Rig()
    rig.watch(Load(threads=4), 10)
    rig.policy.operated(rig.guest.now)
    held = rig.watch(Load(threads=4), 30)
    assert held.code == codes.OPERATOR_HOLDS
    assert "570 s" in held.text
    rig.policy.switch(on=True)
    assert rig.watch(Load(threads=4), 1).goal == 4


def test_it_can_be_switched_off_and_on() -> None:
    rig = Rig()
    rig.policy.switch(on=False)
    assert rig.watch(Load(threads=4), 10).code == codes.AUTOSCALE_OFF
    rig.policy.switch(on=True)
    assert rig.watch(Load(threads=4), 1).goal == 4


def test_why_the_vm_cannot_be_asked_is_told() -> None:
    trouble = Reason(codes.QEMU_GONE, Origin.QEMU, "QEMU has ended")
    assert Rig(trouble=trouble).watch(Load(threads=4), 10).code == codes.QEMU_GONE


def test_a_level_that_was_not_enough_is_not_tried_again_for_longer_each_time() -> None:
    settings = replace(SETTINGS, down_window=30.0)
    rig = Rig(settings)
    downs = []
    for _ in range(4):
        rig.live(Load(threads=3), 20)  # as soon as it has shrunk, the load comes back
        while rig.guest.vcpus > 1:
            rig.live(Load(threads=0.5), 1)
            assert rig.guest.now < 3600
        downs.append(rig.guest.now)
    gaps = [after - before for before, after in pairwise(downs)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > gaps[0]
    assert any(codes.REGRETTED in (check.code for check in decision.checks) for decision in rig.seen)


def test_a_vm_that_turns_too_often_stays_up() -> None:
    settings = replace(SETTINGS, down_window=1.0, down_pause=0.0, turn_pause=0.0, up_pause=0.0, up_window=0.5)
    rig = Rig(settings)
    for _ in range(60):
        rig.live(Load(threads=4), 3)
        rig.policy._moves.bar = None  # as if no level had been regretted
        rig.live(Load(), 3)
    assert rig.watch(Load(), 5).code == codes.OSCILLATES
    assert rig.guest.vcpus > 1


def test_a_decision_tells_what_it_was_made_from() -> None:
    decision = Rig().watch(Load(threads=4), 10)
    document = decision.to_json(decision.at + 3)
    assert document["age"] == 3
    assert (document["direction"], document["online"], document["goal"]) == ("up", 1, 4)
    assert document["load"]["used"] == 1.0
    assert document["need"] == 4
    assert document["checks"][-1] == {"code": "load-needs-more", "verdict": "passes", "text": document["text"]}
