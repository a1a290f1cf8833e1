# SPDX-License-Identifier: Apache-2.0
"""What was once taken for a proof and is none: absence, silence, and a confirmation of a while ago."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from kit.sim.step import Step, not_noticed, plug, requests, reverted, unplug, vm_reverted
from kit.sim.views import INFO, guest, host, identities, vm
from vcpu_host.core.guest import GuestCpu, GuestView
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.proof import SeenDown, proves_absence, unexplained
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import VmView, join

#: How the firmware of a machine type from before QEMU 2.7 calls the CPU with APIC id 1.
_FOREIGN = "acpi:\\_SB_.CP01"


# --- absence ----------------------------------------------------------------------------------------------------------


def test_absence_is_proven_only_by_a_list_in_which_every_cpu_is_a_slots() -> None:
    known = {"a", "b"}
    assert proves_absence((GuestCpu(0, "a", True),), known)
    assert proves_absence((), known)
    for name in ("", "c"):
        odd = GuestCpu(1, name, True)
        assert unexplained((GuestCpu(0, "a", True), odd), known) == (odd,)
        assert not proves_absence((GuestCpu(0, "a", True), odd), known)


def foreign_vm(name: str = _FOREIGN) -> VmView:
    """QEMU has slots 0 and 1, and the guest's second CPU has a name that is no slot's."""
    view = host(3, {0, 1})
    return join(view, GuestView(1, "b", "i", (*guest(view, {0}).cpus, GuestCpu(1, name, True))), agent=INFO)


@pytest.mark.parametrize("name", [_FOREIGN, ""])
@pytest.mark.parametrize(
    "request_",
    [
        Request(Operation.PLUG, 1),
        Request(Operation.PLUG, selectors=("2",)),
        Request(Operation.UNPLUG, 1),
        Request(Operation.UNPLUG, selectors=("1",)),
        Request(Operation.SCALE, 1),
        Request(Operation.SCALE, 3),
        Request(Operation.SCALE, 1, in_guest=True),
        Request(Operation.ONLINE, selectors=("1",)),
        Request(Operation.OFFLINE, selectors=("1",)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.operation}-{value.count}-{value.selectors}",
)
def test_nothing_is_begun_while_the_guest_shows_a_cpu_that_no_slot_explains(name: str, request_: Request) -> None:
    decided = plan(foreign_vm(name), request_)
    assert decided.steps == ()
    assert decided.already == (), "what cannot be told apart is not said to be as wanted"
    assert [refusal.reason.code for refusal in decided.refusals] == ["unexplained-cpus"]
    assert "cpu1" in decided.refusals[0].reason.text


def test_a_plug_by_qemus_evidence_alone_asks_nothing_of_the_guests_names() -> None:
    decided = plan(foreign_vm(), Request(Operation.PLUG, 1, without_agent=True))
    assert [step.slot.index for step in decided.steps] == [2]


def test_a_cpu_of_a_slot_that_has_just_been_emptied_stands_in_nobodys_way() -> None:
    view = host(3, {0})
    leaving = GuestCpu(1, identities(view, 1)[0], False)
    shown = join(view, GuestView(1, "b", "i", (*guest(view, {0}).cpus, leaving)), agent=INFO)
    assert [step.slot.index for step in plan(shown, Request(Operation.PLUG, 1)).steps] == [1]


def test_a_cpu_that_is_missed_among_foreign_names_is_not_removed_and_that_is_said_at_once() -> None:
    step = unplug()
    step.tell(
        step.settled(1, "absent", online=None),
        step.snapshot(step.cpu(0, online=True), GuestCpu(1, _FOREIGN, True)),
    )
    assert not step.of(ev.DoUnplug)
    assert step.over()
    assert step.slot.outcome is Outcome.REFUSED
    assert step.slot.reason is not None
    assert step.slot.reason.code == "unexplained-cpus"


def test_a_plug_whose_cpu_may_be_the_one_with_the_foreign_name_is_not_taken_back() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=Limits().arrival_grace)
    step.listed(GuestCpu(1, _FOREIGN, False))
    assert step.over()
    assert step.slot.outcome is Outcome.UNKNOWN
    assert step.slot.reason is not None
    assert step.slot.reason.code == "unexplained-cpus"


# --- silence ----------------------------------------------------------------------------------------------------------


def test_a_guest_that_is_slow_to_bring_a_cpu_online_is_not_said_to_have_none() -> None:
    """The kernel of Debian 13 loads modules at each new CPU: seconds pass in which the agent says nothing (F12)."""
    step = plug(timeout=200.0)
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=Limits().arrival_grace + 1.0)
    step.listed(step.cpu(1, online=False))
    for _ in range(10):
        step.tell(after=10.0)
        assert not step.over()
        assert not step.of(ev.DoCancel)
    step.tell(step.settled(1, "done", online=True), step.looked(0, 1))
    assert step.slot.outcome is Outcome.DONE


def test_a_look_that_fails_is_no_verdict_and_is_made_again() -> None:
    step = plug(timeout=200.0)
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=Limits().arrival_grace)
    assert step.of(ev.DoLookGuest)
    step.tell(ev.GuestLookFailed("s1", Reason("agent-slow", Origin.AGENT, "slow")))
    assert not step.of(ev.DoLookGuest)
    step.tell(after=1.0)
    assert step.of(ev.DoLookGuest)
    step.listed()
    assert step.of(ev.DoCancel)


def test_a_list_that_was_asked_for_before_the_time_was_up_is_no_verdict() -> None:
    step = plug(timeout=200.0)
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    asked_at = step.now + Limits().arrival_grace - 0.1
    step.tell(after=Limits().arrival_grace)
    step.tell(ev.GuestLooked("s1", GuestView(1, "b", "i", (step.cpu(0, online=True),)), asked_at))
    assert not step.of(ev.DoCancel)
    assert step.of(ev.DoLookGuest)


# --- a confirmation of a while ago ------------------------------------------------------------------------------------


def two() -> Step:
    return Step(vm(4, {0, 1, 2}), "unplug", "1", "2")


def test_of_several_cpus_each_is_looked_at_again_before_the_first_device_del() -> None:
    step = two()
    step.tell(step.settled(2, "done", online=False), step.settled(1, "done", online=False))
    assert not step.of(ev.DoUnplug)
    step.listed(step.cpu(1, online=False), step.cpu(2, online=False))
    assert [action.slot for action in step.of(ev.DoUnplug)] == [2, 1]  # type: ignore[union-attr]


def test_a_cpu_that_came_back_online_is_not_removed_but_asked_to_go_again() -> None:
    step = two()
    step.tell(step.settled(2, "done", online=False), step.settled(1, "done", online=False))
    step.listed(step.cpu(1, online=False), step.cpu(2, online=True))
    assert not step.of(ev.DoUnplug)
    assert [(action.firmware_ids, action.online) for action in requests(step)] == [((step.name(2),), False)]
    step.tell(step.settled(2, "done", online=False, request=2), after=Limits().look_fresh + 0.1)
    assert not step.of(ev.DoUnplug), "of slot 2 only its own word is fresh, of slot 1 none"
    step.listed(step.cpu(1, online=False), step.cpu(2, online=False))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(2), ev.DoUnplug(1)]


def test_a_cpu_that_somebody_is_at_work_on_is_not_removed_although_the_list_says_offline() -> None:
    step = two()
    step.tell(step.settled(2, "done", online=False), step.settled(1, "done", online=False))
    step.listed(step.cpu(1, online=False), replace(step.cpu(2, online=False), switching=0.1))
    assert [action.slot for action in step.of(ev.DoUnplug)] == [1]  # type: ignore[union-attr]
    step.listed(step.cpu(1, online=False), step.cpu(2, online=False))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(2)]


def test_a_slot_whose_cpu_comes_back_again_and_again_is_refused_with_that_reason() -> None:
    step = two()
    step.tell(step.settled(2, "done", online=False), step.settled(1, "done", online=False))
    for request in range(2, 2 + Limits().relapses):
        step.listed(step.cpu(1, online=True), step.cpu(2, online=True))
        assert requests(step)
        step.tell(*(step.settled(slot, "done", online=False, request=request) for slot in (2, 1)))
    step.listed(step.cpu(1, online=True), step.cpu(2, online=True))
    assert not step.of(ev.DoUnplug)
    step.tell(step.looked(0, 1, 2))
    assert step.over()
    results = step.machine.result(step.now)
    assert results.outcome is Outcome.REFUSED
    for slot in results.slots:
        assert slot.reason is not None
        assert slot.reason.code == "comes-back-online"
        assert "4 times" in slot.reason.text


def test_a_cpu_that_comes_back_after_device_del_is_told_in_the_result() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    assert step.of(ev.DoUnplug)
    step.tell(ev.UnplugReturned(1, None), after=0.02)
    step.listed(step.cpu(1, online=True))
    step.tell(step.looked(0))
    assert step.slot.outcome is Outcome.DONE
    assert step.slot.reason is not None
    assert step.slot.reason.code == "ejected-online"


def test_an_agent_that_refuses_after_device_del_does_not_end_the_removal_which_may_still_come_about() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None), step.snapshot(step.cpu(0, online=True), step.cpu(1, online=True)))
    (again,) = requests(step)
    busy = Reason("last-cpu", Origin.GUEST, "the last one", errno="EBUSY")
    step.tell(step.settled(1, "refused", online=True, request=again.request, reason=busy))
    assert not step.of(ev.DoSetOnline)
    step.tell(after=Limits().timeout)
    assert step.over()
    assert (step.slot.outcome, step.slot.reason and step.slot.reason.code) == (Outcome.UNKNOWN, "removal-pending")


def test_one_cpus_own_word_is_fresh_only_for_a_moment() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False), after=Limits().look_fresh + 0.1)
    assert not step.of(ev.DoUnplug)
    step.listed(step.cpu(1, online=False))
    assert step.of(ev.DoUnplug)


def test_how_long_the_kernel_took_to_switch_a_cpu_does_not_make_its_word_older() -> None:
    step = unplug()
    told = step.settled(1, "done", online=False)
    lasted = Limits().look_fresh + 0.1
    step.tell(told._replace(result=told.result._replace(seconds=lasted)), after=lasted + 0.01)
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


def test_a_list_older_than_the_cpus_own_word_says_nothing_of_it() -> None:
    step = two()
    step.tell(step.settled(2, "done", online=False), step.settled(1, "done", online=False))
    asked_at = step.now
    step.tell(ev.GuestLookFailed("s1", Reason("agent-slow", Origin.AGENT, "slow")), after=1.0)
    step.tell(step.settled(2, "already", online=False), step.settled(1, "already", online=False))
    old = (step.cpu(0, online=True), step.cpu(1, online=True), step.cpu(2, online=True))
    step.tell(ev.GuestLooked("s1", GuestView(1, "b", "i", old), asked_at))
    assert not requests(step), "both were heard of since"


_LIMIT = 0.25


def looks(*answered: tuple[float, float]) -> SeenDown:
    """Each was asked for at the first time, and answered at the second."""
    seen = SeenDown()
    for asked, told in answered:
        seen.shown(asked, told, _LIMIT)
    return seen


SLOW = ((0.0, 2.0), (2.0, 4.0), (5.0, 7.0))


@pytest.mark.parametrize(
    ("answered", "now", "fresh"),
    [
        (((0.0, 0.1),), 0.25, True),
        (((0.0, 0.1),), 0.26, False),
        (SLOW[:1], 2.0, False),
        (SLOW[:2], 4.0, False),
        (SLOW, 7.0, True),
        (SLOW, 7.019, True),
        (SLOW, 7.021, False),
    ],
)
def test_a_slow_guest_has_to_show_it_three_times(
    answered: Sequence[tuple[float, float]], now: float, *, fresh: bool
) -> None:
    seen = looks(*answered)
    assert seen.is_fresh(now, _LIMIT) is fresh
    seen.forget()
    assert not seen.is_fresh(now, _LIMIT)


@pytest.mark.parametrize(
    "before",
    [
        ((0.0, 0.1), (1.0, 1.1), (2.0, 2.1)),  # quick ones
        ((2.0, 4.0), (4.0, 6.0), (6.0, 8.0)),  # slow ones, of a while ago
        ((5.0, 6.0), (6.0, 7.0), (7.0, 10.0)),  # the last one is of another kind
    ],
    ids=["quick", "long ago", "not so slow"],
)
def test_what_other_looks_have_shown_does_not_make_an_old_answer_new(before: Sequence[tuple[float, float]]) -> None:
    assert not looks(*before, (10.0, 20.0)).is_fresh(20.0, _LIMIT)


def test_slow_looks_do_not_count_once_the_cpu_was_seen_otherwise() -> None:
    seen = looks(*SLOW[:2])
    seen.forget()
    seen.shown(5.0, 7.0, _LIMIT)
    assert not seen.is_fresh(7.0, _LIMIT)


# --- a CPU of which the guest was never told --------------------------------------------------------------------------


def test_a_cpu_that_the_guest_was_never_told_of_is_plugged_anew() -> None:
    step = reverted()
    assert not step.of(ev.DoPlug)
    step.tell(after=Limits().notice_grace)
    down = not_noticed(step)
    assert (down.online, down.for_eject) == (False, True)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(after=1.0)
    step.listed()
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]
    step.tell(ev.UnplugReturned(1, None), step.looked(0), after=0.1)
    assert step.of(ev.DoPlug) == [ev.DoPlug(1)]
    up = next(action for action in requests(step) if action.online)
    step.tell(ev.PlugReturned(1, None), step.settled(1, "done", online=True, request=up.request))
    step.tell(step.looked(0), after=0.1)  # asked before the plug: it says nothing
    step.tell(step.looked(0, 1), after=0.1)
    assert step.over()
    assert step.slot.outcome is Outcome.DONE


def test_a_cpu_without_a_name_may_be_the_missing_one_so_the_list_is_asked_for_until_it_has_one() -> None:
    step = reverted()
    step.tell(after=Limits().notice_grace)
    nameless = replace(step.cpu(2, online=False), firmware_id="")
    step.listed(nameless)
    assert not step.of(ev.DoCancel)
    step.tell(after=Limits().retry_after)
    not_noticed(step)


def test_a_cpu_that_is_out_when_the_time_is_over_is_not_told_as_untouched() -> None:
    step = reverted()
    step.tell(after=Limits().notice_grace)
    down = not_noticed(step)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(after=1.0)
    step.listed()
    step.tell(ev.UnplugReturned(1, None))
    step.tell(step.looked(0), after=60.0)
    assert step.over()
    assert not step.of(ev.DoPlug)
    assert (step.slot.outcome, step.slot.reason and step.slot.reason.code) == (Outcome.UNKNOWN, "replug-pending")


def test_a_guest_that_notices_the_cpu_after_all_keeps_it() -> None:
    step = reverted()
    step.tell(after=Limits().notice_grace)
    step.listed(step.cpu(1, online=False))
    assert not step.of(ev.DoCancel)
    step.tell(step.settled(1, "done", online=True), step.looked(0, 1))
    assert step.slot.outcome is Outcome.DONE


def test_what_concerns_the_guest_alone_says_that_the_guest_does_not_know_the_cpu() -> None:
    step = reverted("online", "1")
    step.tell(after=Limits().notice_grace)
    step.listed()
    assert not step.of(ev.DoUnplug)
    assert step.over()
    assert step.slot.outcome is Outcome.REFUSED
    assert step.slot.reason is not None
    assert step.slot.reason.code == "guest-unaware"
    assert "scale" in step.slot.reason.hint


def test_a_qemu_that_dies_of_a_plug_after_an_unplug_is_not_asked_for_one() -> None:
    view = vm_reverted()
    assert plan(view, Request(Operation.SCALE, 2)).steps[0].replaceable
    old = view._replace(host=view.host._replace(qemu_version=(7, 2, 0), accel="tcg"))
    assert not plan(old, Request(Operation.SCALE, 2)).steps[0].replaceable


def test_a_cpu_that_cannot_be_taken_out_is_said_to_be_unknown_to_the_guest() -> None:
    step = reverted()
    step.tell(after=Limits().notice_grace)
    down = not_noticed(step)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(after=1.0)
    step.listed()
    step.tell(ev.UnplugReturned(1, Reason("qemu-refused", Origin.QEMU, "not now")))
    assert step.over()
    assert step.slot.outcome is Outcome.REFUSED
    assert step.slot.reason is not None
    assert (step.slot.reason.code, "not now" in step.slot.reason.text) == ("guest-unaware", True)
