# SPDX-License-Identifier: Apache-2.0
"""The plug of one slot's CPU: what was asked of QEMU, what it answered, and who has noticed the CPU since."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Plug:
    """What is known of a device_add for one slot, and of the CPU that it is to bring.

    QEMU's answer does not prove that the slot is filled (promise 1): a look does, if it was asked for after the answer.
    Times are the machine's ``now``, in seconds.
    """

    unanswered: bool = False  # device_add was sent, and QEMU has not answered it
    done_at: float | None = None  # when QEMU answered that it is done; None if this operation plugged nothing
    since_look: bool = False  # that was after the present look was asked for, so the look may not show the CPU
    seen_by_qemu: bool = False  # QEMU itself has shown the slot filled, asked after the plug
    acknowledged_at: float | None = None  # when the guest's firmware acknowledged the CPU

    @property
    def ours(self) -> bool:
        """Whether this operation plugged the CPU, or is about to."""
        return self.unanswered or self.done_at is not None

    def asked(self) -> None:
        """Take that device_add goes out."""
        self.unanswered = True
        self.acknowledged_at = None

    def answered(self) -> None:
        """Take that QEMU has answered device_add, whatever it says."""
        self.unanswered = False

    def done(self, now: float) -> None:
        """Take that QEMU has done device_add. No look has shown that yet."""
        self.done_at = now
        self.since_look = True
        self.seen_by_qemu = False

    def look_asked(self) -> None:
        """Take that a look at QEMU is asked for, which shows all that was plugged before."""
        self.since_look = False

    def shown(self, *, filled: bool) -> None:
        """Take that a look at QEMU shows the slot."""
        self.seen_by_qemu = filled

    def acknowledged(self, now: float, *, filled: bool) -> bool:
        """Take that the guest's firmware acknowledges a CPU in the slot.

        Return whether that is news about the one in it. ``filled``: QEMU shows one, which another operation may have
        plugged.
        """
        if self.acknowledged_at is not None or not (self.ours or filled):
            return False
        self.acknowledged_at = now
        return True

    def turned_round(self) -> None:
        """Take that the job's goal has changed: what looks have shown so far proves nothing for the new one."""
        self.seen_by_qemu = False

    def taken_out(self) -> None:
        """Take that the CPU that was acknowledged is gone; another one is to be plugged."""
        self.acknowledged_at = None
