# SPDX-License-Identifier: Apache-2.0
"""Knows which CPUs are present, by number and by identity, and tells those who wait for one.

It is level-triggered: an event only makes it look at that one CPU again, and what counts is what it finds in sysfs. It
looks at everything at the start, when events were lost, and whenever somebody asks for a snapshot. While nothing
happens, nothing runs. Everything here runs in the event loop, and reads only files that take no lock in the kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from vcpu_guest import logs
from vcpu_guest.core import reasons
from vcpu_guest.core.model import Cpu, CpuEvent, Detail, Hint, Reason, Snapshot
from vcpu_guest.cpus.history import History
from vcpu_guest.kernel.event_source import EventSource
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms import Platform

#: Seconds from one look to the next after an event: the kernel links a CPU to its firmware object, and removes its
#: directory, just after it has sent the event. What the last look shows is taken for final.
SETTLE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

#: Seconds from one look at everything to the next while somebody watches, so that a lost event costs time only: without
#: events, and with them.
TICKS = (1.0, 5.0)
#: Seconds from a look that failed to the next one, and the most that they become if further looks fail.
RETRY, LONGEST_RETRY = 1.0, 60.0

OnArrival = Callable[[Cpu], None]


@dataclass(slots=True)
class _Known:
    """What was seen of one cpuN. It is forgotten when the number belongs to another CPU."""

    incarnation: int | None
    online: bool
    identity: str = ""
    looks: int = 0
    detail: Detail | None = None
    has_online: bool | None = None


class Inventory:
    """The CPUs of this guest, as sysfs last showed them.

    `settle`: seconds between the looks after an event. `ticks`: seconds between looks while somebody watches, without
    events and with them. `generation` counts the changes that were seen.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        platform: Platform,
        settle: Sequence[float] = SETTLE,
        ticks: tuple[float, float] = TICKS,
        history: History | None = None,
    ) -> None:
        self._sysfs = sysfs
        self._platform = platform
        self._schedule = settle
        self._ticks = ticks
        self.history = history or History()
        self._known: dict[int, _Known] = {}
        self._numbers: dict[str, int] = {}
        self._leaving: dict[int, int | None] = {}
        #: CPUs that may go without an event: they are looked at until the schedule ends.
        self._unsure: set[int] = set()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._waiting: dict[OnArrival, frozenset[str]] = {}
        self._watches: set[asyncio.Event] = set()
        self._events: EventSource | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._retry = RETRY
        self._failures = logs.Seldom("the CPUs cannot be looked at")
        self.generation = 0

    # -- hearing -----------------------------------------------------------------------------------------------------

    def hear(self, events: EventSource) -> None:
        """Begin to listen to this source. It may put events off while nobody waits for news."""
        self._events = events
        events.start(self.on_event, self.on_lost, lambda: self.has_listeners)

    def catch_up(self) -> None:
        """Take in now the events that the source has put off."""
        if self._events is not None:
            self._events.catch_up()

    # -- looking -----------------------------------------------------------------------------------------------------

    def scan(self) -> None:
        """Look at everything. What is known of a CPU is kept as long as its directory is the same one.

        Raise OSError if sysfs cannot be read, ValueError if it holds no list of CPUs.
        """
        present = self._platform.present(self._sysfs)
        online = self._sysfs.mask("online")
        changed = False
        for number in self._known.keys() - present:
            changed |= self._forget(number)
        for number in sorted(present):
            changed |= self._look(number, number in online)
        self.history.begin()
        if changed:
            self._tell()

    def rescan(self) -> None:
        """Look at everything, for callers that cannot handle a failure: it is logged, and the look repeated later."""
        self._guarded(self.scan)

    def on_event(self, event: CpuEvent) -> None:
        """Look at the CPU that the event names. A failure is logged, and the look repeated later."""
        self._guarded(self._hear, event)

    def _guarded(self, look: Callable[..., None], *arguments: object) -> None:
        try:
            look(*arguments)
        except (OSError, ValueError) as error:  # sysfs cannot be read, or has what is no list of CPUs
            self._failures.warning(error=str(error))
            if self._again is None:
                self._again = asyncio.get_running_loop().call_later(self._retry, self._try_again)
                self._retry = min(2 * self._retry, LONGEST_RETRY)

    def _try_again(self) -> None:
        self._again = None
        self.rescan()
        if self._again is None:
            self._retry = RETRY

    def _hear(self, event: CpuEvent) -> None:
        """Look at the CPU, if somebody waits for news of it.

        Events come just when the guest has a CPU to bring up or to eject, so a look that nobody waits for is left out:
        whoever asks later gets a fresh look in any case.
        """
        number, changed = event.number, False
        hint = self._platform.hints.get(event.action, Hint.LOOK)
        if hint in {Hint.SWITCHED, Hint.LEAVING} and not self.has_listeners:
            return
        if hint is Hint.SWITCHED and not self._watches and self._is_known(number):
            return  # whoever waits for arrivals heard of this CPU when its identity became known
        if hint is Hint.COMING:
            # The identity cannot be read yet. The next event says when it can; if none comes, the next look finds out.
            changed = self._forget(number)
            self._look_later(number, 0)
        elif hint is Hint.GOING:
            # The event comes before the directory goes (drivers/base/core.c, device_del). So the CPU counts as gone,
            # unless its directory stays.
            changed = self._forget(number)
            self._leaving[number] = self._platform.incarnation(self._sysfs, number)
            self._look_later(number, 0)
        elif self._platform.is_present(self._sysfs, number):
            if hint is Hint.NEW:
                changed = self._forget(number)
            changed |= self._look(number, number in self._sysfs.mask("online"))
            if hint is Hint.LEAVING:
                self._unsure.add(number)
                self._look_later(number, 0)
        else:
            changed = self._forget(number)
        if changed:
            self._tell()

    def note(self, cpu: Cpu) -> None:
        """Take over what the writer has just read of a known CPU, which saves a look."""
        known = self._known.get(cpu.number)
        if known is not None and known.identity == cpu.firmware_id and known.online != cpu.online:
            known.online, known.detail = cpu.online, None
            self.history.switched(cpu.number, online=cpu.online)
            self._tell()

    @property
    def has_listeners(self) -> bool:
        """Say whether anybody waits for news."""
        return bool(self._waiting or self._watches)

    def on_lost(self, why: str) -> None:
        """Look at everything: events were lost."""
        self.rescan()

    def close(self) -> None:
        """Stop the timers: from now on a look is made only if somebody asks for it."""
        for timer in (*self._timers.values(), self._again, self._tick):
            if timer is not None:
                timer.cancel()
        self._timers.clear()

    def _look(self, number: int, online: bool) -> bool:  # noqa: FBT001 - the one fact besides the number
        incarnation = self._platform.incarnation(self._sysfs, number)
        if number in self._leaving and self._leaving[number] == incarnation:
            return False
        self._leaving.pop(number, None)
        changed = False
        known = self._known.get(number)
        if known is None or known.incarnation != incarnation:
            self._forget(number)
            known = self._known[number] = _Known(incarnation, online)
            self.history.came(number, incarnation, online=online)
            changed = True
        elif known.online != online:
            known.online, known.detail = online, None
            self.history.switched(number, online=online)
            changed = True
        if not known.identity and self._platform.scheme:
            known.identity = self._platform.identity(self._sysfs, number)
            if known.identity:
                self._numbers[known.identity] = number
                self.history.named(number, known.identity)
                self._announce(number, known)
                self._settled(number)
                changed = True
            else:
                self._look_later(number, known.looks)
        return changed

    def _look_later(self, number: int, step: int) -> None:
        if number in self._timers or step >= len(self._schedule):
            return
        loop = asyncio.get_running_loop()
        self._timers[number] = loop.call_later(self._schedule[step], self._look_again, number, step + 1)

    def _settled(self, number: int) -> None:
        """Cancel the next look at a CPU that has come: all of it is known now."""
        timer = None if number in self._unsure else self._timers.pop(number, None)
        if timer is not None:
            timer.cancel()

    def _look_again(self, number: int, step: int) -> None:
        del self._timers[number]
        self._guarded(self._look_once_more, number, step)

    def _look_once_more(self, number: int, step: int) -> None:
        if not self._platform.is_present(self._sysfs, number):
            self._leaving.pop(number, None)
            self._unsure.discard(number)
            changed = self._forget(number)
        else:
            if step >= len(self._schedule):
                self._leaving.pop(number, None)
                self._unsure.discard(number)
            if number in self._known:
                self._known[number].looks = step
            changed = self._look(number, number in self._sysfs.mask("online"))
            if number in self._leaving or number in self._unsure:
                self._look_later(number, step)
        if changed:
            self._tell()

    def _is_known(self, number: int) -> bool:
        known = self._known.get(number)
        return known is not None and known.identity != ""

    def _forget(self, number: int) -> bool:
        known = self._known.pop(number, None)
        if known is None:
            return False
        self.history.went(number, known.incarnation)
        if self._numbers.get(known.identity) == number:
            del self._numbers[known.identity]
        return True

    # -- asking ------------------------------------------------------------------------------------------------------

    def find(self, firmware_id: str) -> int | None:
        """Return the logical number of the CPU with this identity, as last seen; None if it was not seen."""
        return self._numbers.get(firmware_id)

    def look_at(self, number: int) -> Cpu | None:
        """Look at one CPU and return what is seen; None if it is not present."""
        self.on_event(CpuEvent("look", number))
        known = self._known.get(number)
        return None if known is None else self._cpu(number, known)

    def snapshot(self) -> Snapshot:
        """Look at all CPUs and return what is seen. Raise as `scan` does."""
        self.scan()
        return Snapshot(
            self.generation, tuple(self._cpu(number, self._known[number]) for number in sorted(self._known))
        )

    def _cpu(self, number: int, known: _Known) -> Cpu:
        if known.detail is None:
            known.detail = self._read_detail(number)
        if known.has_online is None:
            known.has_online = self._sysfs.has_online(number)
        cannot_online = None if known.online else self._platform.cannot_online(self._sysfs, number)
        return Cpu(
            number, known.identity, known.online, self._cannot_offline(number, known), cannot_online, known.detail
        )

    def _cannot_offline(self, number: int, known: _Known) -> Reason | None:
        if not known.has_online:
            return reasons.no_control(number)
        if known.online and sum(other.online for other in self._known.values()) == 1:
            return reasons.last_cpu(number)
        return None

    def _read_detail(self, number: int) -> Detail:
        sysfs = self._sysfs
        return Detail(
            sysfs.read_cpu_number(number, "topology/physical_package_id"),
            sysfs.read_cpu_number(number, "topology/die_id"),
            sysfs.read_cpu_number(number, "topology/core_id"),
            self._platform.node(sysfs, number),
        )

    # -- being told --------------------------------------------------------------------------------------------------

    def wait_for(self, firmware_ids: frozenset[str], on_arrival: OnArrival) -> None:
        """Call `on_arrival` from now on, the moment the identity of one of these CPUs is known. It must not block."""
        self._waiting[on_arrival] = firmware_ids

    def wait_no_more(self, on_arrival: OnArrival) -> None:
        """Undo `wait_for`, if it was called."""
        self._waiting.pop(on_arrival, None)

    @contextmanager
    def changes(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set after every change, while the context lasts. Clear it before taking a look."""
        event = asyncio.Event()
        self._watches.add(event)
        if self._tick is None:
            self._set_tick()
        try:
            yield event
        finally:
            self._watches.discard(event)
            if not self._watches and self._tick is not None:
                self._tick.cancel()
                self._tick = None

    def _set_tick(self) -> None:
        hearing = self._events is not None and self._events.hearing
        self._tick = asyncio.get_running_loop().call_later(self._ticks[hearing], self._on_tick)

    def _on_tick(self) -> None:
        self._set_tick()
        self.rescan()

    def _announce(self, number: int, known: _Known) -> None:
        for on_arrival, firmware_ids in list(self._waiting.items()):
            if known.identity in firmware_ids:
                # Without details: they would delay the write, and a CPU that is offline shows few.
                on_arrival(Cpu(number, known.identity, known.online))

    def _tell(self) -> None:
        self.generation += 1
        for event in self._watches:
            event.set()
