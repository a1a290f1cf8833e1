# SPDX-License-Identifier: Apache-2.0
"""A CPU that was plugged before, by whomever, and that the guest may yet show."""

from __future__ import annotations

from dataclasses import replace

from kit.sim.step import Step, not_noticed, requests, reverted, vm_reverted
from kit.sim.views import INFO, guest, host
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.view import join, with_pending


def on_record(operation: str, *slots: str, count: int | None = None) -> Step:
    """As after a vcpuctl that was killed: slot 1 is plugged, the guest does not show it, and the plug is on record."""
    view = with_pending(vm_reverted(), (Intent(IntentKind.PLUG, 1, "vcpu-1", 1.0),))
    return Step(view, operation, *slots, count=count, limits=Limits(timeout=60.0))


def test_a_cpu_that_may_yet_come_up_is_not_removed_unseen() -> None:
    step = on_record("unplug", "1")
    (down,) = requests(step)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(ev.RequestEnded("s1", down.request, None), after=Limits().retry_after)
    step.listed()
    assert not step.of(ev.DoUnplug), "the guest may be about to take it in"
    step.tell(after=Limits().retry_after)
    step.listed(step.cpu(1, online=True))
    assert not step.of(ev.DoUnplug)
    (again,) = requests(step)
    assert (again.online, again.for_eject) == (False, True)
    step.tell(step.settled(1, "done", online=False, request=again.request))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


def test_a_cpu_that_has_come_up_offline_is_asked_for_before_it_is_removed() -> None:
    step = on_record("unplug", "1")
    (down,) = requests(step)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(ev.RequestEnded("s1", down.request, None), after=Limits().retry_after)
    step.listed(step.cpu(1, online=False))
    assert not step.of(ev.DoUnplug), "nobody has confirmed that of this CPU"
    assert requests(step)


def test_a_cpu_that_never_comes_up_is_removed_when_its_time_is_over() -> None:
    step = on_record("unplug", "1")
    (down,) = requests(step)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(ev.RequestEnded("s1", down.request, None), after=Limits().retry_after)
    step.listed()
    step.tell(after=Limits().arrival_grace)
    step.listed()
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


def test_a_cpu_whose_plug_is_on_record_gets_the_time_of_one_that_was_plugged_just_now() -> None:
    step = on_record("scale", count=2)
    step.tell(after=Limits().notice_grace)
    assert not step.of(ev.DoLookGuest)
    step.tell(after=Limits().arrival_grace)
    assert step.of(ev.DoLookGuest)


def test_a_guest_whose_firmware_has_just_taken_notice_of_a_cpu_gets_its_time_to_show_it() -> None:
    step = reverted()
    step.tell(ev.OstReported(1, Ost(1, 0)), after=Limits().notice_grace - 0.1)
    step.tell(after=Limits().arrival_grace - 0.1)
    assert not step.of(ev.DoLookGuest)
    step.tell(after=0.2)
    assert step.of(ev.DoLookGuest)


def test_a_guest_at_work_on_one_cpu_is_not_said_to_have_no_other() -> None:
    step = reverted()
    step.tell(after=Limits().notice_grace)
    step.listed(replace(step.cpu(2, online=False), switching=3.0))
    assert not step.of(ev.DoCancel)
    step.tell(after=Limits().retry_after)
    not_noticed(step)


def test_while_the_agent_gets_on_those_whose_turn_has_not_come_are_not_overdue() -> None:
    view = host(4, {0, 1, 2})
    step = Step(join(view, guest(view, {0}), agent=INFO), "scale", count=3, limits=Limits(timeout=60.0))
    step.tell(step.settled(1, "done", online=True), after=Limits().notice_grace - 0.1)
    step.tell(after=Limits().notice_grace - 0.1)
    assert not step.of(ev.DoLookGuest), "the agent spoke a moment ago"
    step.tell(after=0.2)
    assert step.of(ev.DoLookGuest)
