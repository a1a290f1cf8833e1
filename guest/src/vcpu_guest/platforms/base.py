# SPDX-License-Identifier: Apache-2.0
"""What the agent asks of every platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from vcpu_guest.core.model import Hint, Reason
from vcpu_guest.kernel.sysfs import Sysfs


class Platform(Protocol):
    """How one kind of machine shows its CPUs."""

    #: For Hello.
    name: str
    #: What identities begin with, without the colon; "" if the platform shows none.
    scheme: str
    #: Who carries out hotplug events: a key of machine.HOTPLUG_HANDLERS.
    hotplug: str
    #: What the kernel's events mean here, by its words for them; one that is not listed only asks for a look.
    hints: Mapping[str, Hint]

    def present(self, sysfs: Sysfs) -> frozenset[int]:
        """The logical numbers of all present CPUs."""

    def is_present(self, sysfs: Sysfs, number: int) -> bool:
        """Whether this one CPU is present: the quick way, for the path from an event to the write."""

    def incarnation(self, sysfs: Sysfs, number: int) -> int | None:
        """A number that is another one when cpuN is another CPU than before; None while there is none."""

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """The firmware's name of a present CPU; "" if it cannot be told, or not yet."""

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Why bringing this offline CPU online is known to fail, if it is."""

    def would_not_start(self, sysfs: Sysfs, number: int, code: int, arguments: Sequence[str]) -> Reason | None:
        """What the machine makes of errno `code`, with which the kernel did not bring this CPU online; None: nothing.

        `arguments`: those of the kernel's command line that bear on CPUs.
        """

    def node(self, sysfs: Sysfs, number: int) -> int | None:
        """The NUMA node of a present CPU; None where the kernel does not show it, or not while the CPU is offline."""


class Registered:
    """Platforms whose kernel has a directory for present CPUs only (drivers/base/cpu.c, register_cpu)."""

    hotplug = "kernel"

    def present(self, sysfs: Sysfs) -> frozenset[int]:
        """Those that have a directory."""
        return sysfs.directories()

    def is_present(self, sysfs: Sysfs, number: int) -> bool:
        """As `present`, for one."""
        return sysfs.incarnation(number) is not None

    def incarnation(self, sysfs: Sysfs, number: int) -> int | None:
        """The directory's own: it goes with the CPU."""
        return sysfs.incarnation(number)

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Nothing is known beforehand."""
        return None

    def would_not_start(self, sysfs: Sysfs, number: int, code: int, arguments: Sequence[str]) -> Reason | None:
        """Nothing that is not so everywhere."""
        return None

    def node(self, sysfs: Sysfs, number: int) -> int | None:
        """By the directory's link to it, which is made with the directory."""
        return sysfs.node(number)


class Listed:
    """Platforms whose kernel lists its present CPUs, and may have directories for all possible ones."""

    hotplug = "kernel"

    def present(self, sysfs: Sysfs) -> frozenset[int]:
        """The kernel's own list."""
        return sysfs.mask("present")

    def is_present(self, sysfs: Sysfs, number: int) -> bool:
        """As `present`, for one."""
        return number in sysfs.mask("present")

    def incarnation(self, sysfs: Sysfs, number: int) -> int | None:
        """The directory's own."""
        return sysfs.incarnation(number)

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Nothing is known beforehand."""
        return None

    def would_not_start(self, sysfs: Sysfs, number: int, code: int, arguments: Sequence[str]) -> Reason | None:
        """Nothing that is not so everywhere."""
        return None

    def node(self, sysfs: Sysfs, number: int) -> int | None:
        """By the nodes' lists.

        The link of a directory that was there before its CPU may be to any node: on POWER, where the kernel learns a
        CPU's node before it brings it online, it stays as it was at boot (drivers/base/cpu.c, cpu_subsys_online,
        changes it only if the node changes meanwhile. Seen with Linux 6.1).
        """
        return sysfs.node_running(number)
