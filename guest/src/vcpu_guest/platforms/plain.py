# SPDX-License-Identifier: Apache-2.0
"""A machine that no other module knows: its CPUs can be seen, but have no identities."""

from __future__ import annotations

from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.base import Listed
from vcpu_guest.platforms.hints import HINTS


class Plain(Listed):
    """Any machine; the kernel lists its present CPUs."""

    name = "plain"
    scheme = ""
    hints = HINTS

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """Return "": no identity is known."""
        return ""
