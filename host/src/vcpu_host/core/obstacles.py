# SPDX-License-Identifier: Apache-2.0
"""Which empty slots cannot be filled, how many can, and why: what is known before anything is sent (promise 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .model import HostView, Reason, Slot, Who, slot_id
from .plan import Step, StepKind
from .platforms import Platform
from .view import VmView, removal_stuck

#: The code of an id that another device has.
ID_TAKEN = "id-taken"


def blocked(view: VmView) -> Mapping[int, Reason]:
    """The empty slots that cannot be plugged now, by index, in slot order."""
    reasons = ((slot.index, cannot_fill(view.host, slot, view.platform)) for slot in view.host.slots if not slot.filled)
    return {index: reason for index, reason in reasons if reason is not None}


def cannot_fill(host: HostView, slot: Slot, platform: Platform, device_id: str | None = None) -> Reason | None:
    """Why QEMU is not asked to fill this empty slot, or None; all that can be told without the guest.

    ``device_id`` is what the CPU is to be called, if not as any run would call it.
    """
    if slot.leaving:
        return removal_stuck(slot)
    return platform.cannot_plug(host, slot) or _id_taken(host, slot, device_id or slot_id(slot.index))


def _id_taken(host: HostView, slot: Slot, device_id: str) -> Reason | None:
    """All devices' ids are one name space (system/qdev-monitor.c, qdev_set_id)."""
    kind = host.devices.get(device_id)
    if kind is None:
        return None
    elsewhere = next((other.index for other in host.slots if other.device_id == device_id), None)
    holder = f"a device of type {kind}" if elsewhere is None else f"the CPU in slot {elsewhere}"
    return Reason(
        ID_TAKEN,
        Who.VCPUCTL,
        f"slot {slot.index} cannot have its id {device_id!r}: {holder} has it",
        "remove that device, or give it another id at the VM's next start; or choose another slot",
    )


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
