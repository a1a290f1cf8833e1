# SPDX-License-Identifier: Apache-2.0
"""What the guest's SMT mode keeps offline: all threads of a core but its first (Linux, kernel/cpu.c, cpu_bootable)."""

from __future__ import annotations

from .. import codes
from ..guest import Environment
from ..model import SlotState
from ..reason import Origin, Reason
from ..view import SlotView, VmView

#: With these in /sys/devices/system/cpu/smt/control no second thread comes online. "forceoff" cannot be changed before
#: the next boot (Documentation/ABI/testing/sysfs-devices-system-cpu).
_OFF, _FORCED = ("off", "forceoff"), "forceoff"
#: What on the kernel's command line forces it: admin-guide/kernel-parameters.txt.
_FORCE = ("nosmt=force", "l1tf=full,force")


def is_off(environment: Environment) -> bool:
    """Return whether the guest keeps second threads offline, by what the agent says."""
    return environment.smt_control in _OFF


def remedy(environment: Environment) -> str:
    """Return how such threads could come online."""
    if environment.smt_control != _FORCED:
        return "echo on > /sys/devices/system/cpu/smt/control in the guest brings such threads online"
    named = [argument for argument in environment.kernel_arguments if argument in _FORCE]
    what = " and ".join(named) or " or ".join(_FORCE)
    return f"remove {what} from the guest's kernel command line: forceoff stays so until its next boot"


def kept_offline(view: VmView) -> dict[int, Reason]:
    """Return the slots, empty or not, that the guest would not bring online, by index."""
    environment = Environment() if view.agent is None else view.agent.environment
    found = {slot.index: _reason(slot, environment) for slot in view.slots if dark(slot)}
    if is_off(environment):
        second = [slot for slot in view.slots if view.platform.is_second_thread(slot.slot)]
        if not any(slot.online_vcpus for slot in second):  # else it was switched on just now
            found.update({slot.index: _reason(slot, environment) for slot in second})
    return found


def dark(slot: SlotView) -> bool:
    """Return whether the guest shows all of the slot's threads, and keeps them offline for being second ones."""
    return slot.state is SlotState.OFFLINE and all(thread.parked for thread in slot.threads)


def _reason(slot: SlotView, environment: Environment) -> Reason:
    mode = f" (smt/control is {environment.smt_control})" if is_off(environment) else ""
    text = f"slot {slot.index} is not the first thread of its core, and the guest keeps such threads offline{mode}"
    return Reason(codes.SMT_OFF, Origin.GUEST, text, remedy(environment))
