# SPDX-License-Identifier: Apache-2.0
"""What the guest has said of one thread, and what was asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..guest import GuestCpu


@dataclass(slots=True)
class ThreadEvidence:
    """What is known of one thread.

    ``present`` is None until the guest was asked. ``offline_in`` is the link session in which the agent confirmed, by
    reading back, that the thread is offline: it counts in that session only (promise 2). Times are the machine's
    ``now``, in seconds.
    """

    firmware_id: str
    was_online: bool = False  # when the operation was planned
    number: int | None = None
    present: bool | None = None
    online: bool = False
    parked: bool = False
    offline_in: str | None = None
    absent_in: str | None = None  # the session in which the agent said that the guest shows no such CPU
    request: int | None = None  # the number of the request that is to switch it, while that is under way
    heard_at: float = -1.0  # when the agent last spoke of this very CPU: an older list says nothing of it
    heard_of: int | None = None  # the request that it answered by that
    touched: bool = False  # it may no longer be as it was, because of this operation
    of_another: int | None = None  # a request that was under way when the CPU before this one had gone

    def heard(self, now: float, request: int | None = None) -> None:
        """Take that the agent spoke of this very CPU, in answer to ``request``."""
        self.heard_at, self.heard_of = now, request

    def shown(self, cpu: GuestCpu) -> str | None:
        """Take that the guest shows the CPU.

        Return the session in which it was confirmed offline, if it is online again. One that was absent has come since:
        of this CPU nothing was confirmed.
        """
        if self.absent_in is not None and self.present is not True:
            self.absent_in = self.offline_in = None
        self.present = True
        self.number = cpu.number
        self.online = cpu.online
        self.parked = cpu.parked
        if not cpu.online:
            return None
        refuted, self.offline_in = self.offline_in, None
        return refuted

    def said_absent(self, session: str | None) -> None:
        """Take that the agent said in ``session`` that the guest shows no such CPU.

        Only a list proves that (``core.proof``).
        """
        self.absent_in = session

    def proven_absent(self, session: str | None) -> bool:
        """Take that a list proves that the guest has no such CPU; return whether anything follows from that.

        If the agent said so too, in this session, the thread is confirmed offline.
        """
        confirmed = self.absent_in is not None and self.absent_in == session
        if confirmed:
            self.offline_in = session
        was_present = self.present is True
        if was_present:
            self.present = self.online = self.parked = False
        return confirmed or was_present

    def missing(self) -> None:
        """Take that the agent was to switch the CPU, and found none: no confirmation is left either."""
        self.present = self.online = self.parked = False
        self.offline_in = None

    def confirmed_offline(self, session: str | None) -> None:
        """Take that the agent read back, in ``session``, that the thread is offline."""
        self.offline_in = session

    def asked(self, request: int) -> None:
        """Take that a request to switch it goes out. From now on it may be switched at any moment."""
        self.request = request
        self.touched = True

    def answered(self) -> None:
        """Take that the agent has answered for it."""
        self.request = None

    def switched(self, *, online: bool) -> None:
        """Take how it is now by the agent's answer, which may be how it was before this operation."""
        self.touched = online is not self.was_online

    def answer_lost(self) -> None:
        """Take that its request ended without an answer for it.

        It may have been switched, so what was known of it is void.
        """
        self.request = None
        self.online = self.parked = False
        self.offline_in = None

    def forget(self) -> None:
        """Forget what the guest said, which is void: the session ended, or the guest was restarted."""
        self.present = None
        self.online = False
        self.parked = False
        self.offline_in = None
        self.absent_in = None
        self.request = None

    def is_out(self, now: float) -> None:
        """Take that the CPU has gone, and another one is to come in its place.

        Whatever was said, or asked, is not of that one. A request that is under way is not over by that: the agent may
        still carry it out.
        """
        self.of_another = request = self.request
        self.forget()
        self.request = request
        self.number = None
        self.heard(now)  # a list that was asked for before is older

    def renamed(self, name: str) -> None:
        """Take that it has another identity than was expected, so what the guest said was of another CPU."""
        self.forget()
        self.firmware_id = name
