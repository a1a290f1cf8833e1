# SPDX-License-Identifier: Apache-2.0
"""What is known of a device_del, and of the CPU that it is to take away."""

from __future__ import annotations

from types import MappingProxyType

from vcpu_host.core.model import HostThread, Slot
from vcpu_host.core.operation.removal import Removal

EMPTY = Slot(1, "cpu", MappingProxyType({}), 1)
ENDING = Slot(1, "cpu", MappingProxyType({}), 1, leaving=(HostThread(1, 4711, "/cpu"),))


def asked() -> Removal:
    """A device_del on the confirmations of session s, at 1.0."""
    removal = Removal()
    removal.asked("s", 1.0)
    return removal


def test_it_stays_sent_when_qemu_has_answered() -> None:
    removal = asked()
    assert (removal.sent, removal.unanswered, removal.sent_in, removal.last_sign_at) == (True, True, "s", 1.0)
    removal.answered()
    assert (removal.sent, removal.unanswered, removal.sent_in) == (True, False, "s")


def test_what_came_to_nothing_may_be_sent_on_the_same_confirmations_and_was_sent_all_the_same() -> None:
    removal = asked()
    removal.came_to_nothing()
    assert removal.sent
    assert removal.sent_in is None


def test_the_guest_is_awaited_from_the_sending_until_it_is_given_up_or_qemu_shows_the_end() -> None:
    removal = Removal()
    awaited = [removal.awaits_guest]
    removal.asked("s", 1.0)
    awaited.append(removal.awaits_guest)
    removal.shown(ENDING)
    awaited.append(removal.awaits_guest)
    removal.shown(EMPTY)
    awaited.append(removal.awaits_guest)
    removal.came_to_nothing()
    awaited.append(removal.awaits_guest)
    assert awaited == [False, True, False, True, False]


def test_a_sign_of_the_guests_work_puts_the_next_try_off() -> None:
    removal = asked()
    removal.in_progress(3.0)
    assert removal.last_sign_at == 3.0


def test_an_event_says_that_it_is_gone_until_a_look_shows_what_is() -> None:
    removal = asked()
    removal.hinted()
    assert (removal.told_gone, removal.ending) == (True, None)
    removal.shown(ENDING)
    assert (removal.told_gone, removal.ending) == (False, ENDING)
    removal.shown(EMPTY)
    assert (removal.told_gone, removal.ending) == (False, None)


def test_a_cpu_that_comes_back_slips_through_only_when_device_del_was_sent() -> None:
    removal = Removal()
    removal.came_back()
    assert (removal.relapses, removal.slipped) == (1, False)
    removal.asked("s", 1.0)
    removal.came_back()
    assert (removal.relapses, removal.slipped) == (2, True)


def test_for_a_new_goal_nothing_was_sent_but_what_happened_is_not_forgotten() -> None:
    removal = asked()
    removal.hinted()
    removal.came_back()
    removal.turned_round()
    assert (removal.sent, removal.told_gone, removal.sent_in) == (False, False, None)
    assert (removal.unanswered, removal.relapses, removal.slipped) == (True, 1, True)
