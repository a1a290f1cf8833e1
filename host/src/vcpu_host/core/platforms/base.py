# SPDX-License-Identifier: Apache-2.0
"""The shape of a platform module."""

from __future__ import annotations

from typing import Protocol

from ..model import HostView, Ost, Reason, Slot


class Platform(Protocol):
    """What the host has to know of a platform."""

    @property
    def name(self) -> str:
        """For people: "ACPI (pc, q35)"."""

    @property
    def acknowledges(self) -> bool:
        """Whether the guest's firmware tells QEMU when it has processed a plug, so that the agent need not."""

    def matches(self, host: HostView) -> bool:
        """Whether this module speaks for the machine."""

    def firmware_ids(self, slot: Slot) -> tuple[str, ...]:
        """The identities of the slot's threads in the guest, in thread order; empty if the platform has none."""

    def cannot_plug(self, host: HostView, slot: Slot) -> Reason | None:
        """Why this slot can never be plugged, or None."""

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Why this slot can never be unplugged, or None."""

    def one_at_a_time(self, host: HostView) -> bool:
        """Whether a plug has to wait until the guest has taken notice of the one before it."""

    def refusal(self, ost: Ost) -> Reason | None:
        """What an _OST of an eject request says: a refusal, or None if it is none (success, in progress, other)."""

    def ejected(self, ost: Ost) -> bool:
        """Whether this _OST says that the guest has let go of a CPU."""

    def acknowledged(self, ost: Ost) -> bool:
        """Whether this _OST says that the guest has processed the insertion of a CPU."""
