# SPDX-License-Identifier: Apache-2.0
"""Has a VM start next time with what an operation has brought about (--config)."""

from __future__ import annotations

from dataclasses import replace

from .. import ports
from ..core import codes
from ..core.model import HostView
from ..core.operation.result import OperationResult, SlotResult, summarize
from ..core.planning.plan import Operation
from ..core.reason import Outcome, Reason
from ..errors import VcpuctlError


async def kept(vmm: ports.Vmm, before: HostView, result: OperationResult) -> OperationResult:
    """Return the operation's result once the VM's definition has the same vCPUs.

    ``before`` is a look from before the operation. For scale the definition gets all that is there, for plug and unplug
    what they have done. A slot whose part of it fails is done in part only: it is as wanted now, and will not be then.
    """
    done = {slot.slot for slot in result.slots if slot.outcome is Outcome.DONE}
    whole = result.request.operation is Operation.SCALE and result.outcome is Outcome.DONE
    asked = frozenset(slot.index for slot in before.slots) if whole else done
    try:
        after = await vmm.look_slots(before)
        wanted = {slot.index: slot.filled for slot in after.slots if slot.index in asked}
        failed = await vmm.keep(wanted, whole=whole)
    except VcpuctlError as error:  # what was done is done, and has to be said
        failed = dict.fromkeys(sorted(done or asked), error.reason)
    if not failed:
        return result
    known = {slot.slot: slot for slot in result.slots}
    for index, reason in failed.items():
        today = index < len(before.slots)  # the definition may have more, from the next start on
        slot = known.get(index) or SlotResult(index, before.slots[index].handle if today else "", Outcome.DONE)
        known[index] = replace(slot, outcome=Outcome.PARTIAL, reason=_not_kept(index, reason, today=today))
    slots = tuple(known[index] for index in sorted(known))
    return result._replace(slots=slots, outcome=summarize(slot.outcome for slot in slots))


def _not_kept(index: int, why: Reason, *, today: bool) -> Reason:
    text = f"slot {index} is as wanted now, and the VM's definition could not be changed to the same: {why.text}"
    if not today:
        text = f"the VM's definition has a vCPU {index}, for which there is no slot yet, and keeps it: {why.text}"
    return Reason(codes.NOT_KEPT, why.who, text, why.hint or "mend the definition, and run the same command again")
