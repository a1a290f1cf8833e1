# SPDX-License-Identifier: Apache-2.0
"""pseries: PAPR dynamic reconfiguration, one core a slot.

Identity: the guest shows a thread's interrupt server number in ``cpuN/physical_id``. It is QEMU's vcpu id. Mostly that
follows from the slot: the core's place times ``vsmt``, plus the thread (hw/ppc/spapr.c, spapr_vcpu_id; the place is
core-id / threads per core). Under KVM it is the cpu-index since QEMU 9.1, and that is one more than the highest one
which is in use when the core is plugged (target/ppc/kvm.c, kvmppc_cpu_realize; cpu-common.c, cpu_get_free_index).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .. import codes
from ..finding import Finding, Level
from ..model import HostThread, HostView, Slot
from ..reason import Origin, Reason
from ..text import more_vcpus
from .base import Platform, boot_cpu

#: The distance of two cores' vcpu ids, and which interrupt controllers there are (hw/ppc/spapr.c).
MACHINE_PROPERTIES = ("vsmt", "ic-mode")

#: The first version whose KVM half numbers vCPUs itself (commit cfb52d07f53a, of July 2024).
_NUMBERS_PLUGS = (9, 1, 0)
_NUMBERS_FIX = "unplug the cores that came last before others; a restart of the VM numbers them anew"


def _name(number: int) -> str:
    return f"papr:{number}"


def _threads(host: HostView) -> list[HostThread]:
    """Return all vCPUs that QEMU has, those on their way out included: their numbers are in use."""
    return [thread for slot in host.slots for thread in (*slot.threads, *slot.leaving, *slot.phantoms)]


def _next_number(host: HostView) -> int:
    """Return the cpu-index of the next vCPU.

    Those below the highest are not used again (cpu-common.c, cpu_get_free_index).
    """
    return max((thread.cpu_index for thread in _threads(host)), default=-1) + 1


def _possible(host: HostView) -> int:
    return sum(slot.vcpus for slot in host.slots)


def _differs(slot: Slot) -> bool:
    """Return whether the slot's vCPUs have other numbers than its place gives them."""
    core_id = slot.props.get("core-id")
    return isinstance(core_id, int) and any(
        thread.cpu_index != core_id + place for place, thread in enumerate(slot.threads)
    )


class Pseries(Platform):
    """The platform of pseries machines. The guest's refusals come as DEVICE_UNPLUG_GUEST_ERROR."""

    name = "PAPR (pseries)"
    agent_platform = "pseries"
    whole_cores = True

    def matches(self, host: HostView) -> bool:
        """Return whether it is a pseries machine of either QEMU target; others, such as powernv, cannot plug CPUs."""
        return host.arch in ("ppc64", "ppc64le") and host.machine.startswith("pseries")

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """Return one for each thread of the core.

        Where QEMU shows no vsmt, cores lie as far apart as they have threads. An empty slot has none where they follow
        from the order of plugging.
        """
        if self.numbers_plugs(host):
            return tuple([_name(thread.cpu_index) for thread in slot.threads])
        core_id = slot.props.get("core-id")
        if not isinstance(core_id, int) or slot.vcpus < 1:
            return ()
        stride = host.properties.get("vsmt")
        if not isinstance(stride, int) or stride < slot.vcpus:
            stride = slot.vcpus
        first = core_id // slot.vcpus * stride
        return tuple(_name(first + thread) for thread in range(slot.vcpus))

    def numbers_plugs(self, host: HostView) -> bool:
        """Return whether this is such a QEMU, by its version; or a core shows it, whatever the version says."""
        by_version = host.accel == "kvm" and host.qemu_version >= _NUMBERS_PLUGS
        return by_version or any(_differs(slot) for slot in host.slots)

    def arriving(self, host: HostView, slots: Sequence[Slot]) -> tuple[tuple[str, ...], ...]:
        """Return the numbers after the highest one that is in use."""
        if not self.numbers_plugs(host):
            return super().arriving(host, slots)
        found, number = [], _next_number(host)
        for slot in slots:
            found.append(tuple(_name(number + thread) for thread in range(slot.vcpus)))
            number += slot.vcpus
        return tuple(found)

    def unheld(self, host: HostView) -> frozenset[str]:
        """Return every number that QEMU survives: a core that has just gone, or was just plugged, has one of them."""
        return frozenset(map(_name, range(_possible(host)))) if self.numbers_plugs(host) else frozenset()

    def plug_limit(self, host: HostView) -> tuple[int, Reason] | None:
        """Return how many plugs still get the number of a core, where QEMU numbers the plugs.

        None may get a number that no core has: QEMU ends of the next query-cpus-fast. See hw/ppc/spapr.c,
        spapr_cpu_index_to_props: it asserts that there is a core for each number.
        """
        if not self.numbers_plugs(host):
            return super().plug_limit(host)
        left = max(0, _possible(host) - _next_number(host))
        return left, Reason(codes.PLUG_NUMBERS, Origin.VCPUCTL, _numbers_used(host), _NUMBERS_FIX)

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason that the boot core stays (hw/ppc/spapr.c, spapr_core_unplug_request)."""
        del host
        return boot_cpu("core") if slot.index == 0 else None

    def numbers_arrivals(self, host: HostView) -> Finding | None:
        """Return that XIVE's state of a thread has no number of its own ('xive-tctx', hw/intc/xive.c).

        XICS's has the CPU's. For the latter see icp_realize (hw/intc/xics.c). Seen on 11.1; ic-mode=dual, the default,
        has both. Where QEMU numbers the plugs, all that a vCPU has goes by that number.
        """
        if self.numbers_plugs(host):
            return Finding(
                Level.WARNING,
                codes.CPU_NUMBERS,
                "under KVM this QEMU numbers CPUs as they come: if one has gone that was not the last to come, the "
                "migration fails (cpu-index in query-cpus-fast has a gap then, and vcpuctl does not compare that)",
                "unplug CPUs only in the contrary of their order",
            )
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
        """Yield that 10.0.13 under TCG died on the removal of a two-thread core, 3 of 3; 11.1.3 passed 32 of them.

        Where the agent takes the threads offline first it did not die, but in a series of such removals its guest hung.
        """
        yield from super().known_bugs(host)
        if self.numbers_plugs(host):
            left = _possible(host) - _next_number(host)
            used_up = left < sum(slot.vcpus for slot in host.slots if slot.vacant)
            yield Finding(
                Level.WARNING if used_up else Level.NOTE,
                codes.PLUG_NUMBERS,
                f"{_numbers_used(host)}; so {more_vcpus(max(0, left))} can be plugged",
                _NUMBERS_FIX,
            )
        if host.accel == "tcg" and host.qemu_version < (11, 0, 0) and any(slot.vcpus > 1 for slot in host.slots):
            yield Finding(
                Level.WARNING,
                codes.TCG_CORE_UNPLUG,
                f"QEMU {host.version_text} under TCG can die, or its guest hang, when cores with threads are "
                "unplugged (10.0 did)",
                "QEMU 11.1 or newer, or KVM; or threads=1",
            )


def _numbers_used(host: HostView) -> str:
    return (
        f"under KVM QEMU {host.version_text} numbers a new vCPU one above the highest number in use "
        f"({_next_number(host) - 1} now), and a number above {_possible(host) - 1} ends QEMU"
    )


PLATFORM = Pseries()
