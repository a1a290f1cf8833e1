# SPDX-License-Identifier: Apache-2.0
"""A CPU that the guest never heard of is taken out and plugged again: what is known of the new one, and how it ends."""

from __future__ import annotations

from kit.sim.step import Step, not_noticed, requests, reverted, taken_out
from vcpu_host.core.guest import GuestView
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.reason import Origin, Outcome, Reason

_NO_MEMORY = Reason("no-memory", Origin.GUEST, "no memory", "free some", errno="ENOMEM")


def refused_by_the_guest() -> Step:
    """The new CPU is there, the guest shows it, and cannot bring it online."""
    step, up = taken_out()
    step.tell(ev.PlugReturned(1, None), ev.CpuArrived("s1", step.cpu(1, online=False)))
    refused = step.settled(1, "refused", online=False, request=up, reason=_NO_MEMORY)
    step.tell(refused, ev.RequestEnded("s1", up, None), after=0.1)
    return step


# --- promise 2 --------------------------------------------------------------------------------------------------------


def test_a_cpu_that_was_plugged_anew_is_not_removed_on_the_guests_word_of_the_one_before_it() -> None:
    step = refused_by_the_guest()
    assert not step.of(ev.DoUnplug)
    (down,) = requests(step)
    assert (down.online, down.for_eject) == (False, True)
    step.tell(step.settled(1, "done", online=False, request=down.request))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


def test_a_list_that_was_asked_for_while_the_cpu_before_was_there_says_nothing_of_the_new_one() -> None:
    step, _ = taken_out()
    cpus = (step.cpu(0, online=True), step.cpu(1, online=True))
    step.tell(ev.PlugReturned(1, None), ev.GuestLooked("s1", GuestView(1, "b", "i", cpus), step.now - 0.05))
    step.tell(step.looked(0), after=0.1)  # asked for before the plug
    assert step.of(ev.DoLookHost)
    step.tell(step.looked(0, 1), after=0.1)
    assert not step.over(), "nobody has seen the new CPU online"


def test_an_answer_about_the_cpu_before_says_nothing_of_the_new_one() -> None:
    """The agent did not find the CPU and was asked once more, while its list showed that there is none."""
    step = reverted()
    step.tell(after=Limits().notice_grace)
    first = not_noticed(step)
    step.tell(step.settled(1, "absent", online=None, request=first.request))
    step.tell(after=Limits().retry_after)
    (second,) = requests(step)
    step.tell(step.snapshot(step.cpu(0, online=True)))
    step.tell(after=Limits().let_go_grace)
    step.listed()
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]
    step.tell(ev.UnplugReturned(1, None), step.looked(0), after=0.1)
    assert step.of(ev.DoCancel) == [ev.DoCancel(second.request)]
    assert step.of(ev.DoPlug) == [ev.DoPlug(1)]
    step.listed()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=Limits().arrival_grace)
    step.listed()  # the kernel ignores the new one, too, so that is to go
    step.tell(step.settled(1, "already", online=False, request=second.request))
    assert not step.of(ev.DoUnplug)
    (down,) = requests(step)
    assert (down.online, down.for_eject) == (False, True)


# --- how it ends ------------------------------------------------------------------------------------------------------


def ends_empty(step: Step, words: str, hint: str) -> None:
    reason = step.slot.reason
    assert step.over()
    assert step.slot.outcome is Outcome.PARTIAL, "the slot was filled before, and is empty"
    assert reason is not None
    assert reason.code == "replug-failed"
    assert "was taken out in order to be plugged again" in reason.text
    assert "could not be plugged" in reason.text
    assert words in reason.text
    assert reason.hint == f"{hint}; vcpuctl plug --slot 1 tries again, when that is mended"


def test_a_cpu_that_was_taken_out_and_that_qemu_does_not_take_again_is_no_refusal() -> None:
    step, _ = taken_out()
    step.tell(ev.PlugReturned(1, Reason("few-descriptors", Origin.QEMU, "no more fds", "raise LimitNOFILE")))
    ends_empty(step, "no more fds", "raise LimitNOFILE")


def test_a_cpu_that_was_taken_out_and_that_the_guest_does_not_take_again_is_not_as_it_was() -> None:
    step = refused_by_the_guest()
    (down,) = requests(step)
    step.tell(step.settled(1, "done", online=False, request=down.request))
    step.tell(ev.UnplugReturned(1, None), step.looked(0), after=0.1)  # asked for before the plug
    step.tell(step.looked(0), after=0.1)
    ends_empty(step, "no memory", "free some")
    assert step.slot.reason is not None
    assert step.slot.reason.errno == "ENOMEM"


def test_a_new_cpu_that_stays_in_its_slot_although_the_guest_refused_it_is_told_with_both_reasons() -> None:
    step = refused_by_the_guest()
    (down,) = requests(step)
    step.tell(step.settled(1, "done", online=False, request=down.request))
    step.tell(ev.UnplugReturned(1, Reason("qemu-refused", Origin.QEMU, "not now")))
    assert step.slot.outcome is Outcome.PARTIAL
    assert step.slot.reason is not None
    assert step.slot.reason.text.startswith("no memory; then it could not be unplugged again: not now")


def test_a_cpu_that_somebody_else_took_out_is_not_told_as_if_the_slot_stood_as_before() -> None:
    step = reverted()
    step.tell(step.looked(0), after=0.1)
    assert step.over()
    assert (step.slot.outcome, step.slot.reason and step.slot.reason.code) == (Outcome.PARTIAL, "taken-away")
