# SPDX-License-Identifier: Apache-2.0
"""Brings CPUs online and offline: one at a time, in a thread of its own, read back after each.

The kernel serialises CPU hotplug anyway, so one thread is the one writer of all requests. A write that runs can't be
interrupted; a request that ends early leaves it to finish, and starts no other.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from vcpu_guest import logs
from vcpu_guest.core import cmdline, reasons
from vcpu_guest.core.model import Arrived, Cpu, CpuResult, CpuStatus, Reason
from vcpu_guest.core.request import Request
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.onliners import Onliners, unsettled
from vcpu_guest.kernel import procfs
from vcpu_guest.kernel.sysfs import NotOpenedError, Sysfs
from vcpu_guest.platforms import Platform
from vcpu_guest.platforms.hotplug import HotplugHandler, KernelHotplug

#: While a request waits for CPUs, everything is looked at this often (seconds): a lost event costs time only.
RESCAN = 1.0
#: For so long (seconds) it is waited for that nobody switches the CPUs that are to be ejected.
SETTLE = 1.0


_T = TypeVar("_T")


def _complain(future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logs.error("work beside the requests failed", error=repr(error))


@dataclass(slots=True)
class _Attempt:
    """One that is queued, or runs since `began`."""

    firmware_id: str
    for_eject: bool = False
    last: bool = False
    began: float | None = None


class Writer:
    """The one writer."""

    def __init__(
        self,
        sysfs: Sysfs,
        platform: Platform,
        inventory: Inventory,
        hotplug: HotplugHandler | None = None,
        onliners: Onliners | None = None,
    ) -> None:
        self.sysfs = sysfs
        self.onliners = onliners or Onliners(lambda number: platform.incarnation(sysfs, number))
        self.platform = platform
        self.inventory = inventory
        self.hotplug = hotplug or KernelHotplug()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        # The thread starts now rather than between a CPU's arrival and its write.
        self._executor.submit(lambda: None)
        # To read how a CPU is waits for whoever is switching it, so it must not wait for the writer as well.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="settle")
        self._pending: set[Future[Any]] = set()
        self._attempts: dict[int, _Attempt] = {}
        self._numbers = itertools.count()
        self.hotplug.start(self.queue, inventory.rescan)

    def submit(
        self, firmware_id: str, number: int, *, online: bool, for_eject: bool = False, last: bool = False
    ) -> Future[CpuResult]:
        """Queue one attempt; the future's result tells everything, it raises only for mistakes of ours.

        `for_eject`: the host is going to ask for its ejection, and with the `last` one's answer it begins.
        """
        key = next(self._numbers)
        attempt = self._attempts[key] = _Attempt(firmware_id, for_eject, last)
        future = self._queued(self._executor.submit(self._attempt, attempt, number, online=online))
        future.add_done_callback(lambda _: self._attempts.pop(key))
        return future

    def in_hand(self) -> dict[str, float]:
        """By identity, the seconds for which the kernel has been at work on a CPU; 0 for those that are yet to come."""
        now = time.monotonic()
        found: dict[str, float] = {}
        for attempt in list(self._attempts.values()):
            seconds = 0.0 if attempt.began is None else now - attempt.began
            found[attempt.firmware_id] = max(seconds, found.get(attempt.firmware_id, 0.0))
        return found

    def settling(self) -> Coroutine[Any, Any, dict[str, float]] | None:
        """Wait until nobody is switching a CPU that is to be ejected: what is offline then, is. None if there is none.

        By identity, those of which that cannot be had, and the seconds for which it was tried.
        """
        going = self.onliners.going()
        return self._settle(going) if going else None

    async def _settle(self, going: Sequence[int]) -> dict[str, float]:
        began = time.monotonic()
        looking = asyncio.get_running_loop().run_in_executor(self._reader, unsettled, going, self.sysfs.settled_online)
        try:
            moving: Sequence[int] = await asyncio.wait_for(asyncio.shield(looking), SETTLE)
        except TimeoutError:
            moving = going
        seconds = time.monotonic() - began
        return {self.platform.identity(self.sysfs, number): seconds for number in moving}

    def queue(self, work: Callable[[], None]) -> None:
        """Queue other work for the thread: what concerns the kernel's CPUs is done one after another."""
        self._queued(self._executor.submit(work)).add_done_callback(_complain)

    def _queued(self, future: Future[_T]) -> Future[_T]:
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    async def run(self, request: Request) -> AsyncGenerator[Arrived | CpuResult, None]:
        """Pursue a goal: one Result a CPU as it is settled, and with `goal.wait` an Arrived before it.

        Ends when all are settled. Ending it early (a deadline, a cancelled call) starts no further write.
        """
        active = _ActiveRequest(self, request)
        try:
            active.start()
            left = len(request.firmware_ids)
            while left:
                answer = await active.answers.get()
                left -= isinstance(answer, CpuResult)
                yield answer
        finally:
            active.stop()

    def online_now(self, request: Request) -> dict[str, int]:
        """By identity, the numbers of the goal's CPUs that are online, from a fresh look."""
        self.inventory.catch_up()
        self.inventory.scan()
        online = self.sysfs.mask("online")
        found = {name: self.inventory.find(name) for name in request.firmware_ids}
        return {name: number for name, number in found.items() if number is not None and number in online}

    async def close(self, timeout: float) -> bool:
        """Start nothing more, and wait for the write that runs, at most `timeout` seconds. False if it still runs."""
        self.hotplug.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=False, cancel_futures=True)
        done = await asyncio.to_thread(wait, list(self._pending), timeout)
        return not done.not_done

    def _attempt(self, attempt: _Attempt, number: int, *, online: bool) -> CpuResult:
        """One CPU, in the writer's thread. The identity is read again: the number may have a new owner by now."""
        firmware_id = attempt.firmware_id
        attempt.began = started = time.monotonic()
        self.onliners.looked(self.sysfs.mask("online"))
        status, reason, after = self._switch(firmware_id, number, online=online)
        if not attempt.for_eject or status is CpuStatus.ABSENT:
            self.onliners.wanted(number)
        elif not after:
            turn = attempt.last and self.onliners.about
            if turn and self.onliners.await_turn(number, lambda: self._is_online(number)):
                self._take_back(but=number)
                status, reason, after = self._switch(firmware_id, number, online=online)
            self.onliners.let_go(number)
            if self.sysfs.settled_online(number):
                # Somebody was just bringing it up again, which the list did not show yet.
                self.onliners.looked((number,))
                status, reason, after = self._switch(firmware_id, number, online=online)
        seconds = time.monotonic() - started
        observed = None if status is CpuStatus.ABSENT else Cpu(number, firmware_id, after)
        return CpuResult(firmware_id, status, reason, observed, seconds)

    def _take_back(self, but: int) -> None:
        """Take offline again what the turn has brought online beside this CPU: they are to be ejected together."""
        for number in self.onliners.going():
            if number != but and self.sysfs.settled_online(number):
                self.onliners.looked((number,))
                self._switch(self.platform.identity(self.sysfs, number), number, online=False)
                self.onliners.let_go(number)

    def _switch(self, firmware_id: str, number: int, *, online: bool) -> tuple[CpuStatus, Reason | None, bool]:
        if not self._is(number, firmware_id):
            return CpuStatus.ABSENT, reasons.vanished(number), False
        if self._is_online(number) == online:
            return CpuStatus.ALREADY, None, online
        known = self.platform.cannot_online(self.sysfs, number) if online else None
        if known is not None:
            return CpuStatus.REFUSED, known, False
        code, opened = 0, True
        try:
            self.sysfs.write_online(number, online=online)
        except OSError as error:
            code, opened = error.errno or errno.EIO, not isinstance(error, NotOpenedError)
        after = self._is_online(number)
        if not self._is(number, firmware_id):
            return CpuStatus.ABSENT, reasons.vanished(number, code), False
        if after == online:
            # An error, and yet it is so: somebody else, a udev rule for one, was quicker.
            return (CpuStatus.ALREADY if code else CpuStatus.DONE), None, after
        if code:
            return CpuStatus.REFUSED, self._explain(number, code, online=online, opened=opened), after
        return CpuStatus.REFUSED, reasons.contrary(number, online=online), after

    def _is(self, number: int, firmware_id: str) -> bool:
        return (
            self.platform.is_present(self.sysfs, number) and self.platform.identity(self.sysfs, number) == firmware_id
        )

    def _is_online(self, number: int) -> bool:
        return number in self.sysfs.mask("online")

    def _explain(self, number: int, code: int, *, online: bool, opened: bool) -> Reason:
        context = self._context(number, code, online=online, opened=opened)
        known = None
        if online and opened:
            known = self.platform.would_not_start(self.sysfs, number, code, context.arguments)
        return known or reasons.explain(code, context, online=online)

    def _context(self, number: int, code: int, *, online: bool, opened: bool) -> reasons.Context:
        sysfs = self.sysfs
        busy_going_down = code == errno.EBUSY and not online
        return reasons.Context(
            number=number,
            has_online=sysfs.has_online(number),
            online=sysfs.mask("online"),
            isolated=sysfs.mask("isolated"),
            nohz_full=sysfs.mask("nohz_full"),
            smt_control=sysfs.smt_control(),
            deadline_tasks=procfs.deadline_tasks() if busy_going_down else (),
            possible=sysfs.mask("possible"),
            arguments=cmdline.bearing_on_cpus(procfs.command_line()),
            opened=opened,
            root=os.geteuid() == 0,
        )


class _ActiveRequest:
    """One call under way. Everything but the attempt itself happens in the event loop, by callbacks: between the
    arrival of a CPU and its write there is no task to be scheduled first.
    """

    def __init__(self, writer: Writer, request: Request) -> None:
        self._writer = writer
        self._inventory = writer.inventory
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._missing: set[str] = set()
        self._attempts: set[Future[CpuResult]] = set()
        self._rescan: asyncio.TimerHandle | None = None
        self._stopped = False
        self.answers: asyncio.Queue[Arrived | CpuResult] = asyncio.Queue()

    def start(self) -> None:
        """Take up what is there, and wait for what is not."""
        self._inventory.catch_up()
        if not self._request.wait and any(self._inventory.find(name) is None for name in self._request.firmware_ids):
            # It may be there, and the event that told of it lost. Who waits, waits for the next look at everything.
            self._inventory.scan()
        for firmware_id in self._request.firmware_ids:
            number = self._inventory.find(firmware_id)
            if number is not None:
                self._take(Cpu(number, firmware_id, online=not self._request.online))
            elif self._request.wait:
                self._missing.add(firmware_id)
            else:
                self.answers.put_nowait(CpuResult(firmware_id, CpuStatus.ABSENT))
        if self._missing:
            self._inventory.wait_for(frozenset(self._missing), self._on_arrival)
            self._rescan = self._loop.call_later(RESCAN, self._look_at_all)

    def stop(self) -> None:
        """Start nothing more. An attempt that runs goes on, and is logged when it ends."""
        self._stopped = True
        self._inventory.wait_no_more(self._on_arrival)
        if self._rescan is not None:
            self._rescan.cancel()
        for attempt in list(self._attempts):
            attempt.cancel()

    def _on_arrival(self, cpu: Cpu) -> None:
        if cpu.firmware_id in self._missing:
            self._missing.discard(cpu.firmware_id)
            self._take(cpu)

    def _look_at_all(self) -> None:
        self._inventory.rescan()
        self._rescan = None
        if self._missing:
            self._writer.hotplug.summon(self._missing)
            self._rescan = self._loop.call_later(RESCAN, self._look_at_all)

    def _take(self, cpu: Cpu) -> None:
        # The writer takes them one after another without a turn of the loop in between.
        self._inventory.history.begun(cpu.number, self._request)
        request = self._request
        attempt = self._writer.submit(
            cpu.firmware_id,
            cpu.number,
            online=request.online,
            for_eject=request.for_eject,
            last=cpu.firmware_id == request.firmware_ids[-1],
        )
        self._attempts.add(attempt)
        attempt.add_done_callback(lambda future: self._loop.call_soon_threadsafe(self._ended, cpu.number, future))
        if self._request.wait:
            self.answers.put_nowait(Arrived(cpu))

    def _ended(self, number: int, future: Future[CpuResult]) -> None:
        self._attempts.discard(future)
        result = None if future.cancelled() else future.result()
        if result is not None:
            self._answer(number, result)
        self._inventory.history.ended(number, self._request, result)

    def _answer(self, number: int, result: CpuResult) -> None:
        if self._stopped:
            self._inventory.look_at(number)
            logs.info("finished after its request had ended", cpu=number, status=result.status.name.lower())
        elif result.status is CpuStatus.REFUSED:
            # What else is known of the CPU may explain it. A success is answered at once: somebody waits for it.
            cpu = self._inventory.look_at(number)
            if result.observed is not None and cpu is not None and cpu.firmware_id == result.firmware_id:
                result = replace(result, observed=replace(cpu, online=result.observed.online))
            self.answers.put_nowait(result)
        else:
            self.answers.put_nowait(result)
            if result.observed is not None:
                self._inventory.note(result.observed)
