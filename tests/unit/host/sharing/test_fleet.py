# SPDX-License-Identifier: Apache-2.0
"""Many VMs at once, each a script: whatever one does, the others end as they would without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from kit.until import until
from vcpu_host.core import codes
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.documents import Document
from vcpu_host.errors import OutcomeLostError, RefusedError, UsageError, VcpuctlError
from vcpu_host.sharing import fleet
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.fleet import Ended, Fleet, Member, UnusableVm
from vcpu_host.sharing.wire import Message

_LIST = Call(Kind.LIST)
_RUN = Call(Kind.RUN, Request(Operation.SCALE, 2), steps=True)
_BUSY = RefusedError(Reason(codes.VM_BUSY, Origin.VCPUCTL, "somebody has it"))
_LOST = OutcomeLostError(Reason(codes.SERVICE_LOST, Origin.VCPUCTL, "its process has ended"))


class _Vm:
    """Answers when it is let, or raises. ``at_work``: from when it is asked on it changes the VM."""

    def __init__(self, error: BaseException | None = None, *, works: bool = False, stubborn: bool = False) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.interrupted = False
        self.at_work = False
        self.say: Say = lambda message: None
        self._error = error
        self._works = works
        self._stubborn = stubborn

    async def ask(self, call: Call, say: Say) -> Document:
        self.say = say
        self.at_work = self._works
        self.asked.set()
        await self.go_on.wait()
        if self._error is not None:
            raise self._error
        return {"interrupted": self.interrupted}

    def interrupt(self) -> None:
        self.interrupted = True
        if not self._stubborn:
            self.go_on.set()


def _ready(error: BaseException | None = None) -> _Vm:
    vm = _Vm(error)
    vm.go_on.set()
    return vm


class _Many:
    """A fleet under way, and what it tells."""

    def __init__(self, members: Sequence[Member], parallel: int = fleet.PARALLEL) -> None:
        self.heard: list[tuple[str, Message]] = []
        self.told: list[str] = []
        self.fleet = Fleet(members, self._hear, self._tell, parallel)
        self.ends = asyncio.ensure_future(self.fleet.to_end())

    def _hear(self, name: str, message: Message) -> None:
        self.heard.append((name, message))

    def _tell(self, ended: Ended) -> None:
        self.told.append(ended.name)

    async def answers(self) -> list[tuple[str, object]]:
        """What came of each: its answer, or its error's code."""
        return [(end.name, end.answer if end.error is None else end.error.reason.code) for end in await self.ends]


def _members(*vms: _Vm, call: Call = _LIST, within: float | None = None) -> list[Member]:
    return [Member(f"vm{number}", vm, call, within) for number, vm in enumerate(vms)]


_ANSWER = {"interrupted": False}


async def test_each_vm_has_its_answer_or_its_error_in_their_order_and_is_told_when_it_ends() -> None:
    slow = _Vm()
    unusable = Member("broken", UnusableVm(UsageError(Reason(codes.BAD_VM_FILE, Origin.VCPUCTL, "no qmp"))), _LIST)
    many = _Many([*_members(slow, _ready(_BUSY), _ready()), unusable])
    await slow.asked.wait()
    await until(lambda: len(many.told) == 3)
    slow.go_on.set()
    assert await many.answers() == [
        ("vm0", _ANSWER),
        ("vm1", codes.VM_BUSY),
        ("vm2", _ANSWER),
        ("broken", codes.BAD_VM_FILE),
    ]
    assert many.told[-1] == "vm0"


async def test_no_more_are_asked_at_once_than_may_be() -> None:
    vms = [_Vm() for _ in range(5)]
    many = _Many(_members(*vms), parallel=2)
    for vm in vms:
        await vm.asked.wait()
        assert sum(other.asked.is_set() and not other.go_on.is_set() for other in vms) <= 2
        vm.go_on.set()
    assert await many.answers() == [(f"vm{number}", _ANSWER) for number in range(5)]


async def test_a_vm_that_makes_no_progress_gives_its_place_to_the_next_and_is_waited_for_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "STALLED", 0.01)
    stalled, next_one = _Vm(), _ready()
    many = _Many(_members(stalled, next_one), parallel=1)
    await next_one.asked.wait()
    stalled.go_on.set()
    assert await many.answers() == [("vm0", _ANSWER), ("vm1", _ANSWER)]


async def test_vms_that_stall_make_way_for_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "STALLED", 0.01)
    monkeypatch.setattr(fleet, "MOST_STALLED", 1)
    first, second, third = _Vm(), _Vm(), _ready()
    many = _Many(_members(first, second, third), parallel=1)
    await second.asked.wait()
    await until(lambda: not many.fleet._free.locked())  # the second one has stalled, too
    assert not third.asked.is_set()
    first.go_on.set()
    await third.asked.wait()
    second.go_on.set()
    assert len(await many.answers()) == 3


async def test_a_vm_that_makes_progress_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Callable[[], object]] = []

    class _Handle:
        def __init__(self, run: Callable[[], object]) -> None:
            self._run = run
            timers.append(run)

        def cancel(self) -> None:
            timers.remove(self._run)

    monkeypatch.setattr(fleet._Turn, "_timer", lambda turn: _Handle(turn.over))
    working, next_one = _Vm(), _ready()
    many = _Many(_members(working, next_one), parallel=1)
    await working.asked.wait()
    (first,) = timers
    working.say({"progress": [0, 2, "slot 1"]})
    (second,) = timers
    assert second is not first
    working.say({"progress": [0, 2, "slot 1"]})  # the same once more is none
    assert timers == [second]
    assert not next_one.asked.is_set()
    second()
    await next_one.asked.wait()
    working.say({"progress": [1, 2, "slot 2"]})  # its place is another's by now
    working.go_on.set()
    assert await many.answers() == [("vm0", _ANSWER), ("vm1", _ANSWER)]
    assert many.heard == [("vm0", {"progress": [done, 2, words]}) for done, words in _PROGRESS]


_PROGRESS = [(0, "slot 1"), (0, "slot 1"), (1, "slot 2")]


# --- time limits ------------------------------------------------------------------------------------------------------


async def test_a_question_that_is_not_answered_in_its_time_is_given_up_and_nothing_was_changed() -> None:
    silent = _Vm()
    ends = await _Many(_members(silent, within=0.01) + _members(_ready())).ends
    assert ends[0].error is not None
    assert (ends[0].error.reason.code, ends[0].begun) == (codes.VM_OVERDUE, False)
    assert "0.01 s: nothing was changed" in ends[0].error.reason.text
    assert not silent.interrupted
    assert ends[1].answer == _ANSWER


async def test_an_operation_beyond_its_time_is_asked_for_what_is_known() -> None:
    vm = _Vm(works=True)
    assert await _Many(_members(vm, call=_RUN, within=0.01)).answers() == [("vm0", {"interrupted": True})]


async def test_an_operation_that_says_nothing_even_then_may_have_changed_the_vm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "_LAST_WORDS", 0.01)
    (end,) = await _Many(_members(_Vm(works=True, stubborn=True), call=_RUN, within=0.01)).ends
    assert end.error is not None
    assert (end.error.reason.code, end.begun) == (codes.VM_OVERDUE, True)
    assert "not known how far" in end.error.reason.text


async def test_a_vm_of_which_nothing_is_heard_is_given_up_though_it_has_no_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "SILENT", 0.01)
    (end,) = await _Many(_members(_Vm(), call=_RUN)).ends
    assert end.error is not None
    assert (end.error.reason.code, end.begun) == (codes.VM_OVERDUE, False)
    assert "nothing was heard" in end.error.reason.text


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_a_lost_outcome_is_not_known_and_other_errors_changed_nothing() -> None:
    ends = await _Many(_members(_ready(_LOST), _ready(_BUSY), call=_RUN)).ends
    assert [end.begun for end in ends] == [True, False]


async def test_a_mistake_in_vcpuctl_is_one_vms_error_and_goes_into_the_log() -> None:
    many = _Many(_members(_ready(ZeroDivisionError("x\x1b[31m")), _ready(), call=_RUN))
    broken, other = await many.ends
    assert broken.error is not None
    assert (broken.error.reason.code, broken.begun) == (codes.UNFORESEEN, True)
    assert "ZeroDivisionError" in broken.error.reason.text
    assert "\x1b" not in broken.error.reason.text
    assert other.answer == _ANSWER
    ((name, message),) = many.heard
    assert name == "vm0"
    assert "Traceback" in message["log"]["traceback"]


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


async def test_an_interruption_ends_what_is_under_way_with_what_is_known_and_begins_nothing_more() -> None:
    ended, working, asked, waiting = _ready(), _Vm(works=True), _Vm(), _Vm()
    many = _Many(_members(ended, working, asked, waiting, call=_RUN), parallel=2)
    await working.asked.wait()
    await asked.asked.wait()
    many.fleet.interrupt()
    assert await many.answers() == [
        ("vm0", _ANSWER),
        ("vm1", {"interrupted": True}),
        ("vm2", codes.INTERRUPTED),
        ("vm3", codes.INTERRUPTED),
    ]
    assert not waiting.asked.is_set()


async def test_a_second_interruption_does_not_wait_for_what_is_known() -> None:
    stubborn = _Vm(works=True, stubborn=True)
    many = _Many(_members(stubborn, call=_RUN))
    await stubborn.asked.wait()
    many.fleet.interrupt()
    await until(lambda: stubborn.interrupted)
    many.fleet.interrupt()
    many.fleet.interrupt()
    (end,) = await many.ends
    assert isinstance(end.error, VcpuctlError)
    assert (end.error.reason.code, end.begun) == (codes.INTERRUPTED, True)


async def test_who_gives_the_whole_up_leaves_nothing_running() -> None:
    vms = [_Vm(), _Vm()]
    many = _Many(_members(*vms), parallel=1)
    await vms[0].asked.wait()
    many.ends.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many.ends
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_of_a_service_no_more_is_asked_at_once_than_it_has_places_for() -> None:
    vms = [_Vm() for _ in range(7)]
    members = [Member(f"web{number}", vm, _RUN) for number, vm in enumerate(vms)]
    ends = asyncio.ensure_future(Fleet(members, lambda *_: None, lambda _: None, 100, most=3).to_end())
    for _ in range(len(vms)):
        await until(lambda: _asked(vms) == min(3, _left(vms)))
        next(vm for vm in vms if vm.asked.is_set() and not vm.go_on.is_set()).go_on.set()
    assert [ended.answer for ended in await ends] == [{"interrupted": False}] * len(vms)


def _asked(vms: Sequence[_Vm]) -> int:
    asked = sum(vm.asked.is_set() and not vm.go_on.is_set() for vm in vms)
    assert asked <= 3
    return asked


def _left(vms: Sequence[_Vm]) -> int:
    return sum(not vm.go_on.is_set() for vm in vms)
