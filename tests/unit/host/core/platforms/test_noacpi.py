# SPDX-License-Identifier: Apache-2.0
"""Without ACPI no CPU comes or goes where ACPI plugs them, though QEMU takes every device_add without a word."""

from __future__ import annotations

from typing import Any

import pytest
from kit.sim.plans import codes, planned, steps
from kit.sim.views import INFO, guest, host, slot
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.finding import Level
from vcpu_host.core.guest import AgentInfo, GuestCpu, GuestView
from vcpu_host.core.model import HostView
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.platforms import platform_for
from vcpu_host.core.view import VmView, join


def _off(view: HostView) -> HostView:
    return view._replace(properties={"acpi": "off"})


def _agent(**environment: Any) -> AgentInfo:
    """An agent that found no ACPI names of CPUs."""
    return INFO._replace(platform="boot", environment=INFO.environment._replace(**environment))


def _without(*, smp: int = 2, total: int = 4, online: tuple[int, ...] = (0, 1)) -> VmView:
    """A machine with acpi=off that started with ``smp`` CPUs."""
    view = _off(host(total, set(range(smp)), boot=set(range(smp))))
    cpus = tuple(GuestCpu(number, f"boot:{number}", number in online) for number in range(smp))
    agent = _agent(acpi=False, possible=f"0-{smp - 1}")
    return join(view, GuestView(1, "boot", "instance", cpus), agent=agent)


@pytest.mark.parametrize("arch", ["x86_64", "i386", "loongarch64"])
def test_a_machine_with_acpi_off_has_a_platform_of_its_own(arch: str) -> None:
    view = host(4)._replace(arch=arch)
    assert platform_for(_off(view)).name == "ACPI switched off"
    for acpi in ("auto", "on"):
        assert platform_for(view._replace(properties={"acpi": acpi})).name != "ACPI switched off"


@pytest.mark.parametrize(
    ("operation", "count", "selectors", "blind"),
    [
        *[("plug", 1, (), blind) for blind in (False, True)],
        *[("plug", None, ("2", "3"), blind) for blind in (False, True)],
        *[("unplug", 1, (), blind) for blind in (False, True)],
        *[("unplug", None, ("1",), blind) for blind in (False, True)],
        ("scale", 3, (), False),
    ],
)
def test_with_acpi_off_nothing_is_plugged_or_unplugged_and_the_cause_is_told(
    operation: str, count: int | None, selectors: tuple[str, ...], blind: bool
) -> None:
    view = _without()
    request = Request(Operation(operation), count, selectors, without_agent=blind)
    decided = plan(join(view.host, None) if blind else view, request)
    assert set(codes(decided)) == {"no-acpi"}
    for refusal in decided.refusals:
        assert "no ACPI (acpi=off)" in refusal.reason.text
        assert "without acpi=off" in refusal.reason.hint


def test_with_acpi_off_the_guests_side_goes_on_by_the_cpus_of_the_start() -> None:
    view = _without()
    assert [str(slot.state) for slot in view.slots] == ["online", "online", "empty", "empty"]
    assert view.online_vcpus == 2
    assert steps(planned(view, "offline", None, "1")) == [("offline", 1)]
    assert steps(planned(view, "scale", 2)) == []
    assert steps(plan(view, Request(Operation.SCALE, 1, in_guest=True))) == [("offline", 1)]
    assert steps(planned(_without(online=(0,)), "online", None, "1")) == [("online", 1)]


def test_with_acpi_off_a_cpu_that_came_later_has_no_name_and_is_not_guessed_at() -> None:
    view = _off(host(4, slots=(slot(0, boot=True), slot(1, boot=True), slot(2, filled=False), slot(3))))
    cpus = tuple(GuestCpu(number, f"boot:{number}", online=True) for number in range(2))
    shown = join(view, GuestView(1, "boot", "instance", cpus), agent=_agent(acpi=False))
    assert [str(each.state) for each in shown.slots] == ["online", "online", "empty", "unknown"]
    assert planned(shown, "offline", None, "3").refusals
    after_boot = join(
        view, GuestView(1, "b", "i", (*cpus, GuestCpu(2, "boot:2", online=True))), agent=_agent(acpi=False)
    )
    assert codes(planned(after_boot, "offline", None, "1")) == ["unexplained-cpus"]


def test_with_acpi_off_doctor_names_nothing_else() -> None:
    problems = [finding for finding in diagnose(_without()) if finding.level is Level.PROBLEM]
    assert {finding.code for finding in problems} == {"no-acpi", "guest-possible"}
    for finding in problems:
        assert "ACPI" in finding.text
        assert "acpi=off" in finding.fix
        assert "nr_cpus" not in finding.text + finding.fix


@pytest.mark.parametrize("operation", ["plug", "unplug", "scale", "online", "offline"])
def test_a_guest_whose_kernel_runs_without_acpi_is_told_as_one(operation: str) -> None:
    """Its agent is as new as can be, and its possible CPUs are few because of that."""
    view = host(4, {0, 1})
    cpus = tuple(GuestCpu(number, f"boot:{number}", online=True) for number in range(2))
    agent = _agent(acpi=False, kernel_arguments=("acpi=off",), possible="0-1")
    shown = join(view, GuestView(1, "boot", "instance", cpus), agent=agent)
    words = ("1",) if operation in ("online", "offline") else ()
    decided = planned(shown, operation, None if words else 1 if operation != "scale" else 3, *words)
    assert codes(decided) == ["guest-no-acpi"]
    reason = decided.refusals[0].reason
    assert "without ACPI (acpi=off)" in reason.text
    assert reason.hint == "remove acpi=off from the guest's kernel command line"
    assert shown.online_vcpus is None
    found = {finding.code: finding for finding in diagnose(shown) if finding.level is Level.PROBLEM}
    assert set(found) == {"guest-no-acpi"}
    assert (found["guest-no-acpi"].text, found["guest-no-acpi"].fix) == (reason.text, reason.hint)


def test_an_argument_that_the_guest_does_not_have_is_not_to_be_removed() -> None:
    view = host(4, {0, 1})
    cpus = tuple(GuestCpu(number, f"boot:{number}", online=True) for number in range(2))
    shown = join(view, GuestView(1, "boot", "instance", cpus), agent=_agent(acpi=False, possible="0-1"))
    decided = planned(shown, "plug", 1)
    assert codes(decided) == ["guest-no-acpi"]
    assert "acpi=off" not in decided.refusals[0].reason.hint
    assert {finding.code for finding in diagnose(shown)} >= {"guest-no-acpi"}
    assert "unplugged-cpus" not in {finding.code for finding in diagnose(shown)}, "names of another kind say nothing"


@pytest.mark.parametrize(("acpi", "platform"), [(None, "boot"), (True, "boot"), (True, "plain")])
def test_an_agent_that_finds_no_names_for_another_reason_is_told_as_before(acpi: bool | None, platform: str) -> None:
    view = host(4, {0, 1})
    agent = _agent(acpi=acpi)._replace(platform=platform)
    decided = planned(join(view, guest(view, {0, 1}), agent=agent), "plug", 1)
    assert codes(decided) == ["agent-platform"]
    hint = decided.refusals[0].reason.hint
    assert "update vcpu-guest" in hint
    assert ("acpi=off" in hint) is (platform == "boot")


def test_where_the_firmware_makes_acpi_of_its_own_that_is_the_cause_and_not_an_old_agent() -> None:
    view = _without()
    assert view.agent is not None
    agent = view.agent._replace(platform="acpi")
    decided = plan(join(view.host, view.guest, agent=agent), Request(Operation.OFFLINE, selectors=("1",)))
    (refusal,) = decided.refusals
    assert refusal.reason.code == "agent-platform"
    assert "firmware" in refusal.reason.text
    assert "acpi=on" in refusal.reason.hint
    assert "vcpu-guest" not in refusal.reason.hint
