# SPDX-License-Identifier: Apache-2.0
"""QEMU's file descriptors: how many are left, for how many more vCPUs that is enough, and when that is too few.

A QEMU that has none left takes connections to its monitor no more, spins in its main loop, and is lost in the end (seen
with 10.0 under KVM). A plug is what brings it there: under KVM each vCPU has a descriptor of its own, which stays when
it is unplugged and is used again when its number is (the vCPU is parked; accel/kvm/kvm-all.c, kvm_park_vcpu), and since
QEMU 8.1 another one for its statistics (commit 3b6f485275ae), which is opened at each plug and never closed (seen with
10.0 and 11.1). An unplug takes none, so it is never refused for that. Under TCG a vCPU has none.
"""

from __future__ import annotations

from typing import NamedTuple

from . import codes
from .finding import Finding, Level
from .reason import Origin, Reason
from .text import more_vcpus, some_vcpus

#: What is left to QEMU for all else. The way out of a shortage is a migration, which takes a connection for each of its
#: channels (multifd-channels is 2 by default; 16 is much); monitors, the agent's port and a console take one for each
#: client, a disk or a network card that is plugged takes a few for each of its queues.
RESERVE = 64
#: At most, under KVM: the vCPU's own, unless a parked one is used again, and that of its statistics.
PER_VCPU = 2
#: Warn when no more vCPUs than this can be plugged, or less than a tenth of all descriptors is left.
_FEW_VCPUS = 100
_FEW_PARTS = 10


class Descriptors(NamedTuple):
    """How many file descriptors QEMU's process has open, and may have; ``pid`` is its id, as seen from here.

    ``ceiling`` is the highest limit that root can give it (fs.nr_open); 0 if that is not known.
    """

    open: int
    limit: int
    pid: int
    ceiling: int = 0

    @property
    def left(self) -> int:
        """How many more it can open."""
        return max(0, self.limit - self.open)

    @property
    def text(self) -> str:
        """The numbers, in words."""
        return f"QEMU (process {self.pid}) has {self.open} of {self.limit} file descriptors open"

    @property
    def remedy(self) -> str:
        """What helps, at once and for good. A limit is raised by root, up to fs.nr_open, and counts at once."""
        more = max(4 * self.limit, 4096)
        if self.ceiling:
            more = min(more, self.ceiling)
        frees = "a migration or a restart of the VM frees what is used up"
        if more <= self.limit:
            return f"{frees}; the limit cannot be raised further, unless fs.nr_open is: sysctl fs.nr_open"
        return (
            f"raise the limit at once, as root: prlimit --pid {self.pid} --nofile={more}:{more}; for the VM's next "
            f"start: LimitNOFILE= of its service, or max_files in libvirt's qemu.conf; {frees}"
        )


def vcpus_left(has: Descriptors | None, accel: str) -> int | None:
    """Return how many more vCPUs can be plugged for sure; None if that is not known, or nothing limits it."""
    return None if has is None or accel != "kvm" else max(0, has.left - RESERVE) // PER_VCPU


def too_few(has: Descriptors | None, accel: str, vcpus: int) -> Reason | None:
    """Return why so many vCPUs are not plugged, or None."""
    left = vcpus_left(has, accel)
    if has is None or left is None or vcpus <= left:
        return None
    return Reason(
        codes.FEW_DESCRIPTORS,
        Origin.VCPUCTL,
        f"cannot plug {some_vcpus(vcpus)}, {left or 'none'} at most: {has.text}; under KVM a vCPU takes up to "
        f"{PER_VCPU}, and {RESERVE} are left to QEMU, which loses its monitor and in the end the VM when it has none",
        has.remedy,
    )


def none_left(has: Descriptors, path: str) -> Reason:
    """Return why a monitor that listens does not greet."""
    return Reason(
        codes.FEW_DESCRIPTORS,
        Origin.QEMU,
        f"{path} sends no QMP greeting: {has.text}, so it can accept no client",
        has.remedy,
    )


def are_few(has: Descriptors, accel: str) -> bool:
    """Return whether it is time to do something."""
    left = vcpus_left(has, accel)
    if left is None:
        return has.left < RESERVE
    return left < _FEW_VCPUS or has.left < has.limit // _FEW_PARTS


def found(has: Descriptors | None, accel: str) -> Finding:
    """Return what ``doctor`` says of them."""
    if has is None:
        return Finding(
            Level.NOTE,
            codes.DESCRIPTORS,
            "how many file descriptors QEMU has left cannot be seen from here"
            + ("; under KVM QEMU 8.1 and newer uses one up with each vCPU that is plugged" if accel == "kvm" else ""),
            "ls /proc/PID/fd | wc -l and /proc/PID/limits, where QEMU runs, as its user or as root",
        )
    left = vcpus_left(has, accel)
    text = has.text if left is None else f"{has.text}: enough for {more_vcpus(left)}"
    if not are_few(has, accel):
        return Finding(Level.OK, codes.DESCRIPTORS, text)
    if left is not None:
        text += "; under KVM QEMU 8.1 and newer leaves one behind at each unplug, and loses the VM when it has none"
    return Finding(Level.WARNING if left != 0 else Level.PROBLEM, codes.FEW_DESCRIPTORS, text, has.remedy)
