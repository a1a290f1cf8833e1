# SPDX-License-Identifier: Apache-2.0
"""--without-agent: QEMU's evidence alone, and every success says what it does not prove."""

from __future__ import annotations

import pytest
from kit.sim.step import Step
from kit.sim.views import host
from vcpu_host import documents
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.planning.plan import Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import VmView, join

_BUSY, _NO = Ost(3, 0x82), Reason("qemu-refused", Origin.QEMU, "no")


def blind(total: int, *filled: int, threads: int = 1) -> VmView:
    """A map on which nobody knows what the guest does."""
    return join(host(total, {0, *filled}, threads=threads), None)


def decide(view: VmView, operation: str, count: int | None = None, *slots: str) -> Plan:
    return plan(view, Request(Operation(operation), count, slots, without_agent=True))


def steps(decided: Plan) -> list[tuple[str, int]]:
    assert not decided.refusals, decided.refusals
    return [(str(each.kind), each.slot.index) for each in decided.steps]


def plug(threads: int = 1) -> Step:
    return Step(blind(3, threads=threads), "plug", "1", without_agent=True)


def unplug(threads: int = 1) -> Step:
    return Step(blind(3, 1, threads=threads), "unplug", "1", without_agent=True)


def verdict(step: Step) -> tuple[Outcome, str]:
    assert step.over()
    return step.slot.outcome, step.slot.reason.code if step.slot.reason else ""


def test_the_lowest_empty_and_the_highest_filled_slots_are_taken_whatever_the_guest_does() -> None:
    assert steps(decide(blind(5, 2), "plug", 2)) == [("plug", 1), ("plug", 3)]
    assert steps(decide(blind(5, 2, 4), "unplug", 1)) == [("unplug", 4)]


def test_what_qemu_has_already_is_done_and_slot_0_stays() -> None:
    assert (steps(decide(blind(3, 1), "plug", None, "1")), steps(decide(blind(3), "unplug", None, "2"))) == ([], [])
    (refusal,) = decide(blind(3), "unplug", None, "0").refusals
    assert refusal.reason.code == "boot-cpu"


def test_without_the_word_the_missing_agent_is_a_refusal() -> None:
    (refusal,) = plan(blind(3), Request(Operation.PLUG, 1)).refusals
    assert refusal.reason.code == "no-agent"


def test_a_plug_is_done_when_qemu_shows_it_and_the_firmware_has_seen_it_and_no_sooner() -> None:
    step = plug()
    assert step.of(ev.DoPlug)
    step.tell(ev.PlugReturned(1, None), step.looked(0, 1))
    assert not step.over()
    step.tell(ev.OstReported(1, Ost(1, 0)), step.looked(0, 1))
    assert verdict(step) == (Outcome.DONE, "not-verified")
    assert not step.of(ev.DoDial)


def test_where_no_firmware_reports_qemus_word_is_all_there_is() -> None:
    step = plug(threads=2)
    step.tell(ev.PlugReturned(1, None), step.looked(0, 1))
    step.tell(step.looked(0, 1))
    assert verdict(step) == (Outcome.DONE, "not-verified")
    assert "whether the guest has seen it was not checked" in str(step.slot.reason)


def test_a_plug_that_nobody_acknowledges_is_unknown_at_the_end_and_looks_are_few() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None))
    looks = 0
    while not step.over():
        looks += len(step.of(ev.DoLookHost))
        step.tell(*([step.looked(0, 1)] if step.of(ev.DoLookHost) else []), after=step.machine.wake_at - step.now)
    assert verdict(step) == (Outcome.UNKNOWN, "arrival-pending")
    assert looks < 100


@pytest.mark.parametrize("threads", [1, 2])
def test_an_unplug_asks_qemu_at_once_and_is_done_when_the_slot_is_empty(threads: int) -> None:
    step = unplug(threads)
    assert step.asked[0] == ev.DoUnplug(1)
    assert not step.of(ev.DoSetOnline)
    step.tell(ev.UnplugReturned(1, None), step.looked(0, 1))
    assert not step.over()
    step.tell(step.looked(0))
    assert verdict(step) == (Outcome.DONE, "not-verified")
    assert "was not checked" in str(step.slot.reason)


def test_the_guests_refusal_and_qemus_are_failures_with_their_words() -> None:
    step = unplug()
    step.tell(ev.UnplugReturned(1, None), ev.OstReported(1, _BUSY))
    assert verdict(step) == (Outcome.FAILED, "eject-busy")
    step = unplug()
    step.tell(ev.UnplugReturned(1, _NO))
    assert verdict(step)[1] == "qemu-refused"
    step = plug()
    step.tell(ev.PlugReturned(1, _NO))
    assert verdict(step) == (Outcome.REFUSED, "qemu-refused")


def test_an_agent_that_comes_or_goes_means_nothing() -> None:
    step = unplug()
    step.tell(ev.AgentDown(Reason("agent-lost", Origin.AGENT, "x")), ev.VmReset(), ev.UnplugReturned(1, None))
    assert not step.of(ev.DoDial)
    step.tell(step.looked(0))
    assert verdict(step) == (Outcome.DONE, "not-verified")


def test_the_request_says_so_in_reports() -> None:
    assert documents.of_plan(decide(blind(3), "plug", 1))["requested"] == {
        "count": 1,
        "slots": [],
        "without_agent": True,
    }
