# SPDX-License-Identifier: Apache-2.0
"""The host's budget: how many vCPUs all its VMs may have together."""

from __future__ import annotations

from collections.abc import Collection


class Budget:
    """Counts the vCPUs of each VM by its name. ``most`` is how many they may have together; None is no limit.

    A VM that is growing is counted with what it grows to, so that two of them cannot take the same vCPUs.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._names: frozenset[str] = frozenset()
        self._has: dict[str, int] = {}
        self._grows: dict[str, int] = {}

    def keep(self, names: Collection[str]) -> None:
        """Take which VMs there are, and forget all others."""
        self._names = frozenset(names)
        self._has = {name: has for name, has in self._has.items() if name in names}
        self._grows = {name: goal for name, goal in self._grows.items() if name in names}

    def has(self, name: str, vcpus: int) -> None:
        """Take how many vCPUs a VM has in QEMU, whatever the guest makes of them.

        One that cannot be looked at counts with what it had when it was last seen, or was growing to.
        """
        self._has[name] = vcpus

    def is_off(self, name: str) -> None:
        """Take that a VM does not run: it has none, and grows no more."""
        self._has[name] = 0
        self._grows.pop(name, None)

    def grows(self, name: str, goal: int | None) -> None:
        """Take that a VM grows to so many vCPUs; None: it does not any more."""
        if goal is None:
            self._grows.pop(name, None)
        else:
            self._grows[name] = goal

    @property
    def used(self) -> int:
        """How many vCPUs the VMs have, or are about to have."""
        return sum(max(has, self._grows.get(name, 0)) for name, has in self._has.items())

    @property
    def unseen(self) -> int:
        """How many VMs nobody has been able to look at yet: what they have is not known."""
        return len(self._names - self._has.keys())

    @property
    def left(self) -> int | None:
        """How many more vCPUs there may be; below 0 if there are too many. None is no limit."""
        return None if self.most is None else self.most - self.used
