# SPDX-License-Identifier: Apache-2.0
"""How many vCPUs a VM has: what a record of its changes says before and after each of them."""

from __future__ import annotations

from typing import NamedTuple

from ..view import VmView


class Counts(NamedTuple):
    """How many vCPUs QEMU has, and how many are online in the guest; ``online`` is None if that cannot be told."""

    plugged: int
    online: int | None

    @classmethod
    def of(cls, view: VmView) -> Counts:
        """Return what a look has shown."""
        return cls(view.plugged_vcpus, view.online_vcpus)
