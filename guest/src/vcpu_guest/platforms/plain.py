# SPDX-License-Identifier: Apache-2.0
"""Any machine that no other module knows: its CPUs can be seen, but not named."""

from __future__ import annotations

from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.base import Listed
from vcpu_guest.platforms.hints import HINTS


class Plain(Listed):
    """Present CPUs as the kernel lists them, without identities."""

    name = "plain"
    scheme = ""
    hints = HINTS

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """None is known."""
        return ""
