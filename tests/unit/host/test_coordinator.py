# SPDX-License-Identifier: Apache-2.0
"""The coordinator between a monitor and an agent that live in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from fakes.views import INFO, guest, host, identities
from vcpu_host import ports
from vcpu_host.coordinator import Coordinator
from vcpu_host.core.model import (
    AgentInfo,
    CpuResult,
    CpuStatus,
    GuestCpu,
    GuestView,
    HostView,
    Ost,
    Outcome,
    Reason,
    Slot,
    Who,
)
from vcpu_host.core.plan import Operation, Request
from vcpu_host.core.policy import Policy
from vcpu_host.errors import AgentGoneError, QemuError, QemuGoneError, RefusedError, VcpuctlError

_POLICY = Policy(timeout=10.0, retry_after=0.02, poll_first=0.005, poll_most=0.02, poll_idle=0.05)


def _gone(text: str = "the link ended") -> AgentGoneError:
    return AgentGoneError(Reason("agent-lost", Who.AGENT, text))


class _Vm:
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


class _Vmm:
    """The monitor."""

    def __init__(self, vm: _Vm) -> None:
        self.vm = vm
        self.queue: asyncio.Queue[ports.VmmEvent] = asyncio.Queue()
        self.gone: str | None = None
        self.closed = False
        self.status = "running"
        self.add_error: VcpuctlError | Exception | None = None
        self.del_error: VcpuctlError | None = None

    def _check(self) -> None:
        if self.gone is not None:
            raise QemuGoneError(Reason("qemu-gone", Who.QEMU, self.gone))

    def die(self, text: str = "killed") -> None:
        self.gone = text
        self.queue.put_nowait(ports.QemuGone(text))

    async def look(self) -> HostView:
        self._check()
        return host(self.vm.total, self.vm.filled, status=self.status)

    async def look_slots(self, view: HostView) -> HostView:
        del view
        await asyncio.sleep(0)
        return await self.look()

    async def device_add(self, slot: Slot, device_id: str) -> None:
        await asyncio.sleep(0)
        self._check()
        self.vm.commands.append(f"add {slot.index} {device_id}")
        if self.add_error is not None:
            raise self.add_error
        self.vm.filled.add(slot.index)
        if self.vm.guest_works:
            self.vm.present.add(slot.index)
            self.queue.put_nowait(ports.OstReported(slot.index, Ost(1, 0)))
            self.vm.note()

    async def device_del(self, target: str) -> None:
        await asyncio.sleep(0)
        self._check()
        self.vm.commands.append(f"del {target}")
        if self.del_error is not None:
            raise self.del_error
        index = int(target.removeprefix("vcpu-"))
        if self.vm.guest_works:
            assert index not in self.vm.online
            self.vm.filled.discard(index)
            self.vm.present.discard(index)
            self.queue.put_nowait(ports.DeviceDeleted(f"/machine/peripheral/{target}", target))

    async def events(self) -> AsyncIterator[ports.VmmEvent]:
        while True:
            event = await self.queue.get()
            yield event
            if isinstance(event, ports.QemuGone):
                return

    async def close(self) -> None:
        self.closed = True


class _Agent:
    """One session."""

    def __init__(self, vm: _Vm, session: str) -> None:
        self.vm = vm
        self.session = session
        self.info: AgentInfo = INFO
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.refuses: Reason | None = None
        self.breaks_contract = False
        self.slow_once = False
        self.asked: list[tuple[str, ...]] = []
        self.cancelled = 0

    @property
    def ended(self) -> bool:
        return self.end.done()

    def die(self) -> None:
        if not self.end.done():
            self.end.set_result("vcpud ended")

    async def list_cpus(self) -> GuestView:
        if self.ended:
            raise _gone()
        return guest(host(self.vm.total, self.vm.present), self.vm.online, self.vm.present - self.vm.online)

    async def watch(self) -> AsyncIterator[GuestView]:
        while not self.ended:
            yield await self.list_cpus()
            await asyncio.wait([self.end], timeout=0.01)
        raise _gone()

    async def set_online(
        self, firmware_ids: Sequence[str], *, online: bool, wait: bool, brief: bool, timeout: float
    ) -> AsyncIterator[ports.SetOnlineAnswer]:
        del timeout
        self.asked.append(tuple(firmware_ids))
        if self.breaks_contract:
            raise _gone("the agent sent what it may not")
        if self.slow_once:
            self.slow_once = False
            raise VcpuctlError(Reason("agent-slow", Who.AGENT, "the guest is busy"))
        indices = {self.vm.name(index): index for index in range(self.vm.total)}
        try:
            for name in firmware_ids:
                index = indices[name]
                while wait and index not in self.vm.present:
                    await self._change()
                if self.ended:
                    raise _gone()
                if wait and not brief:
                    yield ports.Arrived(self.vm.cpu(index))
                yield self._switch(index, online=online)
            yield await self.list_cpus()
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def _change(self) -> None:
        """Wait until a CPU comes, or the session ends."""
        self.end.add_done_callback(lambda _: self.vm.note())
        await self.vm.changed.wait()
        if self.ended:
            raise _gone()

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


class _Dialer:
    """Makes sessions, or says why not."""

    def __init__(self, vm: _Vm) -> None:
        self.vm = vm
        self.made: list[_Agent] = []
        self.trouble: VcpuctlError | None = None
        self.prepare: Callable[[_Agent], None] = lambda agent: None

    async def dial(self, view: HostView, timeout: float) -> _Agent:
        del view, timeout
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        agent = _Agent(self.vm, f"session-{len(self.made)}")
        self.prepare(agent)
        self.made.append(agent)
        return agent


class _Rig:
    """All of it."""

    def __init__(self, total: int = 4, filled: Sequence[int] = (0,)) -> None:
        self.vm = _Vm(total, filled)
        self.vmm = _Vmm(self.vm)
        self.dialer = _Dialer(self.vm)
        self.whole = Coordinator(self.vmm, self.dialer, dial_timeout=1.0)


@pytest.fixture(name="rig")
async def _rig() -> AsyncIterator[_Rig]:
    """A VM with one CPU of four; at the end no task may be left."""
    before = asyncio.all_tasks()
    rig = _Rig()
    yield rig
    await rig.whole.close()
    await asyncio.sleep(0)
    _nothing_new_since(before)


@contextmanager
def _no_task_left() -> Iterator[None]:
    before = asyncio.all_tasks()
    yield
    _nothing_new_since(before)


def _nothing_new_since(before: set[asyncio.Task[Any]]) -> None:
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - any condition, of objects that know no events
            await asyncio.sleep(0.001)


PLUG = Request(Operation.PLUG, 1)


# --- end to end -------------------------------------------------------------------------------------------------------


async def test_plug_ends_with_the_slot_filled_and_its_cpu_online(rig: _Rig) -> None:
    with _no_task_left():
        result = await rig.whole.run(Request(Operation.PLUG, 2), _POLICY)
    assert result.outcome is Outcome.DONE, result
    assert rig.vm.commands == ["add 1 vcpu-1", "add 2 vcpu-2"]
    assert rig.vm.online == {0, 1, 2}
    assert [slot.guest_cpus for slot in result.slots] == [(1,), (2,)]


async def test_unplug_takes_the_cpu_offline_before_it_asks_qemu(rig: _Rig) -> None:
    await rig.whole.run(PLUG, _POLICY)
    result = await rig.whole.run(Request(Operation.UNPLUG, 1), _POLICY)
    assert result.outcome is Outcome.DONE
    assert rig.vm.commands == ["add 1 vcpu-1", "del vcpu-1"]
    assert rig.vm.filled == {0}


async def test_a_goal_that_is_reached_sends_nothing(rig: _Rig) -> None:
    result = await rig.whole.run(Request(Operation.SCALE, 1), _POLICY)
    assert result.outcome is Outcome.DONE
    assert rig.vm.commands == []


async def test_a_plan_sends_nothing(rig: _Rig) -> None:
    assert len((await rig.whole.plan(Request(Operation.PLUG, 3))).steps) == 3
    assert rig.vm.commands == []


async def test_what_the_plan_refuses_is_a_result_and_sends_nothing(rig: _Rig) -> None:
    result = await rig.whole.run(Request(Operation.SCALE, 9), _POLICY)
    assert (result.outcome, result.reason.code if result.reason else "") == (Outcome.REFUSED, "over-max")
    assert rig.vm.commands == []


async def test_progress_hears_of_every_action_and_event(rig: _Rig) -> None:
    heard: list[str] = []
    await rig.whole.run(PLUG, _POLICY, lambda what, machine: heard.append(type(what).__name__))
    assert {"DoAdd", "DoSetOnline", "Added", "CpuSettled", "DoLookHost", "HostLooked"} <= set(heard)


# --- no agent ---------------------------------------------------------------------------------------------------------


async def test_without_an_agent_an_operation_raises_and_changes_nothing(rig: _Rig) -> None:
    rig.dialer.trouble = AgentGoneError(Reason("agent-absent", Who.AGENT, "nobody has the port open"))
    with pytest.raises(AgentGoneError) as error:
        await rig.whole.run(PLUG, _POLICY)
    assert error.value.reason.code == "agent-absent"
    assert rig.vm.commands == []


async def test_without_an_agent_the_map_is_shown_with_the_reason(rig: _Rig) -> None:
    rig.dialer.trouble = AgentGoneError(Reason("agent-absent", Who.AGENT, "nobody"))
    view = await rig.whole.observe()
    assert view.guest is None
    assert view.agent_trouble is rig.dialer.trouble.reason


async def test_a_session_that_ended_between_two_looks_is_made_anew(rig: _Rig) -> None:
    await rig.whole.observe()
    rig.dialer.made[0].die()
    assert (await rig.whole.observe()).guest is not None
    assert len(rig.dialer.made) == 2


async def test_a_paused_vm_is_shown_at_once_and_its_agent_not_asked(rig: _Rig) -> None:
    await rig.whole.observe()
    rig.vmm.status = "paused"
    view = await rig.whole.observe()
    assert view.guest is None
    assert view.agent_trouble is not None
    assert view.agent_trouble.code == "vm-not-running"


# --- in the middle ----------------------------------------------------------------------------------------------------


async def test_an_agent_lost_in_the_middle_is_dialled_again_and_the_operation_goes_on(rig: _Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, _POLICY))
    await _until(lambda: rig.vm.commands and rig.dialer.made[0].asked)
    rig.dialer.made[0].die()
    await _until(lambda: len(rig.dialer.made) == 2)
    rig.vm.present.add(1)
    rig.vm.note()
    assert (await running).outcome is Outcome.DONE
    assert rig.vm.online == {0, 1}


async def test_an_agent_that_stays_away_ends_in_unknown_that_says_so(rig: _Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, replace(_POLICY, timeout=0.3)))
    await _until(lambda: rig.vm.commands)
    rig.dialer.trouble = AgentGoneError(Reason("agent-absent", Who.AGENT, "nobody has the port open"))
    rig.dialer.made[0].die()
    result = await running
    assert result.outcome is Outcome.UNKNOWN
    assert result.slots[0].reason is not None
    assert result.slots[0].reason.code == "agent-lost"
    assert "nobody has the port open" in result.slots[0].reason.text


async def test_a_port_taken_by_another_program_is_trouble_with_the_agent_and_not_with_qemu(rig: _Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, replace(_POLICY, timeout=0.3)))
    await _until(lambda: rig.vm.commands)
    rig.dialer.trouble = RefusedError(Reason("port-busy", Who.VCPUCTL, "another program holds the port"))
    rig.dialer.made[0].die()
    result = await running
    assert result.slots[0].reason is not None
    assert result.slots[0].reason.code == "agent-lost"


async def test_an_agent_that_breaks_the_contract_is_asked_nothing_more_in_that_session(rig: _Rig) -> None:
    rig.dialer.prepare = lambda agent: setattr(agent, "breaks_contract", not rig.dialer.made)
    result = await rig.whole.run(PLUG, _POLICY)
    assert result.outcome is Outcome.DONE
    assert len(rig.dialer.made[0].asked) == 1
    assert rig.dialer.made[0].ended


async def test_a_request_that_ends_before_its_answers_is_made_again(rig: _Rig) -> None:
    rig.dialer.prepare = lambda agent: setattr(agent, "slow_once", True)
    result = await rig.whole.run(PLUG, _POLICY)
    assert result.outcome is Outcome.DONE
    assert len(rig.dialer.made) == 1
    assert len(rig.dialer.made[0].asked) == 2


async def test_qemu_dying_in_the_middle_ends_all_at_once(rig: _Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, _POLICY))
    await _until(lambda: rig.vm.commands)
    began = asyncio.get_running_loop().time()
    rig.vmm.die("connection reset")
    result = await running
    assert asyncio.get_running_loop().time() - began < 1
    assert result.outcome is Outcome.UNKNOWN
    assert result.reason is not None
    assert (result.reason.code, result.reason.text) == ("qemu-gone", "connection reset")


async def test_qemu_dead_before_the_first_look_is_an_error(rig: _Rig) -> None:
    rig.vmm.die()
    with pytest.raises(QemuGoneError):
        await rig.whole.run(PLUG, _POLICY)


async def test_qemus_refusal_is_the_slots_reason(rig: _Rig) -> None:
    rig.vmm.add_error = QemuError(Reason("qemu-refused", Who.QEMU, "device_add not allowed while migrating"))
    result = await rig.whole.run(PLUG, _POLICY)
    assert result.outcome is Outcome.REFUSED
    assert result.slots[0].reason is rig.vmm.add_error.reason


async def test_a_refused_removal_brings_the_cpu_back_online(rig: _Rig) -> None:
    await rig.whole.run(PLUG, _POLICY)
    rig.vmm.del_error = QemuError(Reason("qemu-refused", Who.QEMU, "not while migrating"))
    result = await rig.whole.run(Request(Operation.UNPLUG, 1), _POLICY)
    assert result.outcome is Outcome.FAILED
    assert rig.vm.online == {0, 1}


async def test_a_guest_that_keeps_its_cpu_refuses_in_its_own_words(rig: _Rig) -> None:
    await rig.whole.run(PLUG, _POLICY)
    why = Reason("deadline-bandwidth", Who.GUEST, "SCHED_DEADLINE tasks need it", errno="EBUSY")
    rig.dialer.made[0].refuses = why
    result = await rig.whole.run(Request(Operation.UNPLUG, 1), _POLICY)
    assert result.outcome is Outcome.REFUSED
    assert result.slots[0].reason is why
    assert rig.vm.commands == ["add 1 vcpu-1"]


async def test_events_that_came_before_the_first_look_do_no_harm(rig: _Rig) -> None:
    for event in (
        ports.OstReported(1, Ost(3, 0x82)),
        ports.OstReported(99, Ost(1, 0)),
        ports.DeviceDeleted("/machine/peripheral/vcpu-1", "vcpu-1"),
        ports.UnplugRefused("/machine/peripheral/vcpu-1", "vcpu-1"),
        ports.VmStatus("running"),
        ports.PortChanged("vcpuctl", open=False),
    ):
        rig.vmm.queue.put_nowait(event)
    assert (await rig.whole.run(PLUG, _POLICY)).outcome is Outcome.DONE


async def test_a_reset_in_the_middle_is_lived_through(rig: _Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, _POLICY))
    await _until(lambda: rig.vm.commands)
    rig.vmm.queue.put_nowait(ports.VmReset(guest=True))
    rig.dialer.made[0].die()
    rig.vm.present.add(1)
    rig.vm.online.add(1)
    assert (await running).outcome is Outcome.DONE


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_an_interrupt_ends_the_wait_with_what_is_known(rig: _Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, _POLICY))
    await _until(lambda: rig.vm.commands)
    with _no_task_left():
        rig.whole.interrupt()
        result = await running
    assert result.outcome is Outcome.UNKNOWN
    assert result.reason is not None
    assert result.reason.code == "interrupted"


async def test_an_interrupt_before_anything_was_sent_keeps_it_so(rig: _Rig) -> None:
    running = asyncio.ensure_future(rig.whole.run(PLUG, _POLICY))
    await asyncio.sleep(0)
    rig.whole.interrupt()
    assert (await running).outcome is Outcome.UNKNOWN
    assert rig.vm.commands == []
    rig.whole.interrupt()
    assert (await rig.whole.run(PLUG, _POLICY)).outcome is Outcome.DONE


async def test_cancelling_leaves_no_task_behind(rig: _Rig) -> None:
    rig.vm.guest_works = False
    await rig.whole.observe()
    with _no_task_left():
        running = asyncio.ensure_future(rig.whole.run(PLUG, _POLICY))
        await _until(lambda: rig.vm.commands and rig.dialer.made[0].asked)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert rig.dialer.made[0].cancelled == 1


async def test_a_fault_in_an_adapter_comes_out_and_leaves_no_task_behind(rig: _Rig) -> None:
    rig.vmm.add_error = ZeroDivisionError("a bug")
    with _no_task_left(), pytest.raises(ZeroDivisionError):
        await rig.whole.run(PLUG, _POLICY)


async def test_closing_ends_session_and_monitor(rig: _Rig) -> None:
    await rig.whole.observe()
    await rig.whole.close()
    assert rig.dialer.made[0].ended
    assert rig.vmm.closed


# --- watching ---------------------------------------------------------------------------------------------------------


async def test_watch_shows_the_map_at_once_and_after_each_change(rig: _Rig) -> None:
    stop = asyncio.Event()
    plugged = []
    with _no_task_left():
        async for view in rig.whole.watch(stop, None):
            plugged.append(view.plugged_vcpus)
            if len(plugged) == 1:
                rig.vm.filled.add(1)
                rig.vmm.queue.put_nowait(ports.OstReported(1, Ost(1, 0)))
            elif plugged[-1] == 2:
                stop.set()
    assert plugged[0] == 1
    assert plugged[-1] == 2


async def test_watch_ends_at_its_time(rig: _Rig) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.1
    async with asyncio.timeout(5):
        assert [view async for view in rig.whole.watch(asyncio.Event(), until)]
    assert loop.time() >= until
