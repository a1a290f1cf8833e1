# SPDX-License-Identifier: Apache-2.0
"""Whether a guest still hears its firmware: the interrupt by which a CPU's arrival is told (SCI)."""

from __future__ import annotations

import time

from kit.chaos.home import pause
from kit.lab import Vm

#: How often it came (Documentation/ABI/testing/sysfs-firmware-acpi).
_COUNT = "cat /sys/firmware/acpi/interrupts/sci 2>/dev/null || echo none"
_WITHIN = 30.0
_NAME = "heard"


def deaf(vm: Vm) -> str:
    """Plug a CPU by hand, with nothing of ours in the way, and say so if the guest's interrupt does not come.

    Return "" if it comes, or if the guest has none, or QEMU no empty slot. The VM is of no further use then.
    """
    before = _count(vm)
    empty = [slot for slot in vm.qmp.execute("query-hotpluggable-cpus") if "qom-path" not in slot]
    if before is None or not empty:
        return ""
    vm.qmp.execute("device_add", driver=empty[-1]["type"], id=_NAME, **empty[-1]["props"])
    until = time.monotonic() + _WITHIN
    while time.monotonic() < until:
        if _count(vm) != before:
            return ""
        pause(0.5)
    return f"the guest takes no ACPI interrupt: {before} had come when QEMU plugged a CPU by hand, and no more since"


def _count(vm: Vm) -> int | None:
    words = vm.shell(_COUNT, 20.0).split()
    return int(words[0]) if words and words[0].isdecimal() else None
