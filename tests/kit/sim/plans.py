# SPDX-License-Identifier: Apache-2.0
"""Plans for a VM that is a value: what was decided, in few words."""

from __future__ import annotations

from vcpu_host.core.planning.plan import Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.view import VmView


def planned(view: VmView, operation: str, count: int | None = None, *selectors: str) -> Plan:
    """The plan for so many vCPUs, or for these slots."""
    return plan(view, Request(Operation(operation), count, selectors))


def steps(decided: Plan) -> list[tuple[str, int]]:
    """What will be done, to which slot, in order; a plan that refuses fails the test."""
    assert not decided.refusals, decided.refusals
    return [(str(step.kind), step.slot.index) for step in decided.steps]


def codes(decided: Plan) -> list[str]:
    """Why nothing is done; a plan that does anything fails the test."""
    assert not decided.steps
    return [refusal.reason.code for refusal in decided.refusals]
