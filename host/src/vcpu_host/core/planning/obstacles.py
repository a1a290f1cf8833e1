# SPDX-License-Identifier: Apache-2.0
"""Which empty slots cannot be filled, how many can, and why: what is known before anything is sent (promise 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import codes
from ..descriptors import too_few
from ..model import HostView, Slot
from ..platforms import Platform
from ..platforms.unknown import unsupported
from ..reason import Origin, Reason
from ..text import cpu_count, some_vcpus
from ..view import VmView, removal_stuck
from . import smt
from .plan import Step, StepKind


def blocked(view: VmView, *, by_guest: bool | None = None) -> Mapping[int, Reason]:
    """Return the empty slots that cannot be plugged now, by index, in slot order.

    ``by_guest``: those too that Linux could not use. That is left out where nobody says that the guest is Linux.
    """
    linux = view.agent is not None if by_guest is None else by_guest
    kept_offline = smt.kept_offline(view) if linux else {}
    host, platform = view.host, view.platform
    # A machine may have thousands of slots, and mostly there is nothing to be said of any.
    restricted = platform.restricts(host)
    found = {}
    for slot in host.slots:
        if slot.filled:
            continue
        reason = None
        if restricted or slot.leaving or slot.phantoms or slot.default_id in host.devices:
            reason = cannot_fill(host, slot, platform)
        if reason is None and linux:
            reason = kept_offline.get(slot.index) or (platform.guest_cannot_use(host, slot) if restricted else None)
        if reason is not None:
            found[slot.index] = reason
    return found


def cannot_fill(host: HostView, slot: Slot, platform: Platform, device_id: str | None = None) -> Reason | None:
    """Return why QEMU is not asked to fill this empty slot, or None; all that can be told without the guest.

    ``device_id`` is what the CPU is to be called, if not by the slot's own ``default_id``.
    """
    if slot.leaving:
        return removal_stuck(slot)
    if slot.phantoms:
        return _phantom(slot)
    return platform.cannot_plug(host, slot) or _id_taken(host, slot, device_id or slot.default_id)


def nameless(view: VmView) -> Reason:
    """Return the reason that a guest CPU has no identity.

    Without one nobody can tell which guest CPU is meant, nor whether one has come or gone.
    """
    hint = "switch CPUs in the guest by hand; what is plugged or unplugged without the agent nobody verifies"
    return unsupported(view.host)._replace(hint=hint)


def unnamed(view: VmView, steps: Sequence[Step]) -> Reason | None:
    """Return why these steps are not begun: of one of them nobody can tell which guest CPU it is about."""
    ordered = view.platform.numbers_plugs(view.host)  # by their order the plugs will have names
    asked = (each for each in steps if not (ordered and each.kind is StepKind.PLUG))
    return None if all(name for each in asked for name in each.firmware_ids) else nameless(view)


def _phantom(slot: Slot) -> Reason:
    """Return the reason for a vCPU that has no CPU object, so nobody can remove it.

    It uses up the slot's number all the same.
    """
    names = ", ".join(str(thread.cpu_index) for thread in slot.phantoms)
    return Reason(
        codes.PHANTOM_VCPU,
        Origin.QEMU,
        f"QEMU has a vCPU for slot {slot.index} (cpu-index {names}) that is no CPU: a device_add of it failed half way",
        "leave that slot alone; a new start of the VM rids it of such a vCPU",
    )


def _id_taken(host: HostView, slot: Slot, device_id: str) -> Reason | None:
    """Return the reason that another device has the id.

    All devices' ids are one name space (system/qdev-monitor.c, qdev_set_id).
    """
    kind = host.devices.get(device_id)
    if kind is None:
        return None
    elsewhere = next((other.index for other in host.slots if other.device_id == device_id), None)
    holder = f"a device of type {kind}" if elsewhere is None else f"the CPU in slot {elsewhere}"
    return Reason(
        codes.ID_TAKEN,
        Origin.VCPUCTL,
        f"slot {slot.index} cannot have its id {device_id!r}: {holder} has it",
        "remove that device, or give it another id at the VM's next start; or choose another slot",
    )


def too_many(view: VmView, steps: Sequence[Step]) -> Reason | None:
    """Return why not all that these steps plug can come, although each of them could."""
    plugged = sum(each.slot.vcpus for each in steps if each.kind is StepKind.PLUG)
    return beyond_limit(view.host, view.platform, plugged) or _beyond_the_guest(view, steps)


def unheard(view: VmView, steps: Sequence[Step]) -> Reason | None:
    """Return why these steps would wait for nothing: the guest is to hear of a CPU that comes or goes, and cannot."""
    trouble = view.guest_trouble
    if trouble is None or not any(each.kind is StepKind.UNPLUG or _arrivals(view, each) for each in steps):
        return None
    return trouble


def no_way_back(view: VmView, steps: Sequence[Step]) -> Reason | None:
    """Return why these removals cannot be all or nothing.

    QEMU does not survive that those which came about are plugged again. At least one has to fail for that.
    """
    vcpus = [each.slot.vcpus for each in steps if each.kind is StepKind.UNPLUG]
    limit = beyond_limit(view.host, view.platform, sum(vcpus) - min(vcpus, default=0))
    if limit is None:
        return None
    return limit._replace(text=f"what was unplugged may have to be taken back, and vcpuctl {limit.text}")


def survives_replacing(view: VmView, steps: Sequence[Step]) -> bool:
    """Return whether QEMU survives, for all that is known, that CPUs the guest never noticed are plugged again."""
    if view.platform.dies_of_replug(view.host):
        return False
    vcpus = sum(each.slot.vcpus for each in steps if each.replaceable or each.kind is StepKind.PLUG)
    return beyond_limit(view.host, view.platform, vcpus) is None


def _beyond_the_guest(view: VmView, steps: Sequence[Step]) -> Reason | None:
    """Return the reason that the guest's kernel cannot have so many CPUs.

    It never has more than it took for possible when it booted (``cpu_possible_mask``).
    """
    if view.agent is None:
        return None
    possible = cpu_count(view.agent.environment.possible)
    present = view.plugged_vcpus if view.guest is None else len(view.guest.cpus)
    coming = sum(_arrivals(view, each) for each in steps)
    left = max(0, possible - present)
    if not possible or coming <= left:
        return None
    cause = view.platform.few_possible(view.host, view.agent)
    text = (
        f"the guest's kernel can have {possible} CPUs and has {present}: {coming} more cannot come, "
        f"{left or 'none'} at most"
    )
    return Reason(codes.GUEST_POSSIBLE, Origin.GUEST, f"{text}; {cause.why}" if cause.why else text, cause.fix)


def _arrivals(view: VmView, each: Step) -> int:
    """Return how many CPUs the guest does not have yet that the step is to bring."""
    if each.kind is StepKind.PLUG:
        return each.slot.vcpus
    if each.kind is StepKind.ONLINE:
        return sum(thread.cpu is None for thread in view.slots[each.slot.index].threads)
    return 0


def beyond_limit(host: HostView, platform: Platform, vcpus: int) -> Reason | None:
    """Return why QEMU is not asked to plug so many vCPUs: it would end of it, now or later."""
    limit = platform.plug_limit(host)
    if limit is None or vcpus <= limit[0]:
        return too_few(host.descriptors, host.accel, vcpus)
    left, reason = limit
    return reason._replace(text=f"cannot plug {some_vcpus(vcpus)}, {left or 'none'} at most: {reason.text}")
