# SPDX-License-Identifier: Apache-2.0
"""The agent goes before everybody else while a CPU is to be ejected.

Between the agent's last look at such a CPU and the host's device_del lies the way of the answer: some milliseconds of
several threads. If another program got the guest's processor meanwhile, it might bring that very CPU online, which
keeps the processor for a tenth of a second and more (an emulated guest that had one CPU left online: docs/tried.md).
So all threads get the real-time policy SCHED_RR for that time (sched(7)). They sleep nearly all of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection

from vcpu_guest import logs

#: For how many seconds, from the last time that the host asked for something that leads to an ejection.
LASTS = 1.0
#: The lowest real-time priority goes before everything that has none.
_PRIORITY = 1
_URGENT = os.SCHED_RR | os.SCHED_RESET_ON_FORK
_USUAL = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
_TASKS = "/proc/self/task"

#: Sets the scheduling policy and the priority of the thread with this id. Raises OSError.
SetPolicy = Callable[[int, int, int], None]
#: Returns the ids of threads that go before nobody: they work for long, and nobody waits for their answer in a hurry.
Spared = Callable[[], Collection[int]]


def _set_policy(thread: int, policy: int, priority: int) -> None:
    os.sched_setscheduler(thread, policy, os.sched_param(priority))


class Urgency:
    """Raises the priority of this process's threads for a moment, in the event loop.

    Programs that the agent starts meanwhile, the administrator's hooks, do not inherit it (SCHED_RESET_ON_FORK). A
    system that does not allow it (LimitRTPRIO, real-time groups) only loses the advantage.
    """

    def __init__(
        self, set_policy: SetPolicy = _set_policy, lasts: float = LASTS, spared: Spared = frozenset[int]
    ) -> None:
        self._set_policy = set_policy
        self._spared = spared
        self._lasts = lasts
        self._ends: asyncio.TimerHandle | None = None
        self._denied = False

    def hurry(self) -> None:
        """Go before others from now on, for LASTS seconds."""
        # Each time, for threads that have begun meanwhile.
        if self._denied:
            return
        if not self._set(_URGENT, _PRIORITY):
            self._denied = True
            self._set(_USUAL, 0)  # those that were set before one was denied
            return
        if self._ends is not None:
            self._ends.cancel()
        self._ends = asyncio.get_running_loop().call_later(self._lasts, self._calm_down)

    def _calm_down(self) -> None:
        self._ends = None
        self._set(_USUAL, 0)

    def _set(self, policy: int, priority: int) -> bool:
        """Set all threads but those that are spared; return False if the system does not allow it."""
        spared = self._spared()
        for name in os.listdir(_TASKS):
            if int(name) in spared:
                continue
            try:
                self._set_policy(int(name), policy, priority)
            except ProcessLookupError:
                continue  # the thread has ended
            except OSError as error:
                logs.debug("no real-time priority", error=str(error))
                return False
        return True
