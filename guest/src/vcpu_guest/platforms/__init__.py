# SPDX-License-Identifier: Apache-2.0
"""What differs between machines, one module each; nothing else in the agent asks for the architecture.

A platform says which CPUs are present (on some, cpuN directories exist for all possible CPUs), how the firmware
calls each, and what is known beforehand about switching it. Where its news comes from may differ as well, so it
names its event source, and daemon.py opens that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vcpu_guest.core.model import Hint, Reason
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.platforms.plain import Plain
from vcpu_guest.sysfs import Sysfs


class Platform(Protocol):
    """How one kind of machine shows its CPUs."""

    #: For Hello.
    name: str
    #: What identities begin with, without the colon; "" if the platform shows none.
    scheme: str
    #: The source of news: "udev", the only one so far.
    events: str
    #: What the kernel's events mean here, by its words for them; one that is not listed only asks for a look.
    hints: Mapping[str, Hint]

    def present(self, sysfs: Sysfs) -> frozenset[int]:
        """The logical numbers of all present CPUs."""

    def is_present(self, sysfs: Sysfs, number: int) -> bool:
        """Whether this one CPU is present: the quick way, for the path from an event to the write."""

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """The firmware's name of a present CPU; "" if it cannot be told, or not yet."""

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Why bringing this offline CPU online is known to fail, if it is."""


#: Machine hardware name (uname) to platform.
_BY_ARCH: dict[str, type[Platform]] = {
    "x86_64": Acpi,
    "i686": Acpi,
    "i586": Acpi,
    "loongarch64": Acpi,
}


def detect(arch: str) -> Platform:
    """The platform of a machine that calls itself `arch`; Plain if it is not one that we know."""
    return _BY_ARCH.get(arch, Plain)()
