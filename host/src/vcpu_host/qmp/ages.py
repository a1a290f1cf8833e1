# SPDX-License-Identifier: Apache-2.0
"""QEMUs that are too old, by the commands that they have."""

from __future__ import annotations

from collections.abc import Collection

from ..core import codes
from ..core.reason import Origin, Reason

#: What every look at a VM takes: new in 2.7, and in 2.12.
_NEEDED = ("query-hotpluggable-cpus", "query-cpus-fast")
#: The way of before: it is told a number, and takes nothing back. It went in 5.2 (docs/about/removed-features.rst).
_LEGACY = "cpu-add"
_UPGRADE = (
    "start the VM with a newer QEMU: CPUs have slots since 2.7, vcpuctl needs 2.12 (and was tried on 7.2 and newer); "
    "with a machine type that has slots, too (pc, q35, and pseries from pseries-2.7 on)"
)


def too_old(version: tuple[int, int, int], commands: Collection[str]) -> Reason | None:
    """Return what this QEMU, which has these ``commands``, lacks, and what it has instead; None if it lacks nothing.

    A machine that cannot plug CPUs is another matter: QEMU has the commands then, and says so (traps, "no-hotplug").
    """
    lacking = [name for name in _NEEDED if name not in commands]
    if not lacking:
        return None
    text = f"QEMU {'.'.join(map(str, version))} has no {' and no '.join(lacking)}"
    if _NEEDED[0] in lacking and _LEGACY in commands:
        words = f"{text}: it plugs CPUs by {_LEGACY} alone, which knows no slots and cannot unplug"
        return Reason(codes.LEGACY_CPU_ADD, Origin.QEMU, words, _UPGRADE)
    return Reason(codes.QEMU_TOO_OLD, Origin.QEMU, text, _UPGRADE)
