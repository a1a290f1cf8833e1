# SPDX-License-Identifier: Apache-2.0
"""s390x: a CPU's identity is its address, and a CPU can be taken out of the configuration.

`address` is that of the core, QEMU's core-id (arch/s390/kernel/smp.c; hw/s390x/sclp.c, prepare_cpu_entries). The kernel
makes the files of a new CPU after its `add` event (smp.c, smp_add_present_cpu), and no other event follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vcpu_guest.core.model import Hint, Reason
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.base import Registered
from vcpu_guest.platforms.hints import HINTS


class S390(Registered):
    """s390x under any hypervisor."""

    name = "s390"
    scheme = "s390"
    hints: Mapping[str, Hint] = MappingProxyType({**HINTS, "add": Hint.COMING})

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """Return the core's address; "" until the kernel shows it."""
        address = sysfs.read_cpu_number(number, "address")
        return "" if address is None else f"s390:{address}"

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Return a reason for a CPU in standby: it cannot start (smp.c, __cpu_up: -EIO). QEMU's arrive configured."""
        if sysfs.read_cpu(number, "configure") != "0":
            return None
        return Reason(
            "deconfigured",
            f"cpu{number} is in standby, not in the configuration: write 1 to its file `configure` in sysfs "
            f"(chcpu --configure {number})",
        )
