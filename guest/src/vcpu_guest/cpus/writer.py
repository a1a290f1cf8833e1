# SPDX-License-Identifier: Apache-2.0
"""Brings CPUs online and offline: one at a time, in a thread of its own, and reads each back after the write.

The kernel serialises CPU hotplug anyway, so one thread writes for all requests. A write that runs cannot be
interrupted: a request that ends early lets it finish, and starts no other.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from vcpu_guest import logs
from vcpu_guest.core import reasons
from vcpu_guest.core.model import Arrived, Cpu, CpuResult, CpuStatus, Reason
from vcpu_guest.core.request import Request
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.onliners import Onliners, stay_offline, unsettled
from vcpu_guest.cpus.refusal import explain
from vcpu_guest.kernel.sysfs import NotOpenedError, Sysfs
from vcpu_guest.platforms import Platform
from vcpu_guest.platforms.hotplug import HotplugHandler, KernelHotplug

#: Seconds between two looks at everything while a request waits for CPUs, so that a lost event costs time only.
RESCAN = 1.0
#: Up to so many CPUs of a request the event loop looks at itself.
FEW = 64
#: Seconds for which a list of CPUs waits until nobody switches those that are to be ejected.
SETTLE = 1.0


_T = TypeVar("_T")


def _complain(future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logs.error("work beside the requests failed", error=repr(error))


@dataclass(slots=True)
class _Attempt:
    """One CPU of a request: queued, or under way since `began`.

    `last`: it is the last CPU of its request.
    """

    firmware_id: str
    for_eject: bool = False
    last: bool = False
    began: float | None = None


class Writer:
    """The only one in the agent that writes to the kernel's files of CPUs.

    Requests are carried out in the event loop, writes in one thread. A CPU that is as it shall be takes no thread.
    Everything else that has to be done in that thread, such as hotplug for the hypervisor, goes through `queue`.
    """

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
        # Start the thread now rather than between a CPU's arrival and its write.
        self._executor.submit(lambda: None)
        # Reading a CPU's state waits for whoever is switching that CPU, and must not wait for the writer's queue too.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="settle")
        self._reader.submit(lambda: None)
        self._pending: set[Future[Any]] = set()
        self._attempts: dict[int, _Attempt] = {}
        #: Attempts of requests of whose end the event loop has not heard yet.
        self.unheard = 0
        self._numbers = itertools.count()
        self._closed = False
        self.hotplug.start(self.queue, inventory.rescan)

    def submit(
        self, firmware_id: str, number: int, *, online: bool, for_eject: bool = False, last: bool = False
    ) -> Future[CpuResult]:
        """Queue one attempt. The future's result tells everything; it raises only for errors in our own code.

        `for_eject`: the host is going to eject the CPU. It begins when it has the answer of the `last` one.
        """
        key = next(self._numbers)
        attempt = self._attempts[key] = _Attempt(firmware_id, for_eject, last)
        future = self._queued(self._executor.submit(self._attempt, attempt, number, online=online))
        future.add_done_callback(lambda _: self._attempts.pop(key))
        return future

    def as_wanted(self, request: Request) -> dict[str, int]:
        """Return, by identity, the numbers of CPUs of the request that need no attempt; none if the thread has to look.

        Waking the thread costs more than all the rest of such a request. But the loop may look itself only while the
        thread has nothing to do and the loop has heard of all that it did; not for CPUs that are to be ejected; and not
        for so many that everybody else would wait.
        """
        if self._pending or self.unheard or request.for_eject or len(request.firmware_ids) > FEW:
            return {}
        online = self.sysfs.mask("online")
        self.onliners.looked(online)
        found = {}
        for name in request.firmware_ids:
            number = self.inventory.find(name)
            if number is not None and (number in online) == request.online and self._is(number, name):
                self.onliners.wanted(number)
                found[name] = number
        return found

    def in_hand(self) -> dict[str, float]:
        """Return, by identity, for how many seconds the kernel has been at work on a CPU; 0 if it is queued."""
        now = time.monotonic()
        found: dict[str, float] = {}
        for attempt in list(self._attempts.values()):
            seconds = 0.0 if attempt.began is None else now - attempt.began
            found[attempt.firmware_id] = max(seconds, found.get(attempt.firmware_id, 0.0))
        return found

    def settling(self) -> Coroutine[Any, Any, dict[str, float]] | None:
        """Return a coroutine that waits until nobody is switching a CPU that is to be ejected; None if none is.

        What the kernel lists as offline after that is offline. The coroutine returns, by identity, the CPUs that
        somebody may still be switching, and for how many seconds it waited.
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

    async def stays_offline(self) -> bool:
        """Return whether every CPU that is to be ejected is offline still, and nobody is bringing one up."""
        going = self.onliners.going()
        loop = asyncio.get_running_loop()
        looking = loop.run_in_executor(self._reader, stay_offline, going, self.sysfs.settled_online)
        try:
            return await asyncio.wait_for(asyncio.shield(looking), SETTLE)
        except TimeoutError:
            return False

    def forget_ejections(self) -> None:
        """Do not take CPUs offline again that were to be ejected: their host has gone, and others may want them."""
        if not self._closed:  # its stream may end after the writer, when the agent stops
            self.queue(self.onliners.forget)

    def queue(self, work: Callable[[], None]) -> None:
        """Queue other work for the writer's thread, so that all changes to CPUs are made one after another."""
        self._queued(self._executor.submit(work)).add_done_callback(_complain)

    def _queued(self, future: Future[_T]) -> Future[_T]:
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    async def run(self, request: Request) -> AsyncGenerator[Arrived | CpuResult, None]:
        """Carry out a request: yield a CpuResult for each CPU when it is settled, with `request.wait` an Arrived first.

        The generator ends when all are settled. If it is closed early (a deadline, a cancelled call), no further write
        is started.
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
        """Return, by identity, the numbers of those CPUs of the request that are online, from a fresh look."""
        self.inventory.catch_up()
        self.inventory.scan()
        online = self.sysfs.mask("online")
        found = {name: self.inventory.find(name) for name in request.firmware_ids}
        return {name: number for name, number in found.items() if number is not None and number in online}

    async def close(self, timeout: float) -> bool:
        """Start nothing more. Wait at most `timeout` seconds for the write that runs; return False if it still runs."""
        self._closed = True
        self.hotplug.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=False, cancel_futures=True)
        done = await asyncio.to_thread(wait, list(self._pending), timeout)
        return not done.not_done

    def _attempt(self, attempt: _Attempt, number: int, *, online: bool) -> CpuResult:
        """Switch one CPU, in the writer's thread. Read its identity again: the number may be another CPU's by now."""
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
                # Somebody was just bringing it up again; the list of online CPUs did not show that yet.
                self.onliners.looked((number,))
                status, reason, after = self._switch(firmware_id, number, online=online)
        seconds = time.monotonic() - started
        observed = None if status is CpuStatus.ABSENT else Cpu(number, firmware_id, after)
        return CpuResult(firmware_id, status, reason, observed, seconds)

    def _take_back(self, but: int) -> None:
        """Take offline again the other CPUs that were brought online beside `but`: all are to be ejected together."""
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
            # The write failed, and yet the CPU is as wanted: somebody else, such as a udev rule, was quicker.
            return (CpuStatus.ALREADY if code else CpuStatus.DONE), None, after
        if code:
            reason = explain(self.sysfs, self.platform, number, code, online=online, opened=opened)
            return CpuStatus.REFUSED, reason, after
        return CpuStatus.REFUSED, reasons.contrary(number, online=online), after

    def _is(self, number: int, firmware_id: str) -> bool:
        return (
            self.platform.is_present(self.sysfs, number) and self.platform.identity(self.sysfs, number) == firmware_id
        )

    def _is_online(self, number: int) -> bool:
        return number in self.sysfs.mask("online")


class _ActiveRequest:
    """A request that is being carried out.

    Everything but the attempts runs in the event loop, as callbacks: between the arrival of a CPU and its write no task
    has to be scheduled first.
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
        """Begin with the CPUs that are present, and wait for the others if the request says so."""
        self._inventory.catch_up()
        if not self._request.wait and any(self._inventory.find(name) is None for name in self._request.firmware_ids):
            # The CPU may be there, and its event lost. A request that waits finds it at the next look at everything.
            self._inventory.scan()
        as_wanted = self._writer.as_wanted(self._request)
        for firmware_id in self._request.firmware_ids:
            number = self._inventory.find(firmware_id)
            if firmware_id in as_wanted:
                self._leave(Cpu(as_wanted[firmware_id], firmware_id, online=self._request.online))
            elif number is not None:
                self._take(Cpu(number, firmware_id, online=not self._request.online))
            elif self._request.wait:
                self._missing.add(firmware_id)
            else:
                self.answers.put_nowait(CpuResult(firmware_id, CpuStatus.ABSENT))
        if self._missing:
            self._inventory.wait_for(frozenset(self._missing), self._on_arrival)
            self._rescan = self._loop.call_later(RESCAN, self._look_at_all)

    def stop(self) -> None:
        """Start no further attempt. One that runs goes on, and is logged when it ends."""
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

    def _leave(self, cpu: Cpu) -> None:
        """Answer for a CPU that is as it shall be."""
        self._inventory.history.begun(cpu.number, self._request)
        if self._request.wait:
            self.answers.put_nowait(Arrived(cpu))
        result = CpuResult(cpu.firmware_id, CpuStatus.ALREADY, None, cpu)
        self._answer(cpu.number, result)
        self._inventory.history.ended(cpu.number, self._request, result)

    def _take(self, cpu: Cpu) -> None:
        # All are queued at once: the writer's thread goes from one to the next without a turn of the event loop.
        self._inventory.history.begun(cpu.number, self._request)
        request = self._request
        attempt = self._writer.submit(
            cpu.firmware_id,
            cpu.number,
            online=request.online,
            for_eject=request.for_eject,
            last=cpu.firmware_id == request.firmware_ids[-1],
        )
        self._writer.unheard += 1
        self._attempts.add(attempt)
        attempt.add_done_callback(lambda future: self._loop.call_soon_threadsafe(self._ended, cpu.number, future))
        if self._request.wait:
            self.answers.put_nowait(Arrived(cpu))

    def _ended(self, number: int, future: Future[CpuResult]) -> None:
        self._writer.unheard -= 1
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
            # Show the CPU in detail, which may explain the refusal. A success is answered at once: somebody waits.
            cpu = self._inventory.look_at(number)
            if result.observed is not None and cpu is not None and cpu.firmware_id == result.firmware_id:
                result = replace(result, observed=replace(cpu, online=result.observed.online))
            self.answers.put_nowait(result)
        else:
            self.answers.put_nowait(result)
            if result.observed is not None:
                self._inventory.note(result.observed)
