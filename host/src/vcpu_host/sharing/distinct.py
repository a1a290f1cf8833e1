# SPDX-License-Identifier: Apache-2.0
"""The VMs of one process, told apart by which QEMU they are: of two names that lead to one, the second is refused.

Which QEMU a monitor leads to is only known once it is opened, here or by the process that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import UsageError

#: Hears what a VM is known by (``local.names``, ``known_by``) before anything is done. Raises VcpuctlError to leave it
#: alone.
Recognise = Callable[[Collection[str]], None]


class Distinct:
    """Remembers which name each VM came by."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def claim(self, name: str, known_by: Collection[str]) -> None:
        """Have the VM be the one of this name. Raise UsageError "same-names" if it is another one's already."""
        for each in known_by:
            other = self._names.get(each, name)
            if other != name:
                raise same_names(other, name, f"nothing was done by the name {name}")
        self._names.update(dict.fromkeys(known_by, name))

    def forget(self, name: str) -> None:
        """Have the VM be no name's any more."""
        self._names = {known: of for known, of in self._names.items() if of != name}


def same_names(one: str, other: str, more: str) -> UsageError:
    """Return the error that both names are one VM's; ``more`` is how that is known, or what follows from it."""
    text = f"{one} and {other} are one VM: {more}"
    return UsageError(Reason(codes.SAME_NAMES, Origin.VCPUCTL, text, "name it once"))
