# SPDX-License-Identifier: Apache-2.0
"""A guest whose ACPI handles no event hears of no CPU that comes or is to go: what needs that is refused at once."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from kit.sim.plans import codes, planned, steps
from kit.sim.views import INFO, guest, host
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.finding import Level
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin
from vcpu_host.core.view import VmView, join, with_pending


def _vm(
    filled: Collection[int] = (0, 1, 2),
    offline: Collection[int] = (),
    *,
    threads: int = 1,
    unknown: Collection[int] = (),
    gpes: tuple[int, ...] = (2,),
    listed: bool = True,
) -> VmView:
    """``unknown``: slots that QEMU has filled and of which the guest shows nothing."""
    view = host(4, {*filled, *offline, *unknown}, threads=threads)
    agent = INFO._replace(environment=INFO.environment._replace(unhandled_gpes=gpes))
    return join(view, guest(view, filled, offline) if listed else None, agent=agent)


@pytest.mark.parametrize(
    "words", [("plug", 1), ("plug", None, "3"), ("unplug", 1), ("unplug", None, "2"), ("scale", 4), ("scale", 2)]
)
def test_what_the_guest_has_to_hear_of_is_refused_with_the_evidence(words: tuple[str, int | None]) -> None:
    decided = planned(_vm(), *words)
    assert codes(decided) == ["acpi-deaf"]
    (refusal,) = decided.refusals
    assert refusal.slot is None
    assert refusal.reason.who is Origin.GUEST
    assert refusal.reason.text == (
        "GPE 02 of the guest is pending and its kernel does not handle it: it hears of no CPU that comes or is to go"
    )
    assert "system_reset" in refusal.reason.hint
    assert "S3" in refusal.reason.hint


def test_several_events_are_named_and_many_are_not_all() -> None:
    reason = _vm(gpes=(1, 0x1F)).guest_trouble
    assert reason is not None
    assert "GPEs 01, 1F of the guest are pending and its kernel does not handle them" in reason.text
    reason = _vm(gpes=tuple(range(64))).guest_trouble
    assert reason is not None
    assert "GPEs 00, 01, 02, 03, ... of the guest" in reason.text


def test_a_plug_for_which_the_guest_was_not_asked_for_its_cpus_is_refused_too() -> None:
    assert codes(planned(_vm((0,), listed=False), "plug", None, "3")) == ["acpi-deaf"]


def test_what_the_guest_knows_already_is_switched() -> None:
    view = _vm((0, 1), (2,))
    assert steps(planned(view, "online", None, "2")) == [("online", 2)]
    assert steps(planned(view, "offline", None, "1")) == [("offline", 1)]
    assert steps(planned(view, "plug", 1)) == [("online", 2)]
    assert steps(planned(view, "scale", 3)) == [("online", 2)]
    assert steps(plan(view, Request(Operation.SCALE, 1, in_guest=True))) == [("offline", 1)]
    assert steps(planned(_vm(), "scale", 3)) == []


def test_a_cpu_of_which_the_guest_has_not_heard_yet_is_not_waited_for() -> None:
    view = _vm((0, 1), unknown=(2,))
    for words in (("online", None, "2"), ("plug", 1), ("plug", None, "2"), ("scale", 3)):
        assert codes(planned(view, *words)) == ["acpi-deaf"]


def test_a_removal_that_was_begun_before_is_not_waited_for() -> None:
    view = _vm((0, 1), (2,))
    view = with_pending(view, (Intent(IntentKind.UNPLUG, 1, "vcpu-1", 0.0),))
    decided = planned(view, "plug", 1)
    assert (steps(decided), decided.recover) == ([("online", 2)], ())
    for words in (("plug", 2), ("scale", 2)):
        assert codes(planned(view, *words)) == ["acpi-deaf"]


def test_what_cannot_be_with_any_guest_is_refused_for_its_own_reason() -> None:
    assert codes(planned(_vm(), "plug", 9)) == ["not-enough"]
    assert codes(planned(_vm(), "unplug", None, "0")) == ["boot-cpu"]


def test_without_the_agent_it_is_as_before() -> None:
    view = _vm()
    assert steps(plan(view, Request(Operation.PLUG, 1, without_agent=True))) == [("plug", 3)]
    assert steps(plan(join(view.host, None), Request(Operation.UNPLUG, 1, without_agent=True))) == [("unplug", 2)]


def test_an_agent_that_says_nothing_of_it_and_a_machine_without_such_events_are_refused_nothing() -> None:
    assert steps(planned(_vm(gpes=()), "plug", 1)) == [("plug", 3)]
    assert steps(planned(_vm((0, 1, 2), threads=2), "plug", 2)) == [("plug", 3)]


def test_doctor_has_it_as_a_problem() -> None:
    found = {finding.code: finding for finding in diagnose(_vm())}
    assert found["acpi-deaf"].level is Level.PROBLEM
    assert "GPE 02" in found["acpi-deaf"].text
    assert "system_reset" in found["acpi-deaf"].fix
    assert "acpi-deaf" not in {finding.code for finding in diagnose(_vm(gpes=()))}
