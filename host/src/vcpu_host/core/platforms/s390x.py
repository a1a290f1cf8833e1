# SPDX-License-Identifier: Apache-2.0
"""s390-ccw-virtio: one core a slot, which can be plugged and never unplugged.

Identity: the core address, which the guest shows in ``cpuN/address``, is the core-id (hw/s390x/sclp.c,
prepare_cpu_entries).
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import codes
from ..finding import Finding, Level
from ..model import HostView, Slot
from ..reason import Origin, Reason
from .base import Platform


class S390x(Platform):
    """The platform of s390-ccw-virtio machines."""

    name = "SCLP (s390-ccw-virtio)"
    agent_platform = "s390"
    serial_device = "virtio-serial-ccw"

    def matches(self, host: HostView) -> bool:
        """Return whether it is an s390x machine that can plug CPUs."""
        return host.arch == "s390x" and host.no_hotplug is None

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """Return one identity, of one thread a core: QEMU models no SMT here."""
        del host
        core_id = slot.props.get("core-id")
        return (f"s390:{core_id}",) if isinstance(core_id, int) else ()

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason that QEMU has no such thing here.

        See hw/s390x/s390-virtio-ccw.c, s390_machine_device_unplug_request.
        """
        del host
        return Reason(
            codes.NO_UNPLUG,
            Origin.QEMU,
            "QEMU does not unplug CPUs on this machine: CPU hot unplug not supported on this machine",
            f"take it offline in the guest: vcpuctl offline {slot.index}, or vcpuctl scale --in-guest N",
        )

    def known_bugs(self, host: HostView) -> Iterator[Finding]:
        """Yield the hang that was seen: 11.1.3 under TCG hung for good on 2 of about 75 plugs.

        All its vCPU threads were asleep; 10.0.13 hung on none of 80.
        """
        yield from super().known_bugs(host)
        if host.accel == "tcg" and host.qemu_version >= (11, 0, 0):
            yield Finding(
                Level.WARNING,
                codes.TCG_S390X_PLUG,
                f"QEMU {host.version_text} under TCG can hang for good when the guest starts a new CPU "
                "(11.1 did, 2 of 75)",
                "QEMU 10.0, or KVM",
            )


PLATFORM = S390x()
