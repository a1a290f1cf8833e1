# SPDX-License-Identifier: Apache-2.0
"""QEMU's file descriptors: what is left, what that is enough for, and who is warned when."""

from __future__ import annotations

import pytest
from kit.sim.views import INFO, guest, host
from vcpu_host.core import descriptors
from vcpu_host.core.descriptors import PER_VCPU, RESERVE, Descriptors
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.planning.plan import Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin
from vcpu_host.core.view import VmView, join

_LIMIT = 4096


def _left(left: int, *, limit: int = _LIMIT) -> Descriptors:
    return Descriptors(limit - left, limit, 4711)


def _vm(has: Descriptors | None, *, accel: str = "kvm") -> VmView:
    view = host(8, {0, 1, 2}, accel=accel)._replace(descriptors=has)
    return join(view, guest(view, {0, 1, 2}), agent=INFO)


def _plan(view: VmView, operation: str, count: int, *, without_agent: bool = False, atomic: bool = False) -> Plan:
    return plan(view, Request(Operation(operation), count, without_agent=without_agent, atomic=atomic))


def _codes(decided: Plan) -> list[str]:
    return [refusal.reason.code for refusal in decided.refusals]


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without_agent", [False, True])
def test_a_plug_that_leaves_qemu_less_than_its_reserve_is_refused(*, without_agent: bool) -> None:
    view = _vm(_left(RESERVE + 2 * PER_VCPU))
    assert len(_plan(view, "plug", 2, without_agent=without_agent).steps) == 2
    refused = _plan(view, "plug", 3, without_agent=without_agent)
    assert not refused.steps
    (refusal,) = refused.refusals
    assert (refusal.reason.code, refusal.reason.who) == ("few-descriptors", Origin.VCPUCTL)
    assert "cannot plug 3 vCPUs, 2 at most" in refusal.reason.text
    assert f"process 4711) has {_LIMIT - RESERVE - 4} of {_LIMIT} file descriptors open" in refusal.reason.text
    assert "prlimit --pid 4711 --nofile=16384:16384" in refusal.reason.hint


def test_no_limit_is_advised_that_not_even_root_can_give() -> None:
    has = Descriptors(524_000, 524_288, 4711, ceiling=1 << 20)
    assert "prlimit --pid 4711 --nofile=1048576:1048576" in has.remedy
    assert "prlimit" not in has._replace(limit=1 << 20).remedy
    assert "fs.nr_open" in has._replace(limit=1 << 20).remedy


def test_scaling_up_is_refused_alike_and_down_it_is_not() -> None:
    view = _vm(_left(0))
    assert _codes(_plan(view, "scale", 4)) == ["few-descriptors"]
    assert "none at most" in _plan(view, "scale", 4).refusals[0].reason.text
    assert len(_plan(view, "scale", 1).steps) == 2


def test_an_unplug_takes_none_and_is_never_refused_unless_it_may_have_to_be_taken_back() -> None:
    view = _vm(_left(0))
    assert len(_plan(view, "unplug", 2).steps) == 2
    assert _codes(_plan(view, "unplug", 2, atomic=True)) == ["few-descriptors"]


def test_what_nobody_can_see_refuses_nothing() -> None:
    assert len(_plan(_vm(None), "plug", 2).steps) == 2


def test_under_tcg_a_vcpu_takes_none() -> None:
    assert len(_plan(_vm(_left(0), accel="tcg"), "plug", 2).steps) == 2


# --- doctor -----------------------------------------------------------------------------------------------------------


def _found(has: Descriptors | None, accel: str = "kvm") -> Finding:
    return descriptors.found(has, accel)


@pytest.mark.parametrize(
    ("has", "accel", "level"),
    [
        (_left(_LIMIT - 60), "kvm", Level.OK),
        (_left(RESERVE + 100 * PER_VCPU, limit=2048), "kvm", Level.OK),
        (_left(RESERVE + 99 * PER_VCPU, limit=2048), "kvm", Level.WARNING),  # for fewer than 100 vCPUs
        (_left(50_000, limit=524_288), "kvm", Level.WARNING),  # less than a tenth
        (_left(RESERVE + 1), "kvm", Level.PROBLEM),
        (_left(0), "kvm", Level.PROBLEM),
        (_left(RESERVE), "tcg", Level.OK),
        (_left(RESERVE - 1), "tcg", Level.WARNING),
        (None, "kvm", Level.NOTE),
        (None, "tcg", Level.NOTE),
    ],
)
def test_doctor_warns_while_there_is_time_to_act(has: Descriptors | None, accel: str, level: Level) -> None:
    finding = _found(has, accel)
    assert finding.level is level
    assert finding.code == ("few-descriptors" if level in (Level.WARNING, Level.PROBLEM) else "descriptors")
    assert bool(finding.fix) is (level is not Level.OK)


def test_the_warning_says_how_many_vcpus_more_and_what_helps() -> None:
    finding = _found(_left(RESERVE + 10 * PER_VCPU))
    assert "enough for 10 more vCPUs" in finding.text
    for remedy in ("prlimit --pid 4711", "LimitNOFILE", "migration", "restart"):
        assert remedy in finding.fix


def test_of_tcg_nothing_is_claimed_but_the_numbers() -> None:
    for has in (_left(3000), _left(0)):
        assert "KVM" not in _found(has, "tcg").text
        assert "vCPU" not in _found(has, "tcg").text
    assert "KVM" not in _found(None, "tcg").text


def test_what_is_not_known_is_said_to_be_so() -> None:
    assert "cannot be seen" in _found(None).text
    assert descriptors.vcpus_left(None, "kvm") is None
