# SPDX-License-Identifier: Apache-2.0
"""Any machine that no other module knows: its CPUs can be seen, but not named."""

from __future__ import annotations

from vcpu_guest.core.model import Reason
from vcpu_guest.platforms.events import HINTS
from vcpu_guest.sysfs import Sysfs


class Plain:
    """Present CPUs as the kernel lists them, without identities."""

    name = "plain"
    scheme = ""
    events = "udev"
    hints = HINTS

    def present(self, sysfs: Sysfs) -> frozenset[int]:
        """The kernel's own list: directories may exist for all possible CPUs here."""
        return sysfs.mask("present")

    def is_present(self, sysfs: Sysfs, number: int) -> bool:
        """As `present`, for one."""
        return number in sysfs.mask("present")

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """None is known."""
        return ""

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Nothing is known beforehand."""
        return None
