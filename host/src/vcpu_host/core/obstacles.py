# SPDX-License-Identifier: Apache-2.0
"""Which empty slots cannot be filled, and why: what is known before anything is sent (promise 9)."""

from __future__ import annotations

from collections.abc import Mapping

from .model import HostView, Reason, Slot
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
