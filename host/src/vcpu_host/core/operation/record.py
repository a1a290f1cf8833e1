# SPDX-License-Identifier: Apache-2.0
"""What QEMU was asked for and whose end is not known yet: the write-ahead record of one VM, as values.

An intent is recorded before ``device_add`` or ``device_del`` goes out and struck out when its slot has ended in a known
way. So whoever dies in between, the next look knows which slots may still change by themselves, and since when. It
settles nothing by itself: the view does (promise 3), or the guest's refusal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from ..intent import Intent, IntentKind
from ..model import HostView, SlotState
from ..reason import Outcome

if TYPE_CHECKING:
    from ..view import SlotView, VmView
    from .events import Action
    from .result import OperationResult


def before(intents: Sequence[Intent], actions: Iterable[Action], host: HostView, now: float) -> tuple[Intent, ...]:
    """Return the record as it has to be before these actions are carried out. ``now`` is in seconds since the epoch."""
    from .events import DoPlug, DoUnplug  # late: who only looks at a VM does nothing

    asked = [action for action in actions if isinstance(action, (DoPlug, DoUnplug))]
    if not asked:
        return tuple(intents)  # as it mostly is, and there may be hundreds on record
    by_slot = {intent.slot: intent for intent in intents}
    for action in asked:
        if isinstance(action, DoPlug):
            name = host.slots[action.slot].default_id
            by_slot[action.slot] = Intent(IntentKind.PLUG, action.slot, name, now)
        else:
            known = by_slot.get(action.slot)
            slot = host.slots[action.slot]
            since = known.since if known is not None and known.kind is IntentKind.UNPLUG else now
            threads = tuple(thread.thread_id for thread in slot.threads)
            by_slot[action.slot] = Intent(
                IntentKind.UNPLUG,
                action.slot,
                slot.handle or slot.default_id,
                since,
                threads,
                host.ost.get(action.slot),
                host.qemu_seen,
            )
    return tuple(by_slot[slot] for slot in sorted(by_slot))


def after(
    intents: Sequence[Intent],
    result: OperationResult,
    asked: Collection[int],
    host: HostView,
    unsent: Collection[int] = (),
) -> tuple[Intent, ...]:
    """Return the record when the operation has ended.

    What this operation ``asked`` of QEMU, and saw to a known end, is out. A removal that an earlier one asked for is
    open all the same, whatever became of the slot in the guest: only an empty slot, by the last look at ``host``, ends
    it here. ``unsent`` are the slots whose removal this operation has put on record and never sent: it was held up
    until the guest's word had grown old, or the operation ended before.
    """
    known = {slot.slot for slot in result.slots if slot.outcome is not Outcome.UNKNOWN}

    def over(intent: Intent) -> bool:
        if intent.kind is IntentKind.UNPLUG and (host.slots[intent.slot].vacant or intent.slot in unsent):
            return True
        told = intent.kind is IntentKind.PLUG and not result.request.without_agent
        return intent.slot in known and (told or intent.slot in asked)

    return tuple(intent for intent in intents if not over(intent))


def settle(intents: Sequence[Intent], view: VmView) -> tuple[Intent, ...]:
    """Return what of it is still open by this look."""
    by_slot = {slot.index: slot for slot in view.slots}
    return tuple(i for i in intents if i.slot in by_slot and _open(i, by_slot[i.slot], view))


def merged(
    now: Sequence[Intent], loaded: Collection[Intent], tried: Collection[Intent], theirs: Sequence[Intent]
) -> tuple[Intent, ...]:
    """Return what has to be written where others may have written since the record was ``loaded``.

    ``theirs`` stands there. ``now`` is what the record is to be by what we know, ``tried`` what we wrote ourselves, or
    may have written. What is neither of these is somebody else's and stays, but for a slot of which we have something
    new to say.
    """
    mine, there = ({intent.slot: intent for intent in intents} for intents in (now, theirs))

    def right(slot: int) -> Intent | None:
        ours, found = mine.get(slot), there.get(slot)
        if ours is not None and ours not in loaded:
            return ours
        if found is not None and found not in loaded and found not in tried:
            return found
        return ours if found is not None else None

    every = (right(slot) for slot in sorted({*mine, *there}))
    return tuple(intent for intent in every if intent is not None)


def _open(intent: Intent, slot: SlotView, view: VmView) -> bool:
    if not slot.slot.filled:
        return intent.kind is IntentKind.UNPLUG and not slot.slot.vacant
    if intent.kind is IntentKind.PLUG:
        return slot.state is not SlotState.ONLINE and slot.slot.device_id == intent.device_id
    if intent.device_id not in (slot.slot.device_id, slot.slot.path):
        return False
    now = tuple(thread.thread_id for thread in slot.slot.threads)
    if intent.threads and now and intent.threads != now:  # who looks at libvirt's record alone sees none
        return False
    if not intent.ost_seen:
        return True  # by who asked: any refusal may be older than that
    ost = view.host.ost.get(slot.index)
    return ost is None or ost == intent.ost or view.platform.refusal(ost) is None
