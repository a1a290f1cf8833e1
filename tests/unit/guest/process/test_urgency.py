# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import os
import threading

from kit.until import DEADLINE
from vcpu_guest.process.urgency import Urgency


class _Kernel:
    """What was set, by thread."""

    def __init__(self, error: OSError | None = None) -> None:
        self.policies: dict[int, tuple[int, int]] = {}
        self.calls = 0
        self.calm = asyncio.Event()  # a thread was set back
        self._error = error

    def set_policy(self, thread: int, policy: int, priority: int) -> None:
        self.calls += 1
        if self._error is not None:
            raise self._error
        self.policies[thread] = (policy & ~os.SCHED_RESET_ON_FORK, priority)
        if self.policies[thread][0] == os.SCHED_OTHER:
            self.calm.set()
        assert policy & os.SCHED_RESET_ON_FORK, "a hook would inherit it"


async def test_every_thread_goes_before_others_for_a_moment_and_then_no_more() -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    kernel = _Kernel()
    urgency = Urgency(kernel.set_policy, lasts=0.05)
    try:
        urgency.hurry()
        assert kernel.policies[other.native_id or 0] == (os.SCHED_RR, 1)
        assert kernel.policies[threading.get_native_id()] == (os.SCHED_RR, 1)
        async with asyncio.timeout(DEADLINE):
            await kernel.calm.wait()
        await asyncio.sleep(0)
        assert {policy for policy, _ in kernel.policies.values()} == {os.SCHED_OTHER}
    finally:
        stop.set()
        other.join()


async def test_who_hurries_again_takes_threads_along_that_have_begun_meanwhile() -> None:
    kernel = _Kernel()
    urgency = Urgency(kernel.set_policy, lasts=3600)
    urgency.hurry()
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        urgency.hurry()
        assert kernel.policies[other.native_id or 0] == (os.SCHED_RR, 1)
    finally:
        stop.set()
        other.join()


async def test_a_system_that_does_not_allow_it_is_asked_once_and_the_agent_goes_on() -> None:
    kernel = _Kernel(PermissionError("no"))
    urgency = Urgency(kernel.set_policy)
    urgency.hurry()
    asked = kernel.calls
    urgency.hurry()
    assert kernel.calls == asked


async def test_threads_that_were_set_before_one_was_denied_do_not_stay_so() -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    kernel = _Kernel()

    def set_policy(thread: int, policy: int, priority: int) -> None:
        if kernel.calls == 1:
            kernel.calls += 1
            raise PermissionError("no")
        kernel.set_policy(thread, policy, priority)

    try:
        Urgency(set_policy).hurry()
        assert {policy for policy, _ in kernel.policies.values()} == {os.SCHED_OTHER}
        assert len(kernel.policies) >= 2
    finally:
        stop.set()
        other.join()


async def test_a_thread_that_has_ended_meanwhile_is_passed_over() -> None:
    kernel = _Kernel(ProcessLookupError())
    urgency = Urgency(kernel.set_policy, lasts=3600)
    urgency.hurry()
    assert kernel.calls == len(os.listdir("/proc/self/task"))
