# SPDX-License-Identifier: Apache-2.0
"""A machine that no module speaks for: it can be looked at, and nothing else."""

from __future__ import annotations

from .. import codes
from ..model import HostView, Slot
from ..reason import Origin, Reason
from .base import Platform


class Unknown(Platform):
    """Says no, with the reason."""

    name = "unknown"

    def matches(self, host: HostView) -> bool:
        """Return True: any machine."""
        del host
        return True

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """Return none: none are known."""
        del host, slot
        return ()

    def restricts(self, host: HostView) -> bool:
        """Return True: all slots."""
        del host
        return True

    def cannot_plug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason that it never can be."""
        del slot
        return unsupported(host)

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason that it never can be."""
        del slot
        return unsupported(host)

    def understood_by(self, agent_platform: str) -> bool:
        """Return True: there is nothing to understand, as every CPU is nameless."""
        del agent_platform
        return True

    def one_at_a_time(self, host: HostView) -> bool:
        """Return True: nothing better is known."""
        del host
        return True


def unsupported(host: HostView) -> Reason:
    """Return the reason that nobody can tell which guest CPU is meant without an identity."""
    return Reason(
        codes.UNKNOWN_PLATFORM,
        Origin.VCPUCTL,
        f"vcpuctl does not know how {host.arch} {host.machine} guests name their CPUs",
        "without that a CPU's coming online cannot be verified",
    )


PLATFORM = Unknown()
