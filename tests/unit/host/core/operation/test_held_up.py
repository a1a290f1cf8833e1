# SPDX-License-Identifier: Apache-2.0
"""What is held up between the guest's word that allows a device_del and QEMU, which is to get it."""

from __future__ import annotations

from kit.sim.step import requests, taken_out, unplug
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.reason import Origin, Outcome, Reason


def test_a_device_del_may_be_sent_only_while_the_guests_word_is_fresh() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    (sent,) = step.of(ev.DoUnplug)
    assert isinstance(sent, ev.DoUnplug)
    assert sent.not_after == step.now + Limits().look_fresh


def test_a_device_del_that_was_held_up_goes_out_when_the_guest_has_shown_the_cpu_offline_anew() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None, sent=False), after=3.0)
    assert not step.of(ev.DoUnplug)
    step.listed(step.cpu(1, online=False))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


def test_a_cpu_that_came_online_while_its_device_del_was_held_up_is_taken_offline_again() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None, sent=False), after=3.0)
    step.listed(step.cpu(1, online=True))
    assert not step.of(ev.DoUnplug)
    (again,) = requests(step)
    assert (again.online, again.for_eject) == (False, True)
    step.tell(step.settled(1, "done", online=False, request=again.request))
    step.tell(ev.UnplugReturned(1, None), step.looked(0))
    assert (step.slot.outcome, step.slot.reason) == (Outcome.DONE, None), "nothing slipped"


def test_what_was_held_up_to_the_end_is_not_told_as_a_removal_under_way() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None, sent=False), after=3.0)
    step.tell(after=Limits().timeout)
    assert step.over()
    assert step.slot.reason is not None
    assert step.slot.reason.code != "removal-pending"


def test_a_refusal_of_the_second_request_says_nothing_of_the_first_which_qemu_has_taken() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None))
    step.listed(step.cpu(1, online=False))
    step.tell(step.looked(0, 1), after=Limits().eject_again)
    step.listed(step.cpu(1, online=False))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]
    step.tell(ev.UnplugReturned(1, Reason("qemu-refused", Origin.QEMU, "not now")))
    assert not step.of(ev.DoSetOnline), "it may go yet"
    step.tell(step.looked(0))
    assert step.slot.outcome is Outcome.DONE


def test_what_qemu_has_taken_was_of_the_cpu_that_is_out_and_not_of_the_next_one() -> None:
    step, up = taken_out()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=Limits().arrival_grace)
    step.listed()  # the kernel ignores the new one, too, so that is to go
    step.tell(ev.RequestEnded("s1", up, None))
    (down,) = requests(step)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(ev.RequestEnded("s1", down.request, None), after=1.0)
    step.listed()
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]
    step.tell(ev.UnplugReturned(1, Reason("qemu-refused", Origin.QEMU, "not now")))
    assert step.over(), "it stays, and that is known"
