# SPDX-License-Identifier: Apache-2.0
"""POWER guests (PAPR): threads are named by their interrupt server, and cores come and go as a whole.

The kernel has a cpuN directory for every possible CPU from the start (arch/powerpc/kernel/sysfs.c, topology_init), so
what counts is its list `present`. `physical_id` is the interrupt server number of the thread that has the number now;
where none has, it is -1 or, if none ever had, 0. It is QEMU's vcpu id (hw/ppc/spapr.c, spapr_vcpu_id), and for a core's
first thread it is also the low part of its DRC index (hw/ppc/spapr_drc.c, spapr_drc_index).

The kernel onlines a new core by itself, if it hears of it: with modern events it does, with legacy ones it leaves both
directions to user space (arch/powerpc/platforms/pseries/ras.c, ras_epow_interrupt).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from vcpu_guest.core import reasons
from vcpu_guest.core.model import Hint, Reason
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.base import Listed
from vcpu_guest.platforms.hints import HINTS

_SCHEME = "papr"
_DRC_CPU = 0x10000000
_MODERN = "firmware/devicetree/base/event-sources/hot-plug-events"


def is_pseries(sysfs: Sysfs) -> bool:
    """A guest of a PAPR hypervisor, rather than another POWER machine (pseries/setup.c, pSeries_probe)."""
    return sysfs.read("firmware/devicetree/base/device_type") == "chrp"


class Pseries(Listed):
    """pseries, with either kind of events."""

    name = "pseries"
    scheme = _SCHEME
    # A core that is removed goes offline first, and of its end the kernel says nothing.
    hints: Mapping[str, Hint] = MappingProxyType({**HINTS, "offline": Hint.LEAVING})

    def __init__(self, sysfs: Sysfs) -> None:
        modern = sysfs.exists(_MODERN)
        self.hotplug = "kernel" if modern else "rtas"
        # Every core has as many as the first one; cpu0 is always of that.
        servers = sysfs.read_bytes("devices/system/cpu/cpu0/of_node/ibm,ppc-interrupt-server#s") or b""
        self.threads = max(1, len(servers) // 4)

    def incarnation(self, sysfs: Sysfs, number: int) -> int | None:
        """The thread that has the number: the directory never goes."""
        return sysfs.read_cpu_number(number, "physical_id")

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """The interrupt server. That of the boot CPU, 0, is also what a number shows that has not got its own yet.

        A number is present a moment before its thread is known (pseries/hotplug-cpu.c, pseries_add_processor).
        """
        server = sysfs.read_cpu_number(number, "physical_id")
        return "" if server is None or (server == 0 and number != 0) else f"{_SCHEME}:{server}"

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """A thread that the guest's SMT mode leaves idle (kernels from 6.6 on have one)."""
        server = sysfs.read_cpu_number(number, "physical_id")
        control = sysfs.smt_control()
        if server is None or server % self.threads < _threads_allowed(control, self.threads):
            return None
        return reasons.smt_off(number, control)

    def drc_index(self, firmware_id: str) -> int | None:
        """The connector of the core that this thread is of; None for what is no thread's name.

        Cores begin at multiples of QEMU's vsmt, a power of two that is no less than the threads of a core.
        """
        scheme, _, server = firmware_id.partition(":")
        if scheme != _SCHEME or not (server.isascii() and server.isdigit()):
            return None
        return _DRC_CPU | int(server) // self.threads * self.threads

    def has_core(self, sysfs: Sysfs, drc_index: int) -> bool:
        """Whether the kernel has the core of that connector."""
        return bool(self._threads_of(sysfs, drc_index, self.present(sysfs)))

    def core_is_online(self, sysfs: Sysfs, drc_index: int) -> bool:
        """Whether a thread of the core of that connector is online."""
        return bool(self._threads_of(sysfs, drc_index, sysfs.mask("online")))

    def _threads_of(self, sysfs: Sysfs, drc_index: int, numbers: Iterable[int]) -> list[int]:
        first = drc_index & ~_DRC_CPU
        servers = range(first, first + self.threads)
        return [number for number in numbers if sysfs.read_cpu_number(number, "physical_id") in servers]


def _threads_allowed(control: str, threads: int) -> int:
    """From the text of smt/control: on, off, forceoff, a number, or that there is no such thing (kernel/cpu.c)."""
    if control.isascii() and control.isdigit():
        return int(control)
    return 1 if control in {"off", "forceoff"} else threads
