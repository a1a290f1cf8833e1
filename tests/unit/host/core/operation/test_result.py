# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.views import vm
from vcpu_host import documents
from vcpu_host.cli.exitcodes import Exit, of_error, of_result
from vcpu_host.core.operation.counts import Counts
from vcpu_host.core.operation.result import OperationResult, SlotResult, refused, summarize
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import (
    AgentGoneError,
    QemuError,
    QemuGoneError,
    RefusedError,
    UnreachableError,
    UsageError,
    VcpuctlError,
)

D, P, R, F, U = Outcome.DONE, Outcome.PARTIAL, Outcome.REFUSED, Outcome.FAILED, Outcome.UNKNOWN
_WHY = Reason("why", Origin.QEMU, "because")


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        ([], D),
        ([D], D),
        ([D, D], D),
        ([D, R], P),
        ([D, F], P),
        ([D, U], U),
        ([R], R),
        ([R, R], R),
        ([R, F], F),
        ([F], F),
        ([U, F, R], U),
        ([P], P),
        ([P, F], P),
        ([P, U], U),
    ],
)
def test_the_slots_outcomes_make_up_the_wholes(outcomes: list[Outcome], whole: Outcome) -> None:
    assert summarize(outcomes) is whole


@given(st.lists(st.sampled_from(list(Outcome)), min_size=1))
def test_the_whole_is_never_better_than_its_slots(outcomes: list[Outcome]) -> None:
    whole = summarize(outcomes)
    assert (whole is D) == (set(outcomes) == {D})
    assert (whole is U) == (U in outcomes)
    if whole is R:
        assert set(outcomes) == {R}


def _result(outcome: Outcome, reason: Reason | None = None) -> OperationResult:
    return OperationResult(Request(Operation.PLUG, 1), outcome, (), 0.1, reason)


@pytest.mark.parametrize(("outcome", "status"), [(D, 0), (F, 1), (R, 3), (U, 4), (P, 6)])
def test_each_outcome_has_its_exit_status(outcome: Outcome, status: int) -> None:
    assert of_result(documents.of_result(_result(outcome))) == status
    assert of_result(documents.of_result(_result(outcome, _WHY))) == status


@pytest.mark.parametrize("code", ["qemu-gone", "qemu-silent"])
def test_an_operation_that_lost_qemu_ends_as_unreachable(code: str) -> None:
    for outcome in (U, R):  # refused: before anything had begun
        ended = _result(outcome, Reason(code, Origin.QEMU, "gone"))
        assert of_result(documents.of_result(ended)) is Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (VcpuctlError, 1),
        (UsageError, 2),
        (RefusedError, 3),
        (QemuError, 3),
        (UnreachableError, 5),
        (QemuGoneError, 5),
        (AgentGoneError, 5),
    ],
)
def test_each_error_has_its_exit_status(kind: type[VcpuctlError], status: int) -> None:
    assert of_error(kind(_WHY)) == status


def test_a_refused_plan_gives_a_result_with_every_refusal() -> None:
    view = vm(3, {0}, {})
    decided = plan(view, Request(Operation.OFFLINE, None, ("1", "2")))
    result = refused(decided, view, 0.25)
    assert result.before == result.after == Counts(1, view.online_vcpus)
    assert result.outcome is R
    assert [(slot.slot, slot.outcome) for slot in result.slots] == [(1, R), (2, R)]
    assert result.reason is decided.refusals[0].reason


def test_a_result_is_json_as_the_design_says() -> None:
    slot = SlotResult(3, "vcpu-3", D, None, {"device_add": 0.0123456789}, (5,))
    whole = OperationResult(Request(Operation.PLUG, 1), D, (slot,), 1.00000049)
    assert json.loads(json.dumps(documents.of_result(whole))) == {
        "operation": "plug",
        "outcome": "done",
        "requested": {"count": 1, "slots": []},
        "reason": None,
        "slots": [
            {
                "slot": 3,
                "id": "vcpu-3",
                "outcome": "done",
                "reason": None,
                "phases": {"device_add": 0.012346},
                "guest_cpus": [5],
            }
        ],
        "recovered": [],
        "elapsed": 1.0,
        "notes": [],
    }
