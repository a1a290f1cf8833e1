# SPDX-License-Identifier: Apache-2.0
"""The stages of a request: what earlier operations left is ended first, then comes the request itself."""

from __future__ import annotations

from ..planning.plan import Operation, Plan, Request
from ..reason import Outcome, Reason
from ..view import VmView
from .limits import Limits
from .result import OperationResult

#: How long removals of earlier operations may take before the request goes on without them: seconds, and a share of the
#: request's own time.
_RECOVERY, _RECOVERY_SHARE = 15.0, 0.5


def recovery(decided: Plan, limits: Limits) -> tuple[Plan, Limits] | None:
    """Return the plan that ends removals of earlier operations, with its limits; None if there is nothing to end."""
    if not decided.recover:
        return None
    request = Request(Operation.UNPLUG, workload=decided.request.workload)
    removal = Plan(request, decided.recover, one_at_a_time=decided.one_at_a_time)
    seconds = min(_RECOVERY, limits.timeout * _RECOVERY_SHARE)
    return removal, limits._replace(timeout=seconds, timeout_per_vcpu=0.0)


def after_recovery(first: Plan, later: Plan) -> Plan:
    """Return the later plan with what the removals of the first one did to programs, which it knows nothing of."""
    slots = {step.slot.index for step in first.recover}
    hurt = [note for note in first.notes if note.hurts and slots.intersection(note.slots) and note not in later.notes]
    return later._replace(notes=(*hurt, *later.notes)) if hurt else later


def in_place_of(error: Reason, request: Request, earlier: OperationResult, elapsed: float) -> OperationResult:
    """Return the result of a request that could not be begun for this reason after removals of earlier operations.

    Those were carried out, so an error, which says that nothing was changed, would be untrue.
    """
    return OperationResult(request, Outcome.REFUSED, (), elapsed, error, before=earlier.before, after=earlier.after)


def lacks_agent(view: VmView, decided: Plan) -> Reason | None:
    """Return what is the matter with the agent, if that is all that stands in the way."""
    first = decided.refusals[0].reason if decided.refusals else None
    return first if view.guest is None and first is view.agent_trouble else None
