# SPDX-License-Identifier: Apache-2.0
"""When the next look at QEMU, or at the guest's list, is due."""

from __future__ import annotations

from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.looks import GuestLook, HostLook

LIMITS = Limits(poll_first=1.0, poll_most=4.0, poll_idle=10.0)


def test_qemu_is_looked_at_now_and_then_although_nothing_hints_at_a_change() -> None:
    look = HostLook(LIMITS, 0.0)
    assert look.next_at == 10.0
    assert not look.due(9.9)
    assert look.due(10.0)
    look.asked(10.0, removing=False)
    look.ended()
    assert look.next_at == 20.0


def test_a_look_that_is_wanted_waits_for_the_one_under_way_and_for_nothing_else() -> None:
    look = HostLook(LIMITS, 0.0)
    look.asked(0.0, removing=False)
    look.want()
    assert look.next_at is None
    assert not look.due(100.0)
    look.ended()
    assert look.due(0.0)
    look.asked(0.0, removing=False)
    look.ended()
    assert not look.due(0.0)


def test_looks_for_a_removal_come_at_growing_intervals_until_it_moves_on() -> None:
    look = HostLook(LIMITS, 0.0)
    times = []
    for _ in range(4):
        look.asked(0.0, removing=True)
        look.ended()
        times.append(look.next_at)
    assert times == [1.0, 2.0, 4.0, 4.0]
    look.follow_removal(0.5)
    assert look.next_at == 1.5
    look.follow_removal(1.0)
    assert look.next_at == 1.5, "a look is never put off"


def test_a_look_for_several_slots_keeps_its_distance_from_the_last_one() -> None:
    look = HostLook(LIMITS, 0.0)
    look.asked(2.0, removing=False)
    look.ended()
    look.follow_others(3.0)
    assert look.next_at == 6.0
    look = HostLook(LIMITS, 0.0)
    look.follow_others(7.0)
    assert look.next_at == 7.0, "what is overdue is due now"


def test_the_guests_list_is_asked_for_once_and_again_only_when_it_is_time() -> None:
    look = GuestLook()
    assert (look.next_at, look.due(5.0)) == (None, False)
    look.want()
    assert look.due(5.0)
    look.asked()
    look.want()
    assert (look.next_at, look.due(5.0)) == (None, False), "one is under way"
    look.again(8.0)
    assert look.next_at == 8.0
    assert not look.due(7.9)
    assert look.due(8.0)
    look.asked()
    look.ended()
    assert not look.due(9.0)
