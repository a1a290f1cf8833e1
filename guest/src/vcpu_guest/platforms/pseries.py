# SPDX-License-Identifier: Apache-2.0
"""POWER guests (PAPR): a thread's identity is its interrupt server, and cores come and go as a whole.

The kernel has a cpuN directory for every possible CPU from the start (arch/powerpc/kernel/sysfs.c, topology_init), so
only its list `present` counts. `physical_id` is the interrupt server number of the thread that has the number now. If
no thread has it, it is -1, or 0 if none ever had. It is QEMU's vcpu id (hw/ppc/spapr.c, spapr_vcpu_id). For a core's
first thread that is mostly also the low part of the core's DRC index (hw/ppc/spapr_drc.c, spapr_drc_index), but not
where the hypervisor numbers cores as they come (QEMU since 9.1 under KVM): which core has which threads is in the
device tree.

With modern events the kernel brings a new core online by itself. With legacy events it leaves both directions to user
space (arch/powerpc/platforms/pseries/ras.c, ras_epow_interrupt).
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
#: One node for each core that the kernel has (PAPR, "ibm,my-drc-index"; hw/ppc/spapr.c, spapr_dt_cpu).
_CORES = "firmware/devicetree/base/cpus"
_MODERN = "firmware/devicetree/base/event-sources/hot-plug-events"


def is_pseries(sysfs: Sysfs) -> bool:
    """Say whether this is a guest of a PAPR hypervisor, not another POWER machine (pseries/setup.c, pSeries_probe)."""
    return sysfs.read("firmware/devicetree/base/device_type") == "chrp"


class Pseries(Listed):
    """pseries, with modern or legacy events. `threads`: the threads of a core."""

    name = "pseries"
    scheme = _SCHEME
    # A core that is removed goes offline first; the kernel sends no event when it is gone.
    hints: Mapping[str, Hint] = MappingProxyType({**HINTS, "offline": Hint.LEAVING})

    def __init__(self, sysfs: Sysfs) -> None:
        modern = sysfs.exists(_MODERN)
        self.hotplug = "kernel" if modern else "rtas"
        # Every core has as many threads as the first one, and cpu0 always belongs to that.
        servers = sysfs.read_bytes("devices/system/cpu/cpu0/of_node/ibm,ppc-interrupt-server#s") or b""
        self.threads = max(1, len(servers) // 4)

    def incarnation(self, sysfs: Sysfs, number: int) -> int | None:
        """Return the thread that has the number: the directory itself never goes."""
        return sysfs.read_cpu_number(number, "physical_id")

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """Return the interrupt server; "" while it is not known.

        A number is present a moment before its thread is known (pseries/hotplug-cpu.c, pseries_add_processor). Until
        then it shows 0, which is the boot CPU's server.
        """
        server = sysfs.read_cpu_number(number, "physical_id")
        return "" if server is None or (server == 0 and number != 0) else f"{_SCHEME}:{server}"

    def cannot_online(self, sysfs: Sysfs, number: int) -> Reason | None:
        """Return a reason for a thread that the guest's SMT mode leaves idle (kernels from 6.6 on have such a mode)."""
        server = sysfs.read_cpu_number(number, "physical_id")
        control = sysfs.smt_control()
        if server is None or server % self.threads < _threads_allowed(control, self.threads):
            return None
        return reasons.smt_off(number, control)

    def drc_index(self, firmware_id: str) -> int | None:
        """Return the DRC index that the core of this thread should have; None if it is no thread's identity.

        It may be another one, or none, where cores are numbered as they come: see above. Cores begin at multiples of
        QEMU's vsmt, a power of two that is no less than the threads of a core.
        """
        scheme, _, server = firmware_id.partition(":")
        if scheme != _SCHEME or not (server.isascii() and server.isdigit()):
            return None
        return _DRC_CPU | int(server) // self.threads * self.threads

    def has_core(self, sysfs: Sysfs, drc_index: int) -> bool:
        """Say whether the kernel has the core of this DR connector."""
        return bool(self._threads_of(sysfs, drc_index, self.present(sysfs)))

    def core_is_online(self, sysfs: Sysfs, drc_index: int) -> bool:
        """Say whether a thread of the core of this DR connector is online."""
        return bool(self._threads_of(sysfs, drc_index, sysfs.mask("online")))

    def _threads_of(self, sysfs: Sysfs, drc_index: int, numbers: Iterable[int]) -> list[int]:
        servers = _servers(sysfs, drc_index)
        return [number for number in numbers if sysfs.read_cpu_number(number, "physical_id") in servers]


def _servers(sysfs: Sysfs, drc_index: int) -> frozenset[int]:
    """Return the interrupt servers of the threads of this DR connector's core; none if the kernel has no such core."""
    for name in sysfs.directories_in(_CORES):
        if sysfs.read_bytes(f"{_CORES}/{name}/ibm,my-drc-index") == drc_index.to_bytes(4, "big"):
            numbers = sysfs.read_bytes(f"{_CORES}/{name}/ibm,ppc-interrupt-server#s") or b""
            return frozenset(int.from_bytes(numbers[at : at + 4], "big") for at in range(0, len(numbers), 4))
    return frozenset()


def _threads_allowed(control: str, threads: int) -> int:
    """Return the threads that each core may have online, from the text of smt/control."""
    if control.isascii() and control.isdigit():
        return int(control)
    return 1 if control in {"off", "forceoff"} else threads
