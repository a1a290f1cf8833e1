# SPDX-License-Identifier: Apache-2.0
"""Others in the guest that bring a CPU online again after the agent took it offline: a cron job, a CPU manager.

No look, however late, can tell what such a program does a moment after it. But it acts at intervals, and just after it
has acted there is time. So in a guest where the agent saw one, it waits until the program has acted again, takes the
CPU offline once more, and answers then. In other guests it waits for nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from vcpu_guest import logs

#: Seconds for which the agent remembers that there is such a program.
MEMORY = 3600.0
#: Seconds for which the agent waits for it to act again, and seconds from one look to the next.
PATIENCE, LOOK = 1.5, 0.005
#: A round of looks that had to wait for nobody takes at most so many seconds, and so many more for each CPU. At most so
#: many rounds are made.
STILL, STILL_PER_CPU, LOOKS = 0.005, 0.0005, 3


class Onliners:
    """Remembers which CPUs the agent took offline for their ejection, and whether anybody brought one online again.

    The writer's thread uses it, or the event loop while that has nothing to do; `going` may be called in any thread.
    `incarnation` tells a cpuN from a later CPU of the same number.
    """

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
        self._pause = threading.Event()  # never set: the thread pauses by waiting for it
        self._seen = logs.Seldom("somebody has brought a CPU online that is to be ejected", clock)

    @property
    def about(self) -> bool:
        """Say whether such a program was seen in this guest within MEMORY."""
        return self._seen_at is not None and self._clock() - self._seen_at < MEMORY

    def let_go(self, number: int) -> None:
        """Note that the agent has taken cpuN offline for its ejection."""
        self._let_go[number] = self._incarnation(number)

    def going(self) -> tuple[int, ...]:
        """Return the CPUs that the agent let go of and that are still there."""
        return tuple(n for n, incarnation in sorted(self._let_go.copy().items()) if self._incarnation(n) == incarnation)

    def wanted(self, number: int) -> None:
        """Note that the host does not want cpuN ejected any more: anybody may bring it online."""
        self._let_go.pop(number, None)

    def forget(self) -> None:
        """Note that nobody wants any CPU ejected any more: the host that asked for it has gone."""
        self._let_go.clear()

    def looked(self, online: Collection[int]) -> None:
        """Note that these CPUs were seen online."""
        for number in [number for number in self._let_go if number in online]:
            if self._let_go.pop(number) == self._incarnation(number):
                self._seen_at = self._clock()
                self._seen.warning(cpu=number)

    def await_turn(self, number: int, is_online: Callable[[], bool]) -> bool:
        """Wait until somebody has brought cpuN online, which is offline; return False if nobody does so in time."""
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
    """Wait until nobody is bringing any of the CPUs up. Return none of them, or all if somebody may still be at it.

    While a CPU is being brought up, the kernel's list of online CPUs shows it only towards the end; reading the CPU's
    own file (`settled_online`) waits for the end. Meanwhile somebody may have begun with another CPU, so a round of
    looks counts only if it had to wait for nobody.
    """
    for _ in range(LOOKS):
        began = clock()
        for number in numbers:
            settled_online(number)
        if _at_once(began, clock(), numbers):
            return ()
    return numbers


def stay_offline(
    numbers: Sequence[int], settled_online: Callable[[int], object], clock: Callable[[], float] = time.monotonic
) -> bool:
    """Say whether all the CPUs are offline still, and nobody is bringing one up."""
    began = clock()
    return not any(settled_online(number) for number in numbers) and _at_once(began, clock(), numbers)


def _at_once(began: float, ended: float, numbers: Sequence[int]) -> bool:
    """Say whether a round of looks at these CPUs had to wait for nobody."""
    return ended - began <= STILL + STILL_PER_CPU * len(numbers)
