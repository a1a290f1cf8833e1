# SPDX-License-Identifier: Apache-2.0
"""What the simulated world stands on: faults as data, each slot as it truly is, and simulated time."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache, partial

from vcpu_host.core.guest import GuestCpu, GuestView
from vcpu_host.core.intent import Intent
from vcpu_host.core.model import HostView, Ost, Slot
from vcpu_host.core.operation import events as ev
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.qmp.names import OURS

from . import views


@dataclass(frozen=True)
class Faults:
    """Chances from 0 to 1, and what happens at which second: (when, what, which slot)."""

    lost: float = 0.0  # hints: OST, DEVICE_DELETED, RESET, STOP ...
    doubled: float = 0.0
    late: float = 0.0
    add_refused: float = 0.0
    del_refused: float = 0.0
    online_refused: float = 0.0
    offline_refused: float = 0.0
    passing: float = 0.0  # of the refusals, those that pass by themselves
    eject_refused: float = 0.0
    eject_silent: float = 0.0
    ignored: float = 0.0  # the kernel acknowledges a CPU and does not use it
    auto_online: float = 0.0
    stream_breaks: float = 0.0
    lies: float = 0.0
    deaf: float = 0.0  # of arrivals, those whose event the agent does not hear: too many others came with it
    slow: float = 0.0  # a write of ``online`` takes many seconds: the kernel loads modules at each new CPU
    slow_record: float = 0.0  # writing the record takes long: it lies on a busy disk, or with libvirt
    onliner: float = 0.0  # seconds from one round to the next of something that brings every CPU online; 0: none
    happenings: tuple[tuple[float, str, int], ...] = ()


@dataclass
class Ask:
    """A SetOnline that the agent works on."""

    number: int
    session: str
    online: bool
    wait: bool
    brief: bool
    left: list[str]
    astray: bool = False  # a result was not as wanted
    over: bool = False
    told_until: float = 0.0


@dataclass
class Sim:
    """One slot, as it truly is, and when it, or each of its threads, was last seen so."""

    index: int
    holder: str | None  # the device's id, "" for a boot CPU, None if the slot is empty
    online: list[bool]
    present: bool = False
    linked: bool = True  # the kernel has tied the CPU to its firmware object
    ejecting: bool = False
    commands: int = 0  # device_add and device_del on their way to QEMU
    touched: bool = False  # by somebody else, by an earlier operation's rest, or by a reset
    lied_about: bool = False
    foreign: bool = False  # somebody else has asked for its removal
    misnamed: bool = False  # the guest's firmware calls it by a name that is no slot's
    untold: bool = False  # the guest's kernel was told of it in a life that a snapshot has undone
    noticed_at: float = -1.0  # when the guest showed it last
    fills: int = 0
    ost: Ost | None = None
    plugged_at: float = 0.0  # by us
    empty_at: float = -1.0
    lit_at: dict[int, float] = field(default_factory=dict)
    dark_at: dict[int, float] = field(default_factory=dict)

    @property
    def up(self) -> bool:
        return self.holder is not None and self.present and all(self.online)

    @property
    def path(self) -> str | None:
        if self.holder is None:
            return None
        return f"/machine/peripheral/{self.holder}" if self.holder else f"/machine/unattached/device[{self.index + 3}]"


@lru_cache(maxsize=4096)
def _slot(index: int, threads: int, holder: str | None, fills: int) -> Slot:
    filled, boot = holder is not None, holder == ""
    return views.slot(index, threads=threads, filled=filled, boot=boot, device_id=holder or None, fills=fills)


@dataclass
class Ground:
    """Time, the way to the listener, and the truth about every slot. See :class:`kit.sim.world.World`."""

    total: int
    online: Collection[int] = (0,)
    offline: Collection[int] = ()
    threads: int = 1
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    now: float = 0.0
    inbox: deque[ev.Event] = field(default_factory=deque)
    dead: bool = False
    running: bool = True
    #: Its run state when it does not run, and all those that it has been in.
    halted: str = "paused"
    was_halted: set[str] = field(default_factory=set)
    session: str | None = None
    calmed: bool = False
    #: The write-ahead record, which outlives an operation.
    record: tuple[Intent, ...] = ()
    #: QEMU's side as the operation under way was last shown it: by that it names the CPU that is to go.
    shown: HostView = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._op = 0
        self._epoch = 0
        self._frozen: list[Callable[[], None]] = []
        self._in_order_until = 0.0
        self._commands_until = 0.0
        self.platform = views.platform_of(self.threads)
        self.sims = [self._sim(index) for index in range(self.total)]
        host = self.shown = self.host()
        self._names = {
            name: (sim, thread)
            for sim, slot in zip(self.sims, host.slots, strict=True)
            for thread, name in enumerate(self.platform.firmware_ids(host, slot))
        }

    @property
    def names(self) -> Collection[str]:
        """How the threads of all slots are called in the guest."""
        return self._names.keys()

    def thread_of(self, name: str) -> tuple[Sim, int]:
        """The slot, as it truly is, and the place in it of the thread with this identity."""
        return self._names[name]

    def _sim(self, index: int) -> Sim:
        lit = index in self.online
        filled = lit or index in self.offline
        holder = None if not filled else "" if index == 0 else OURS.slot_id(index)
        sim = Sim(index, holder, [lit] * self.threads, present=filled)
        self.stamp(sim)
        return sim

    # --- time ---------------------------------------------------------------------------------------------------------

    def _at(self, delay: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay, self._count, what))

    def _command(self, what: Callable[[], None]) -> None:
        """QEMU carries out what changes it in the order in which it was asked, on one monitor."""
        self._commands_until = max(self._commands_until, self.now + self._moment())
        self._at(self._commands_until - self.now, what)

    def _guest(self, what: Callable[[], None], delay: float | None = None) -> None:
        """Work inside the guest: waits while the VM is paused, is lost in a reset."""
        epoch = self._epoch

        def due() -> None:
            if epoch != self._epoch or self.dead:
                return
            if self.running:
                what()
            else:
                self._frozen.append(due)

        self._at(self._moment() if delay is None else delay, due)

    def _moment(self) -> float:
        return self.rng.choice((0.0, 0.001, 0.01, 0.2, 2.0))

    def _chance(self, chance: float) -> bool:
        return chance > 0 and self.rng.random() < chance

    def run_until(self, when: float) -> None:
        """Let things happen until then, or until there is something to tell."""
        while not self.inbox and self._heap and self._heap[0][0] <= when:
            self.now, _, what = heapq.heappop(self._heap)
            what()
        if not self.inbox:
            self.now = max(self.now, when)

    def pass_by(self, when: float) -> None:
        """Let things happen until then; nobody listens."""
        self.elapse(when)
        self.inbox.clear()

    def elapse(self, when: float) -> None:
        """Let things happen until then; what there is to tell waits."""
        while self._heap and self._heap[0][0] <= when:
            self.now, _, what = heapq.heappop(self._heap)
            what()
        self.now = max(self.now, when)

    def recording(self) -> float:
        """How long it takes this time to write the record, in seconds."""
        return self.rng.choice((0.03, 0.3, 3.0)) if self._chance(self.faults.slow_record) else 0.0

    def drain(self, until: Callable[[], bool] = lambda: False) -> None:
        """Let all that is under way happen, or as much as it takes; nobody listens."""
        while self._heap and not until():
            self.now, _, what = heapq.heappop(self._heap)
            what()
        self.inbox.clear()

    # --- telling ------------------------------------------------------------------------------------------------------

    def _hint(self, event: ev.Event) -> None:
        """An event of QEMU: may be lost, late, doubled."""
        if self._chance(self.faults.lost):
            return
        op = self._op  # a connection that is made later does not hear it
        for _ in range(2 if self._chance(self.faults.doubled) else 1):
            self._at(self._delay(None), partial(self._put, event, op))

    def _tell(self, event: ev.Event, op: int | None = None) -> None:
        """An answer: surely, some time, unless the operation that asked (``op``) is over by then."""
        self._at(self._delay(op), lambda: self._put(event, op))

    def _delay(self, op: int | None) -> float:
        late = 8 * self.rng.random() if self._chance(self.faults.late) else 0.0
        return late + self._moment() * (op is not None)

    def _tell_in_order(self, event: ev.Event) -> None:
        """Of the session itself: never overtaken by another of its kind."""
        op = self._op
        self._in_order_until = max(self._in_order_until, self.now + self._moment())
        self._at(self._in_order_until - self.now, lambda: self._put(event, op))

    def _put(self, event: ev.Event, op: int | None = None) -> None:
        if op is not None and op != self._op:
            return
        if not self.dead or isinstance(event, ev.QemuGone):
            self.inbox.append(event)

    # --- the truth ----------------------------------------------------------------------------------------------------

    def stamp(self, sim: Sim) -> None:
        """Write down how the slot is at this moment."""
        if sim.holder is None:
            sim.empty_at = self.now
        for thread, lit in enumerate(sim.online):
            (sim.lit_at if lit else sim.dark_at)[thread] = self.now

    def _change(self, sim: Sim, change: Callable[[], None]) -> None:
        self.stamp(sim)
        change()
        self.stamp(sim)

    def host(self) -> HostView:
        """What QEMU would say now."""
        slots = tuple(_slot(sim.index, self.threads, sim.holder, sim.fills) for sim in self.sims)
        said = {sim.index: sim.ost for sim in self.sims if sim.ost is not None}
        status = "running" if self.running else self.halted
        return views.host(self.total, slots=slots, threads=self.threads, status=status, ost=said)

    def guest(self) -> GuestView:
        """What the agent would say now."""
        cpus = [self._cpu(name) for name, (sim, _) in self._names.items() if sim.present]
        return GuestView(1, "boot", "instance", tuple(cpus))

    def _cpu(self, name: str) -> GuestCpu:
        sim, thread = self._names[name]
        stays = Reason("boot-cpu", Origin.GUEST, "cpu0 stays") if sim.index == 0 and sim.online[thread] else None
        number = sim.index * self.threads + thread
        shown = name if sim.linked else ""
        return GuestCpu(number, f"other:{number}" if sim.misnamed else shown, sim.online[thread], cannot_offline=stays)
