# SPDX-License-Identifier: Apache-2.0
"""Which empty slots cannot be filled, how many can, and why: what is known before anything is sent (promise 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .model import HostView, Reason, Slot
from .plan import Step, StepKind
from .platforms import Platform
from .view import VmView, removal_stuck


def blocked(view: VmView) -> Mapping[int, Reason]:
    """The empty slots that cannot be plugged now, by index, in slot order."""
    reasons = ((slot.index, cannot_fill(view.host, slot, view.platform)) for slot in view.host.slots if not slot.filled)
    return {index: reason for index, reason in reasons if reason is not None}


def cannot_fill(host: HostView, slot: Slot, platform: Platform) -> Reason | None:
    """Why QEMU is not asked to fill this empty slot, or None; all that can be told without the guest."""
    if slot.leaving:
        return removal_stuck(slot)
    return platform.cannot_plug(host, slot)


def too_many(view: VmView, steps: Iterable[Step]) -> Reason | None:
    """Why not all that these steps plug can come, although each of them could."""
    return beyond_limit(view.host, view.platform, sum(s.slot.vcpus for s in steps if s.kind is StepKind.PLUG))


def beyond_limit(host: HostView, platform: Platform, vcpus: int) -> Reason | None:
    """Why QEMU is not asked to plug so many vCPUs: it would end of it."""
    limit = platform.plug_limit(host)
    if limit is None or vcpus <= limit[0]:
        return None
    left, reason = limit
    return replace(reason, text=f"cannot plug {vcpus} vCPUs, {left or 'none'} at most: {reason.text}")
