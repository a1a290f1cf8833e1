# SPDX-License-Identifier: Apache-2.0
"""Something in the guest that brings CPUs online again which the agent has taken offline: a cron job, a CPU manager.

No look, however late, tells what such a thing does in the moment after it. But it comes at intervals: just after it has
acted there is time. So in a guest where that was seen the agent waits for its next turn, takes the CPU offline again,
and answers then. Elsewhere it waits for nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from vcpu_guest import logs

#: Seconds for which it is remembered that there is such a thing.
MEMORY = 3600.0
#: Seconds for which its next turn is waited for, and from look to look.
PATIENCE, LOOK = 1.5, 0.005
#: A look that waited for nobody takes so many seconds at most, and as many more for each CPU; so often it is made.
STILL, STILL_PER_CPU, LOOKS = 0.005, 0.0005, 3


class Onliners:
    """Used by the writer's thread, but for `going`. `incarnation` tells a cpuN from one that has its number later."""

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

    def going(self) -> tuple[int, ...]:
        """The CPUs that were let go of and are still there. This may be asked in any thread."""
        return tuple(n for n, incarnation in sorted(self._let_go.copy().items()) if self._incarnation(n) == incarnation)

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


def unsettled(
    numbers: Sequence[int], settled_online: Callable[[int], object], clock: Callable[[], float] = time.monotonic
) -> Sequence[int]:
    """Wait until nobody is bringing any of the CPUs up; returned are those of which that cannot be said: all or none.

    The kernel's list of online CPUs has one that is being brought up only towards the end of that; to read its own file
    waits for the end (`settled_online`). Meanwhile somebody may have begun with another one, so a look counts only if
    it waited for nobody.
    """
    for _ in range(LOOKS):
        began = clock()
        for number in numbers:
            settled_online(number)
        if clock() - began <= STILL + STILL_PER_CPU * len(numbers):
            return ()
    return numbers
