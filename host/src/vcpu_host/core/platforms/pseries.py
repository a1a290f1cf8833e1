# SPDX-License-Identifier: Apache-2.0
"""pseries: PAPR dynamic reconfiguration, one core a slot.

Identity: the guest shows a thread's interrupt server number in ``cpuN/physical_id``. It is QEMU's vcpu id: the core's
place times ``vsmt``, plus the thread (hw/ppc/spapr.c, spapr_vcpu_id; the place is core-id / threads per core).
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import codes
from ..finding import Finding, Level
from ..model import HostView, Slot
from ..reason import Reason
from .base import Platform, boot_cpu


class Pseries(Platform):
    """The platform of pseries machines. The guest's refusals come as DEVICE_UNPLUG_GUEST_ERROR."""

    name = "PAPR (pseries)"
    agent_platform = "pseries"

    def matches(self, host: HostView) -> bool:
        """The pseries machines of both QEMU targets; others, such as powernv, cannot plug CPUs."""
        return host.arch in ("ppc64", "ppc64le") and host.machine.startswith("pseries")

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """One for each thread of the core. Where QEMU shows no vsmt, cores lie as far apart as they have threads."""
        core_id = slot.props.get("core-id")
        if not isinstance(core_id, int) or slot.vcpus < 1:
            return ()
        stride = host.properties.get("vsmt")
        if not isinstance(stride, int) or stride < slot.vcpus:
            stride = slot.vcpus
        first = core_id // slot.vcpus * stride
        return tuple(f"papr:{first + thread}" for thread in range(slot.vcpus))

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """The boot core stays (hw/ppc/spapr.c, spapr_core_unplug_request)."""
        del host
        return boot_cpu("core") if slot.index == 0 else None

    def numbers_arrivals(self, host: HostView) -> Finding | None:
        """XIVE's state of a thread has no number of its own ('xive-tctx', hw/intc/xive.c); XICS's has the CPU's.

        For the latter see icp_realize (hw/intc/xics.c). Seen on 11.1; ic-mode=dual, the default, has both.
        """
        if host.properties.get("ic-mode") == "xics":
            return None
        return Finding(
            Level.WARNING,
            codes.CPU_NUMBERS,
            "with XIVE QEMU numbers a part of the CPUs' state as they come: if one has gone that was not the last to "
            "come, the migration fails ('xive-tctx'), and nothing shows that before",
            "-machine ic-mode=xics, from the VM's next start on; or unplug CPUs only in the contrary of their order",
        )

    def known_bugs(self, host: HostView) -> Iterator[Finding]:
        """10.0.13 under TCG died on the removal of a two-thread core, 3 of 3; 11.1.3 passed 32 of them.

        Where the agent takes the threads offline first it did not die, but in a series of such removals its guest hung.
        """
        yield from super().known_bugs(host)
        if host.accel == "tcg" and host.qemu_version < (11, 0, 0) and any(slot.vcpus > 1 for slot in host.slots):
            yield Finding(
                Level.WARNING,
                codes.TCG_CORE_UNPLUG,
                f"QEMU {host.version_text} under TCG can die, or its guest hang, when cores with threads are "
                "unplugged (10.0 did)",
                "QEMU 11.1 or newer, or KVM; or threads=1",
            )


PLATFORM = Pseries()
