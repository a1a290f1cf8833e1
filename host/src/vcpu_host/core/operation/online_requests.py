# SPDX-License-Identifier: Apache-2.0
"""The SetOnline requests under way: which CPUs the agent was asked to switch, and has not answered yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from .slot_job import Job
from .thread_evidence import ThreadEvidence


class OnlineRequest:
    """A SetOnline under way: which CPUs it has not answered yet.

    ``online`` says whether it is to bring CPUs online, and not offline; ``of`` how many it was for; ``asked_at`` when
    it was sent.
    """

    __slots__ = ("_cancelled", "_open_ids", "asked_at", "of", "online")

    def __init__(self, names: Iterable[str], asked_at: float, *, online: bool) -> None:
        self.online: Final = online
        self.asked_at: Final = asked_at
        self._open_ids = set(names)
        self._cancelled = False
        self.of: Final = len(self._open_ids)

    @property
    def open_ids(self) -> AbstractSet[str]:
        """The CPUs that it has not answered yet, by firmware identity."""
        return self._open_ids

    @property
    def cancelled(self) -> bool:
        """Whether it was called off: it is not over before the agent says so."""
        return self._cancelled

    def cancel(self) -> None:
        """Take that it was called off."""
        self._cancelled = True

    def answered(self, name: str) -> None:
        """Take that the agent's answer for one CPU came."""
        self._open_ids.discard(name)


class OnlineRequests:
    """All requests under way, by their numbers, which are never used again.

    ``grace`` is how long, in seconds, an offline request that does not get on may hold up the removal of other CPUs.
    """

    __slots__ = ("_by_number", "_grace", "_next", "_offlining_until")

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._by_number: dict[int, OnlineRequest] = {}
        self._next = 1
        self._offlining_until = 0.0

    def get(self, number: int | None) -> OnlineRequest | None:
        """Return the request of this number if it is under way."""
        return None if number is None else self._by_number.get(number)

    def sent(self, threads: Sequence[ThreadEvidence], now: float, *, online: bool) -> int:
        """Take that a request for these threads goes out; return its number."""
        number = self._next
        self._next += 1
        for thread in threads:
            thread.asked(number)
        self._by_number[number] = OnlineRequest((thread.firmware_id for thread in threads), now, online=online)
        self._offlining_until = now + self._grace
        return number

    def answered(self, request: OnlineRequest, thread: ThreadEvidence, now: float) -> None:
        """Take that the agent's answer for one thread came, so the request gets on."""
        request.answered(thread.firmware_id)
        thread.answered()
        self._offlining_until = now + self._grace

    def ended(self, number: int) -> OnlineRequest | None:
        """Take that the request is over; return it, if it was still under way."""
        return self._by_number.pop(number, None)

    def forget(self) -> None:
        """Forget all: the session in which they were sent is over."""
        self._by_number.clear()

    @property
    def offlining_until(self) -> float:
        """How long what is offline waits for what is still going offline."""
        return self._offlining_until

    def offlining(self, now: float) -> bool:
        """Return whether the guest is getting on with taking CPUs offline."""
        return now < self._offlining_until and any(
            not request.online and request.open_ids for request in self._by_number.values()
        )

    def has_opposite(self, job: Job, *, online: bool) -> bool:
        """Return whether the agent may still do the contrary to a thread of it.

        A request that is cancelled is not over yet.
        """
        asked = (self._by_number.get(thread.request) for thread in job.threads if thread.request is not None)
        return any(request is not None and request.online is not online for request in asked)

    def dump(self) -> dict[str, object]:
        """Return everything, for logs and bug reports."""
        return {
            str(number): {"online": r.online, "open": sorted(r.open_ids), "cancelled": r.cancelled}
            for number, r in self._by_number.items()
        }
