# SPDX-License-Identifier: Apache-2.0
"""An operation waits for an agent that is about to answer; whoever only looks does not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from kit.fakes.adapters import BRISK, PLUG, Rig, no_task_left, until
from kit.until import DEADLINE
from vcpu_host.core import codes
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.vm_events import PortChanged
from vcpu_host.errors import AgentGoneError, QemuGoneError, VcpuctlError

PATIENT = BRISK._replace(absent_grace=10.0)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr("vcpu_host.vm.coordinator.RETRY_INTERVAL", 0.01)
    return Rig()


def away(code: str) -> VcpuctlError:
    return AgentGoneError(Reason(code, Origin.AGENT, "nobody answers"))


class Heard:
    """What was said of the waiting; at the given time the agent is there."""

    def __init__(self, rig: Rig, after: int, then: Callable[[], None] | None = None) -> None:
        self.codes: list[str] = []
        self._rig, self._after, self._then = rig, after, then

    def __call__(self, trouble: Reason, left: float) -> None:
        assert left > 0
        self.codes.append(trouble.code)
        if len(self.codes) == self._after:
            if self._then is not None:
                self._then()
            else:
                self._rig.dialer.trouble = None


@pytest.mark.parametrize("code", ["guest-booting", "agent-absent", "agent-lost", "agent-slow", codes.NO_ANSWER])
@pytest.mark.parametrize("operation", [Operation.PLUG, Operation.SCALE])
async def test_an_agent_that_answers_within_the_operations_time_is_waited_for(
    rig: Rig, code: str, operation: Operation
) -> None:
    rig.dialer.trouble = away(code)
    heard = Heard(rig, 3)
    with no_task_left():
        result = await rig.whole.run(Request(operation, 2), PATIENT, None, heard)
    assert result.outcome is Outcome.DONE, result
    assert heard.codes == [code] * 3


async def test_an_agent_whose_port_opens_is_asked_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcpu_host.vm.coordinator.RETRY_INTERVAL", 3600.0)
    rig.vmm.port_open = False

    def opens() -> None:
        rig.vmm.port_open = True
        rig.vmm.hub.put(PortChanged(open=True))

    async with asyncio.timeout(DEADLINE):
        result = await rig.whole.run(PLUG, PATIENT, None, Heard(rig, 1, opens))
    assert result.outcome is Outcome.DONE


async def test_a_guest_without_an_agent_does_not_cost_all_of_the_time(rig: Rig) -> None:
    rig.dialer.trouble = away("agent-absent")
    async with asyncio.timeout(DEADLINE):
        with no_task_left(), pytest.raises(AgentGoneError) as error:
            await rig.whole.run(PLUG, BRISK._replace(timeout=3600.0, absent_grace=0.1))
    waited = re.search(r"waited (\d+) s", error.value.reason.text)
    assert waited is not None
    assert int(waited[1]) < 60
    assert rig.vm.commands == []


async def test_a_guest_that_stays_silent_costs_the_operations_time_and_no_more(rig: Rig) -> None:
    rig.dialer.trouble = away(codes.NO_ANSWER)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(AgentGoneError):
        await rig.whole.run(PLUG, BRISK._replace(timeout=0.3))
    assert loop.time() - began >= 0.3
    assert rig.vm.commands == []


async def test_an_attempt_to_reach_the_agent_does_not_outlast_the_operation(rig: Rig) -> None:
    given: list[float] = []
    dial = rig.dialer.dial

    async def noted(view: object, timeout: float) -> object:
        given.append(timeout)
        return await dial(view, timeout)  # type: ignore[arg-type]

    rig.dialer.dial = noted  # type: ignore[assignment, method-assign]
    rig.whole._sessions._dial_timeout = 60.0
    await rig.whole.run(PLUG, BRISK._replace(timeout=7.0))
    await rig.whole._sessions.drop()
    await rig.whole.look()
    assert 0 < given[0] <= 7.0
    assert 7.0 < given[1] <= 60.0, "whoever looks has no such bound"


@pytest.mark.parametrize("code", ["no-channel", "no-socket", "link-version", "agent-too-old"])
async def test_what_does_not_pass_by_itself_is_told_at_once(rig: Rig, code: str) -> None:
    rig.dialer.trouble = away(code)
    with pytest.raises(AgentGoneError) as error:
        await rig.whole.run(PLUG, PATIENT, None, lambda trouble, left: pytest.fail(f"{trouble} {left}"))
    assert (error.value.reason.code, error.value.reason.text) == (code, "nobody answers")
    assert rig.dialer.dialled == 1


async def test_what_no_agent_could_change_is_refused_at_once(rig: Rig) -> None:
    rig.dialer.trouble = away("agent-absent")
    result = await rig.whole.run(
        Request(Operation.SCALE, 9), PATIENT, None, lambda trouble, left: pytest.fail(f"{trouble} {left}")
    )
    assert (result.outcome, result.reason.code if result.reason else "") == (Outcome.REFUSED, "over-max")


async def test_who_only_looks_or_plans_does_not_wait(rig: Rig) -> None:
    rig.dialer.trouble = away(codes.NO_ANSWER)
    assert (await rig.whole.look()).guest is None
    assert rig.dialer.dialled == 1
    assert (await rig.whole.plan(PLUG)).refusals
    assert rig.dialer.dialled == 2


async def test_what_changes_while_it_is_waited_for_is_planned_for(rig: Rig) -> None:
    rig.dialer.trouble = away("guest-booting")

    def occupied() -> None:
        rig.vm.filled |= {1}
        rig.vm.present |= {1}
        rig.vm.online |= {1}
        rig.dialer.trouble = None

    result = await rig.whole.run(Request(Operation.SCALE, 2), PATIENT, None, Heard(rig, 2, occupied))
    assert result.outcome is Outcome.DONE
    assert rig.vm.commands == []


async def test_an_interrupt_ends_the_waiting_with_what_was_waited_for(rig: Rig) -> None:
    rig.dialer.trouble = away(codes.NO_ANSWER)
    with no_task_left(), pytest.raises(AgentGoneError) as error:
        await rig.whole.run(PLUG, PATIENT, None, Heard(rig, 2, rig.whole.interrupt))
    assert error.value.reason.code == codes.NO_ANSWER
    assert rig.vm.commands == []


async def test_an_interrupt_ends_an_attempt_that_is_under_way(rig: Rig) -> None:
    rig.whole._sessions._dial_timeout = 3600.0
    rig.dialer.trouble = away(codes.NO_ANSWER)
    heard = Heard(rig, 1, lambda: setattr(rig.dialer, "silence", lambda: None))
    with no_task_left():
        running = asyncio.create_task(rig.whole.run(PLUG, PATIENT._replace(timeout=3600.0), None, heard))
        await until(lambda: rig.dialer.dialled == 2)
        rig.whole.interrupt()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(AgentGoneError):
                await running


async def test_a_qemu_that_ends_while_the_agent_is_waited_for_is_told(rig: Rig) -> None:
    rig.dialer.trouble = away("guest-booting")
    with no_task_left(), pytest.raises(QemuGoneError):
        await rig.whole.run(PLUG, PATIENT, None, Heard(rig, 2, rig.vmm.die))
