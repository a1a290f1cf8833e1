# SPDX-License-Identifier: Apache-2.0
"""In-memory fillings of the coordinator's roles, and a VM behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kit.sim.views import INFO, guest, host, identities
from kit.until import DEADLINE
from vcpu_host import ports
from vcpu_host.autoscale.sample import CpuTimes, LoadSample
from vcpu_host.core import codes
from vcpu_host.core.guest import AgentInfo, CpuResult, CpuStatus, GuestCpu, GuestView
from vcpu_host.core.identity import ProcessId, VmIdentity
from vcpu_host.core.model import HostView, Ost, Slot
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.vm_events import DeviceDeleted, OstReported, VmEvent
from vcpu_host.core.workload.model import Workload
from vcpu_host.errors import AgentGoneError, QemuGoneError, TooLateError, VcpuctlError, in_time
from vcpu_host.qmp.events import EventHub
from vcpu_host.qmp.events import gone as gone_event
from vcpu_host.vm.coordinator import Coordinator


def gone(text: str = "the link ended") -> AgentGoneError:
    return AgentGoneError(Reason("agent-lost", Origin.AGENT, text))


class Vm:
    """The truth that monitor and agent share."""

    def __init__(self, total: int = 4, filled: Sequence[int] = (0,)) -> None:
        self.total = total
        self.filled = set(filled)
        self.online = set(filled)
        self.present = set(filled)
        self.commands: list[str] = []
        self.changed = asyncio.Event()
        self.guest_works = True

    def name(self, index: int) -> str:
        return identities(host(self.total), index)[0]

    def cpu(self, index: int) -> GuestCpu:
        return GuestCpu(index, self.name(index), index in self.online)

    def note(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Vmm:
    """The monitor."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.hub = EventHub()
        self.gone: str | None = None
        self.closed = False
        self.status = "running"
        self.port_open = True
        self.add_error: VcpuctlError | Exception | None = None
        self.del_error: VcpuctlError | None = None
        self.too_late = False  # whatever is to go out by a certain time is held up
        self.facts: dict[str, Any] = {}  # what else QEMU says of itself: fields of HostView

    def _check(self) -> None:
        if self.gone is not None:
            raise QemuGoneError(Reason("qemu-gone", Origin.QEMU, self.gone))

    def die(self, text: str = "killed") -> None:
        self.gone = text
        self.hub.put(gone_event(text))

    async def identity(self) -> VmIdentity:
        return VmIdentity(ProcessId(9000, 1, 1), listens=True)

    async def look(self) -> HostView:
        self._check()
        view = host(self.vm.total, self.vm.filled, status=self.status)._replace(**self.facts)
        if view.channel is None or self.port_open:
            return view
        return view._replace(channel=view.channel._replace(guest_open=False))

    async def look_slots(self, view: HostView) -> HostView:
        await asyncio.sleep(0)
        now = await self.look()
        return view._replace(slots=now.slots, devices=now.devices, status=now.status)

    async def mend(self, view: HostView) -> None:
        del view

    async def keep(self, slots: Mapping[int, bool], *, whole: bool = False) -> Mapping[int, Reason]:
        del whole
        self.kept = dict(slots)
        return {}

    async def queues(self) -> dict[str, tuple[int, ...]]:
        return {}

    async def plug(self, slot: Slot, device_id: str = "") -> str:
        device_id = device_id or slot.default_id
        await asyncio.sleep(0)
        self._check()
        self.vm.commands.append(f"add {slot.index} {device_id}")
        if self.add_error is not None:
            raise self.add_error
        self.vm.filled.add(slot.index)
        if self.vm.guest_works:
            self.vm.present.add(slot.index)
            self.hub.put(OstReported(slot.index, Ost(1, 0)))
            self.vm.note()
        return device_id

    async def unplug(self, slot: Slot, not_after: float | None = None) -> None:
        target = slot.handle or slot.default_id
        if self.too_late:
            raise TooLateError  # before anything is awaited: what is on its way at the end may have been sent
        await asyncio.sleep(0)
        self._check()
        in_time(not_after)
        self.vm.commands.append(f"del {target}")
        if self.del_error is not None:
            raise self.del_error
        index = slot.index
        if self.vm.guest_works:
            assert index not in self.vm.online
            self.vm.filled.discard(index)
            self.vm.present.discard(index)
            self.hub.put(DeviceDeleted(index))
            self.hub.put(OstReported(index, Ost(3, 0)))

    def events(self) -> AsyncIterator[VmEvent]:
        return self.hub.stream()

    async def close(self) -> None:
        self.closed = True


class Agent:
    """One session."""

    def __init__(self, vm: Vm, session: str) -> None:
        self.vm = vm
        self.session = session
        self.info: AgentInfo = INFO
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.refuses: Reason | None = None
        self.breaks_contract = False
        self.slow_once = False
        self.asked: list[tuple[str, ...]] = []
        self.for_eject: set[str] = set()
        self.cancelled = 0
        self.checked = self.listed = self.hellos = 0
        self.becomes: AgentInfo | None = None  # what is said of the guest when that is asked anew
        self.told_at = asyncio.get_running_loop().time()
        self.silent = False
        self.watched = False
        self.programs: Workload | VcpuctlError | None = Workload()  # None: the question is never answered
        self.looked: list[tuple[tuple[str, ...], bool, bool, bool]] = []

    @property
    def ended(self) -> bool:
        return self.end.done()

    def die(self) -> None:
        if not self.end.done():
            self.end.set_result("vcpud ended")

    async def check(self) -> None:
        self.checked += 1
        if self.ended:
            raise gone()
        if self.silent:
            raise AgentGoneError(Reason("agent-slow", Origin.AGENT, "no answer"))

    async def renew_info(self, since: float) -> None:
        if self.told_at >= since:
            return
        self.hellos += 1
        await asyncio.sleep(0)
        if self.ended:
            raise gone()
        self.told_at = since
        self.info = self.becomes or self.info

    async def list_cpus(self) -> GuestView:
        self.listed += 1
        if self.ended:
            raise gone()
        return guest(host(self.vm.total, self.vm.present), self.vm.online, self.vm.present - self.vm.online)

    async def watch(self) -> AsyncIterator[GuestView]:
        while not self.ended:
            yield await self.list_cpus()
            await asyncio.wait([self.end], timeout=0.01)
        raise gone()

    async def watch_load(self, calm: float, busy: float, quiet: float) -> AsyncGenerator[LoadSample, None]:
        while not self.ended:
            yield LoadSample(self._listed_at(), "boot", (CpuTimes(0, 0.0, 0.0, 0.0),))
            await asyncio.wait([self.end], timeout=calm)
        raise gone()

    def _listed_at(self) -> float:
        return asyncio.get_running_loop().time()

    async def set_online(
        self,
        firmware_ids: Sequence[str],
        *,
        online: bool,
        wait: bool,
        brief: bool,
        timeout: float,
        for_eject: bool = False,
        watch: bool = False,
    ) -> AsyncIterator[ports.SetOnlineAnswer]:
        del timeout
        self.watched = watch
        self.asked.append(tuple(firmware_ids))
        self.for_eject |= set(firmware_ids) if for_eject else set()
        if self.breaks_contract:
            raise gone("the agent sent what it may not")
        if self.slow_once:
            self.slow_once = False
            raise VcpuctlError(Reason("agent-slow", Origin.AGENT, "the guest is busy"))
        indices = {self.vm.name(index): index for index in range(self.vm.total)}
        try:
            for name in firmware_ids:
                index = indices[name]
                while wait and index not in self.vm.present:
                    await self._change()
                if self.ended:
                    raise gone()
                if wait and not brief:
                    yield ports.Arrived(self.vm.cpu(index))
                yield self._switch(index, online=online)
            yield await self.list_cpus()
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def workload(
        self, going: Sequence[str], *, use: bool = False, broken: bool = False, forgotten: bool = False
    ) -> Workload:
        self.looked.append((tuple(going), use, broken, forgotten))
        if self.programs is None:
            await asyncio.shield(self.end)
            raise gone()
        if isinstance(self.programs, VcpuctlError):
            raise self.programs
        return self.programs

    async def _change(self) -> None:
        """Wait until a CPU comes, or the session ends."""
        self.end.add_done_callback(lambda _: self.vm.note())
        await self.vm.changed.wait()
        if self.ended:
            raise gone()

    def _switch(self, index: int, *, online: bool) -> CpuResult:
        name = self.vm.name(index)
        if index not in self.vm.present:
            return CpuResult(name, CpuStatus.ABSENT, None, None, 0.0)
        if self.refuses is not None:
            return CpuResult(name, CpuStatus.REFUSED, self.refuses, self.vm.cpu(index), 0.0)
        (self.vm.online.add if online else self.vm.online.discard)(index)
        return CpuResult(name, CpuStatus.DONE, None, self.vm.cpu(index), 0.001)

    async def lost(self) -> str:
        return await asyncio.shield(self.end)

    async def close(self) -> None:
        self.die()


class Dialer:
    """Makes sessions, or says why not."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.made: list[Agent] = []
        self.trouble: VcpuctlError | None = None
        self.prepare: Callable[[Agent], None] = lambda agent: None
        self.dialled = 0
        self.silence: Callable[[], None] | None = None  # for one attempt; is called when it begins

    async def dial(self, view: HostView, timeout: float) -> Agent:
        await asyncio.sleep(0)
        self.dialled += 1
        if view.channel is not None and not view.channel.guest_open:
            raise AgentGoneError(Reason("agent-absent", Origin.AGENT, "nobody has the port open"))
        if self.silence is not None:
            self.silence()
            self.silence = None
            await asyncio.sleep(timeout)
            raise AgentGoneError(Reason(codes.NO_ANSWER, Origin.AGENT, "nobody"))
        if self.trouble is not None:
            raise self.trouble
        agent = Agent(self.vm, f"session-{len(self.made)}")
        self.prepare(agent)
        self.made.append(agent)
        return agent


class Rig:
    """All of it."""

    def __init__(self, total: int = 4, filled: Sequence[int] = (0,)) -> None:
        self.vm = Vm(total, filled)
        self.vmm = Vmm(self.vm)
        self.dialer = Dialer(self.vm)
        self.whole = Coordinator(self.vmm, self.dialer, dial_timeout=1.0)


@contextmanager
def no_task_left() -> Iterator[None]:
    before = asyncio.all_tasks()
    yield
    nothing_new_since(before)


def nothing_new_since(before: set[asyncio.Task[Any]]) -> None:
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - any condition, of objects that know no events
            await asyncio.sleep(0.001)


PLUG = Request(Operation.PLUG, 1)
#: For a VM that answers at once.
BRISK = Limits(timeout=60.0, absent_grace=0.05, retry_after=0.02, poll_first=0.005, poll_most=0.02, poll_idle=0.05)
