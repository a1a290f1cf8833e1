# SPDX-License-Identifier: Apache-2.0
"""Something in the guest that brings CPUs online again which the agent has taken offline: a cron job, a CPU manager.

No look, however late, tells what such a thing does in the moment after it. But it comes at intervals: just after it has
acted there is time. So in a guest where that was seen the agent waits for its next turn, takes the CPU offline again,
and answers then. Elsewhere it waits for nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from vcpu_guest import logs

#: Seconds for which it is remembered that there is such a thing.
MEMORY = 3600.0
#: Seconds for which its next turn is waited for, and from look to look.
PATIENCE, LOOK = 1.5, 0.005


class Onliners:
    """Used by the writer's thread alone. `incarnation` tells a cpuN from one that has its number later."""

    def __init__(
        self,
        incarnation: Callable[[int], int | None],
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._incarnation = incarnation
        self._patience = patience
        self._clock = clock
        self._let_go: dict[int, int | None] = {}
        self._seen_at: float | None = None
        self._pause = threading.Event()  # never set: a thread has no other way to wait that a signal does not cut short

    @property
    def about(self) -> bool:
        """Whether such a thing was seen in this guest, not long ago."""
        return self._seen_at is not None and self._clock() - self._seen_at < MEMORY

    def let_go(self, number: int) -> None:
        """The agent has taken cpuN offline for its ejection."""
        self._let_go[number] = self._incarnation(number)

    def wanted(self, number: int) -> None:
        """The host does not want cpuN ejected any more: what becomes of it is nobody's meddling."""
        self._let_go.pop(number, None)

    def looked(self, online: Collection[int]) -> None:
        """These CPUs were seen online."""
        for number in [number for number in self._let_go if number in online]:
            if self._let_go.pop(number) == self._incarnation(number):
                self._seen_at = self._clock()
                logs.warning("somebody has brought a CPU online that is to be ejected", cpu=number)

    def await_turn(self, number: int, is_online: Callable[[], bool]) -> bool:
        """Wait until cpuN, which is offline, has been brought online; False if nobody does so in time."""
        until = self._clock() + self._patience
        while self._clock() < until:
            if is_online():
                self.let_go(number)
                self.looked((number,))
                return True
            self._pause.wait(LOOK)
        return False
