# SPDX-License-Identifier: Apache-2.0
"""What the agent asks of every platform, and what platforms of two kinds share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from vcpu_guest.core.model import Hint, Reason
from vcpu_guest.kernel.sysfs import Sysfs


class Platform(Protocol):
    """How one kind of machine shows its CPUs."""

    #: The name for Hello.
    name: str
    #: What identities begin with, without the colon; "" if the platform shows none.
    scheme: str
    #: Who carries out hotplug events: a key of machine.HOTPLUG_HANDLERS.
    hotplug: str
    #: What the kernel's events mean here, by their names; an event that is not listed only asks for a look.
    hints: Mapping[str, Hint]

    def present(self, sysfs: Sysfs) -> frozenset[int]:
        """Return the logical numbers of all present CPUs."""

    def is_present(self, sysfs: Sysfs, number: int) -> bool:
        """Say whether this CPU is present: the quick way, for the path from an event to the write."""

    def incarnation(self, sysfs: Sysfs, number: int) -> int | None:
        """Return a number that changes when cpuN becomes another CPU than before; None while there is no cpuN."""

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """Return the firmware identity of a present CPU; "" if it is not known, or not yet."""

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Return why bringing this offline CPU online will fail, if that is known beforehand."""

    def would_not_start(self, sysfs: Sysfs, number: int, code: int, arguments: Sequence[str]) -> Reason | None:
        """Return what errno `code` means on this machine alone, if the kernel refused to bring the CPU online with it.

        `arguments`: those of the kernel's command line that bear on CPUs.
        """

    def node(self, sysfs: Sysfs, number: int) -> int | None:
        """Return the NUMA node of a present CPU; None where the kernel does not show it, or not while it is offline."""


class Registered:
    """Platforms whose kernel has directories for present CPUs only (drivers/base/cpu.c, register_cpu)."""

    hotplug = "kernel"

    def present(self, sysfs: Sysfs) -> frozenset[int]:
        """Return the CPUs that have a directory."""
        return sysfs.directories()

    def is_present(self, sysfs: Sysfs, number: int) -> bool:
        """Say whether this CPU is present, as in `present`."""
        return sysfs.incarnation(number) is not None

    def incarnation(self, sysfs: Sysfs, number: int) -> int | None:
        """Return the directory's number: the directory goes with the CPU."""
        return sysfs.incarnation(number)

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Return None: nothing is known beforehand."""
        return None

    def would_not_start(self, sysfs: Sysfs, number: int, code: int, arguments: Sequence[str]) -> Reason | None:
        """Return None: the errno means what it means everywhere."""
        return None

    def node(self, sysfs: Sysfs, number: int) -> int | None:
        """Return the node that the directory links to; the link is made with the directory."""
        return sysfs.node(number)


class Listed:
    """Platforms whose kernel lists its present CPUs, and may have directories for all possible ones."""

    hotplug = "kernel"

    def present(self, sysfs: Sysfs) -> frozenset[int]:
        """Return the CPUs of the kernel's list."""
        return sysfs.mask("present")

    def is_present(self, sysfs: Sysfs, number: int) -> bool:
        """Say whether this CPU is present, as in `present`."""
        return number in sysfs.mask("present")

    def incarnation(self, sysfs: Sysfs, number: int) -> int | None:
        """Return the directory's number."""
        return sysfs.incarnation(number)

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Return None: nothing is known beforehand."""
        return None

    def would_not_start(self, sysfs: Sysfs, number: int, code: int, arguments: Sequence[str]) -> Reason | None:
        """Return None: the errno means what it means everywhere."""
        return None

    def node(self, sysfs: Sysfs, number: int) -> int | None:
        """Return the node whose list has the CPU.

        A directory that was there before its CPU may link to any node. On POWER the kernel learns a CPU's node before
        it brings it online, and the link stays as it was at boot: drivers/base/cpu.c, cpu_subsys_online, changes it
        only if the node changes meanwhile (seen with Linux 6.1).
        """
        return sysfs.node_running(number)
