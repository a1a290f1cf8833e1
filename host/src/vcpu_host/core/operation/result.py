# SPDX-License-Identifier: Apache-2.0
"""How an operation ended, slot by slot, and how the slots' outcomes make up the whole's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..planning.plan import Plan, Request
from ..reason import Outcome, Reason
from ..view import VmView
from .counts import Counts

if TYPE_CHECKING:
    from ..workload.model import Note

#: What a slot goes through, up or down.
PHASES = ("device_add", "arrival", "online", "offline", "device_del")


@dataclass(frozen=True, slots=True)
class SlotResult:
    """One slot's outcome.

    ``phases`` holds seconds by phase (``PHASES``), ``guest_cpus`` the logical CPUs it is in the guest.
    """

    slot: int
    device_id: str
    outcome: Outcome
    reason: Reason | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    guest_cpus: tuple[int, ...] = ()


class OperationResult(NamedTuple):
    """The whole. ``reason`` is set where one cause ended or forbade all of it (refused up front, QEMU died).

    ``recovered`` is what became of removals that earlier operations had begun, and that were seen to first. ``before``
    counts the vCPUs of the VM when the operation looked first, ``after`` as far as the operation saw them when it
    ended; None if nobody looked, or could see how it ended. ``notes`` say what it did to the guest's programs.
    """

    request: Request
    outcome: Outcome
    slots: tuple[SlotResult, ...]
    elapsed: float
    reason: Reason | None = None
    recovered: tuple[SlotResult, ...] = ()
    before: Counts | None = None
    after: Counts | None = None
    notes: tuple[Note, ...] = ()


def summarize(outcomes: Iterable[Outcome]) -> Outcome:
    """Return one outcome for many: what is unknown outweighs all, success beside anything else is partial."""
    seen = set(outcomes)
    if not seen or seen == {Outcome.DONE}:
        return Outcome.DONE
    if Outcome.UNKNOWN in seen:
        return Outcome.UNKNOWN
    if Outcome.DONE in seen or Outcome.PARTIAL in seen:
        return Outcome.PARTIAL
    return Outcome.FAILED if Outcome.FAILED in seen else Outcome.REFUSED


def refused(plan: Plan, view: VmView, elapsed: float) -> OperationResult:
    """Return the result of a plan, made from ``view``, that refuses: nothing was tried."""
    slots = tuple(
        SlotResult(refusal.slot, "", Outcome.REFUSED, refusal.reason)
        for refusal in plan.refusals
        if refusal.slot is not None
    )
    why, seen = plan.refusals[0].reason, Counts.of(view)
    return OperationResult(
        plan.request, Outcome.REFUSED, slots, elapsed, why, before=seen, after=seen, notes=plan.notes
    )
