# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import pytest
from kit.clock import Clock
from kit.sim.views import vm
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.sharing import answers
from vcpu_host.sharing.answers import Steps
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.wire import Message


def _machine() -> Machine:
    view = vm(3, {0})
    return Machine(
        plan(view, Request(Operation.PLUG, 2)),
        view.platform,
        Limits(),
        session="s",
        now=0.0,
        identities=view.identities,
    )


@pytest.mark.parametrize(("verbosity", "events"), [(0, []), (1, ["DoPlug"]), (2, ["DoPlug", "state"])])
async def test_the_log_says_as_much_as_was_asked_for(verbosity: int, events: list[str]) -> None:
    said: list[Message] = []
    steps = Steps(Call(Kind.RUN, verbosity=verbosity), said.append)
    steps(ev.DoPlug(1), _machine())
    steps(ev.Tick(), _machine())
    assert [message["log"]["event"] for message in said] == events


async def test_without_a_log_the_machines_state_is_not_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, said = _machine(), list[Message]()
    monkeypatch.setattr(Machine, "dump", lambda self: pytest.fail("nobody reads it"))
    for verbosity in (0, 1):
        Steps(Call(Kind.RUN, verbosity=verbosity), said.append)(ev.DoPlug(1), machine)


async def test_the_guests_words_come_escaped_into_the_log() -> None:
    said: list[Message] = []
    steps = Steps(Call(Kind.RUN, verbosity=1), said.append)
    steps(ev.DoSetOnline(1, ("acpi:\x1b[2J",), online=True, wait=True, brief=True), _machine())
    assert "\x1b" not in str(said[0]["log"]["firmware_ids"])


async def test_how_far_it_is_is_said_after_a_moment_and_only_to_who_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Message] = []
    Steps(Call(Kind.RUN, steps=True), said.append)(ev.Tick(), _machine())
    assert said == []
    monkeypatch.setattr(answers, "_MOMENT", -1.0)
    Steps(Call(Kind.RUN, steps=True), said.append)(ev.Tick(), _machine())
    assert said == [{"progress": [0, 2, "slot 1: not begun"]}]
    Steps(Call(Kind.RUN), said.append)(ev.Tick(), _machine())
    assert len(said) == 1


async def test_how_far_it_is_is_put_into_words_ten_times_a_second_at_most() -> None:
    said: list[Message] = []
    clock, machine = Clock(), _machine()
    steps = Steps(Call(Kind.RUN, steps=True), said.append)
    clock.goes_on(3600.0)
    began = asyncio.get_running_loop().time()
    for _ in range(1000):
        steps(ev.Tick(), machine)
        clock.goes_on(0.001)
    passed = asyncio.get_running_loop().time() - began
    assert 9 <= len(said) <= passed / 0.1 + 1  # the machine may stand still meanwhile
