# SPDX-License-Identifier: Apache-2.0
"""What is to be said where QEMU and the record of whoever owns the VM (libvirt) do not agree."""

from __future__ import annotations

from collections.abc import Iterator

from . import codes
from .finding import Finding, Level
from .model import HostView, Recorded
from .reason import Origin, Reason


def record_behind(slot: int) -> Reason:
    """Return what it means that a CPU is gone from the guest and from QEMU, and its owner has not noticed.

    What libvirt loads of a save or migrates has the CPUs of its record (seen on 12.8: the CPU came back, without an
    error anywhere).
    """
    return Reason(
        codes.RECORD_BEHIND,
        Origin.LIBVIRT,
        f"the CPU of slot {slot} is gone from QEMU, and libvirt still has it on its record: a migration or a save "
        "brings it back",
        "have libvirt look anew before that: restart libvirtd, which leaves running domains alone, or, since libvirt "
        f"12.4, virsh setvcpu DOMAIN {slot} --disable --live --async",
    )


def record_alone() -> Reason:
    """Return that the guest and the VM's owner say so, and QEMU was not looked at."""
    return Reason(
        codes.RECORD_ALONE,
        Origin.LIBVIRT,
        "the guest and libvirt's record say so; QEMU itself was not looked at",
        "leave --no-monitor out (monitor = false in the VM's file) to have that proven, too",
    )


def disagreements(host: HostView) -> Iterator[Finding]:
    """Yield where QEMU's slots and the owner's record differ."""
    for slot in host.slots:
        if slot.recorded is Recorded.BEHIND:
            why = slot.fixed if slot.filled and slot.fixed is not None else record_behind(slot.index)
            yield Finding(Level.PROBLEM, why.code, why.text, why.hint)
