# SPDX-License-Identifier: Apache-2.0
"""A machine that no module speaks for: it can be looked at, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from ..model import HostView, Ost, Reason, Slot, Who


def _unsupported(host: HostView) -> Reason:
    return Reason(
        "unknown-platform",
        Who.VCPUCTL,
        f"vcpuctl does not know how {host.arch} {host.machine} guests name their CPUs",
        "without that a CPU's coming online cannot be verified",
    )


@dataclass(frozen=True)
class Unknown:
    """Says no, with the reason."""

    name: str = "unknown"
    acknowledges: bool = False

    def matches(self, host: HostView) -> bool:
        """Any machine."""
        del host
        return True

    def firmware_ids(self, slot: Slot) -> tuple[str, ...]:
        """None are known."""
        del slot
        return ()

    def cannot_plug(self, host: HostView, slot: Slot) -> Reason | None:
        """Never."""
        del slot
        return _unsupported(host)

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Never."""
        del slot
        return _unsupported(host)

    def one_at_a_time(self, host: HostView) -> bool:
        """Nothing better is known."""
        del host
        return True

    def refusal(self, ost: Ost) -> Reason | None:
        """No evidence is known."""
        del ost
        return None

    def ejected(self, ost: Ost) -> bool:
        """No evidence is known."""
        del ost
        return False

    def acknowledged(self, ost: Ost) -> bool:
        """No evidence is known."""
        del ost
        return False


PLATFORM = Unknown()
