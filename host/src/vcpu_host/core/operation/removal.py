# SPDX-License-Identifier: Apache-2.0
"""The removal of one slot's CPU: what was asked of QEMU, and what QEMU and the guest have shown of it since."""

from __future__ import annotations

from dataclasses import dataclass

from ..model import Recorded, Slot


@dataclass(slots=True)
class Removal:
    """What is known of a device_del for one slot.

    ``relapses`` counts over the whole operation; ``slipped`` stays too. Times are the machine's ``now``, in seconds.
    """

    sent: bool = False  # device_del was sent since the job has its present goal
    unanswered: bool = False  # QEMU has not answered it
    sent_in: str | None = None  # the session whose confirmations it was sent on; None if it may be sent on them again
    last_sign_at: float = 0.0  # when it was sent last, or the guest showed that it is at work on it
    told_gone: bool = False  # an event said that the CPU is gone; only a look can show it
    ending: Slot | None = None  # the slot as it is shown: empty, and its CPU not at its end (``Slot.ending``)
    unrecorded: bool = False  # the CPU is gone, and its owner's record still has it
    relapses: int = 0  # how often something in the guest has brought the CPU online again
    slipped: bool = False  # it came online again when device_del had been sent
    taken: bool = False  # QEMU has taken one since then: the CPU may go whatever it says of the next
    _sent_before: bool = False  # before the last device_del
    _held_up: int = 0  # how often one in a row was not sent

    @property
    def awaits_guest(self) -> bool:
        """Whether the guest is to let the CPU go: device_del was sent, is not given up, and shows no end."""
        return self.sent and self.sent_in is not None and self.ending is None

    def asked(self, session: str | None, now: float) -> None:
        """Take that device_del goes out on the confirmations of ``session``."""
        self._sent_before = self.sent
        self.unanswered = self.sent = True
        self.sent_in = session
        self.last_sign_at = now

    def answered(self) -> None:
        """Take that QEMU has answered device_del, whatever it says."""
        self.unanswered = False
        self._held_up = 0

    def accepted(self) -> None:
        """Take that QEMU has taken the device_del."""
        self.taken = True

    def held_up(self) -> bool:
        """Take that the device_del that was asked for last came too late, and was not sent.

        Return whether that is so again.
        """
        self.unanswered = False
        self.sent = self._sent_before
        self.sent_in = None
        self._held_up += 1
        return self._held_up > 1

    def came_to_nothing(self) -> None:
        """Let device_del go out again, on the same confirmations: QEMU found no device, or the guest is silent."""
        self.sent_in = None

    def in_progress(self, now: float) -> None:
        """Take that the guest shows that it is at work on it."""
        self.last_sign_at = now

    def hinted(self) -> None:
        """Take that an event says that the CPU is gone."""
        self.told_gone = True

    def shown(self, slot: Slot) -> None:
        """Take that a look at QEMU shows the slot, which is worth more than what an event said."""
        self.told_gone = False
        self.ending = slot if slot.ending else None
        self.unrecorded = not slot.filled and slot.recorded is Recorded.BEHIND

    def came_back(self) -> None:
        """Take that something in the guest has brought the CPU online again, which was confirmed offline."""
        self.relapses += 1
        if self.sent:
            self.slipped = True

    def turned_round(self) -> None:
        """Take that the job's goal has changed: nothing was sent for the new one."""
        self.sent = self.taken = self.told_gone = False
        self.sent_in = None
