# SPDX-License-Identifier: Apache-2.0
"""With SMT off a guest keeps second threads offline: none is plugged in vain, and what is there counts for nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from kit.sim.plans import codes, planned, steps
from kit.sim.views import INFO, guest, host, identities, slot
from vcpu_host.core.codes import SMT_OFF
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.guest import GuestCpu
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView, join

_PARKED = Reason(SMT_OFF, Origin.GUEST, "cpu1 is a sibling thread and simultaneous multithreading is off")


def _vm(
    filled: Collection[int] = (0,),
    *,
    total: int = 8,
    smt: str = "off",
    boot: Collection[int] = (0,),
    arguments: tuple[str, ...] = (),
    listed: bool = True,
) -> VmView:
    """An x86 VM with two threads a core, over two sockets: odd slots are second threads."""
    slots = tuple(
        slot(
            i,
            filled=i in filled,
            boot=i in boot,
            props={"socket-id": i // (total // 2), "core-id": i // 2 % (total // 4), "thread-id": i % 2},
        )
        for i in range(total)
    )
    view = host(total, slots=slots)
    off = smt in ("off", "forceoff")
    dark = {
        identities(view, i)[0]: GuestCpu(i, identities(view, i)[0], False, cannot_online=_PARKED)
        for i in filled
        if i % 2
    }
    shown = guest(
        view, [i for i in filled if not (off and i % 2)], [i for i in filled if off and i % 2], cpus=dark if off else {}
    )
    info = INFO._replace(environment=INFO.environment._replace(smt_control=smt, kernel_arguments=arguments))
    return join(view, shown if listed else None, agent=info)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("smt", ["off", "forceoff"])
def test_a_number_of_vcpus_takes_the_first_threads_of_cores(smt: str, listed: bool) -> None:
    assert steps(planned(_vm(smt=smt, listed=listed), "plug", 2)) == [("plug", 2), ("plug", 4)]


@pytest.mark.parametrize("smt", ["on", "notsupported", "notimplemented", ""])
def test_with_smt_on_or_unknown_every_thread_is_taken(smt: str) -> None:
    assert steps(planned(_vm(smt=smt), "plug", 2)) == [("plug", 1), ("plug", 2)]


def test_a_scale_goes_by_first_threads() -> None:
    assert steps(planned(_vm(), "scale", 3)) == [("plug", 2), ("plug", 4)]
    decided = planned(_vm(), "scale", 5)
    assert codes(decided) == ["not-enough"]
    assert (
        "4 empty slots cannot be filled: slot 1 is not the first thread of its core" in decided.refusals[0].reason.text
    )


@pytest.mark.parametrize(("placement", "taken"), [(Placement.SPREAD, [4, 2]), (Placement.PACK, [2, 4])])
def test_policies_choose_among_first_threads(placement: Placement, taken: list[int]) -> None:
    decided = plan(_vm(), Request(Operation.PLUG, 2, placement=placement))
    assert steps(decided) == [("plug", index) for index in taken]


@pytest.mark.parametrize(
    ("smt", "arguments", "hint"),
    [
        ("off", (), "echo on > /sys/devices/system/cpu/smt/control"),
        ("off", ("nosmt",), "echo on > /sys/devices/system/cpu/smt/control"),
        ("forceoff", ("nosmt=force",), "remove nosmt=force from the guest's kernel command line"),
        ("forceoff", (), "remove nosmt=force or l1tf=full,force from"),
    ],
)
def test_a_second_thread_by_name_is_refused_with_what_would_help(
    smt: str, arguments: tuple[str, ...], hint: str
) -> None:
    view = _vm(smt=smt, arguments=arguments)
    decided = planned(view, "plug", None, "2", "3")
    assert codes(decided) == ["smt-off"]
    reason = decided.refusals[0].reason
    assert decided.refusals[0].slot == 3
    assert hint in reason.hint
    assert smt in reason.text
    assert ("echo on" in reason.hint) is (smt == "off")  # forceoff cannot be changed
    finding = {f.code: f for f in diagnose(view)}["smt-off"]
    assert finding.fix == reason.hint


def test_second_threads_that_are_there_are_neither_mended_nor_counted_nor_taken_for_the_goal() -> None:
    """As a guest with -smp 4 and nosmt has them: two of four online."""
    there = _vm({0, 1, 2, 3}, boot={0, 1, 2, 3})
    assert there.online_vcpus == 2
    assert steps(planned(there, "scale", 2)) == []
    assert steps(planned(there, "scale", 3)) == [("plug", 4)]
    assert steps(planned(there, "plug", 1)) == [("plug", 4)]
    ours = _vm({0, 2, 3})
    assert steps(planned(ours, "plug", 1)) == [("plug", 4)]
    assert steps(planned(ours, "scale", 2)) == []


def test_second_threads_that_are_there_go_first_on_the_way_down() -> None:
    there = _vm({0, 1, 2, 3}, boot={0, 1, 2, 3})
    assert steps(planned(there, "scale", 1)) == [("unplug", 3), ("unplug", 1), ("unplug", 2)]
    assert steps(planned(there, "unplug", 1)) == [("unplug", 3)]


@pytest.mark.parametrize("operation", ["online", "plug"])
def test_a_second_thread_that_is_there_is_not_brought_online_in_vain(operation: str) -> None:
    decided = planned(_vm({0, 2, 3}), operation, None, "3")
    assert codes(decided) == ["smt-off"]
    assert "echo on" in decided.refusals[0].reason.hint


def test_in_the_guest_alone_second_threads_are_let_be() -> None:
    there = _vm({0, 1, 2, 3}, boot={0, 1, 2, 3})
    assert steps(planned(there, "scale", 2)) == []
    request = Request(Operation.SCALE, 2, in_guest=True)
    assert steps(plan(there, request)) == []
    assert codes(plan(there, replace(request, count=3))) == ["not-enough"]


def test_a_second_thread_that_runs_shows_that_smt_was_switched_on_since() -> None:
    view = _vm({0, 2, 3}, smt="on")
    assert view.agent is not None
    stale = view.agent._replace(environment=view.agent.environment._replace(smt_control="off"))
    assert steps(planned(join(view.host, view.guest, agent=stale), "plug", 1)) == [("plug", 1)]


def test_without_an_agent_nothing_is_known_of_smt() -> None:
    blind = join(_vm().host, None)
    assert steps(plan(blind, Request(Operation.PLUG, 1, without_agent=True))) == [("plug", 1)]


def test_a_core_in_one_slot_is_plugged_whole_whatever_the_mode() -> None:
    """Where a slot holds a core, as on POWER, its first thread comes online and the slot counts."""
    view = host(3, threads=2)
    info = INFO._replace(environment=INFO.environment._replace(smt_control="off"))
    assert steps(planned(join(view, guest(view, {0}), agent=info), "plug", 2)) == [("plug", 1)]
