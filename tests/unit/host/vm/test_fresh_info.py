# SPDX-License-Identifier: Apache-2.0
"""What a plan, a list or an operation rests on is asked for anew, also of what the agent says of its guest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from kit.fakes.adapters import BRISK, PLUG, Agent, Rig, no_task_left
from kit.sim.views import INFO
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Outcome
from vcpu_host.core.view import VmView
from vcpu_host.vm.coordinator import Coordinator

SMT_OFF = INFO._replace(environment=INFO.environment._replace(smt_control="off"))
SMT_ON = INFO._replace(environment=INFO.environment._replace(smt_control="on"))

LOOKS: dict[str, Callable[[Coordinator], Awaitable[object]]] = {
    "look": lambda vm: vm.look(),
    "checkup": lambda vm: vm.checkup(),
    "plan": lambda vm: vm.plan(PLUG),
    "run": lambda vm: vm.run(PLUG, BRISK),
    "run with the guest's list": lambda vm: vm.run(Request(Operation.SCALE, 2), BRISK),
}


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("what", LOOKS)
async def test_in_a_session_that_is_older_than_the_call_the_agent_is_asked_anew_for_what_its_guest_is_like(
    rig: Rig, what: str
) -> None:
    await rig.whole.look()
    (agent,) = rig.dialer.made
    assert (agent.info.environment.smt_control, agent.hellos) == (INFO.environment.smt_control, 0)
    agent.becomes = SMT_OFF
    with no_task_left():
        await LOOKS[what](rig.whole)
    assert (agent.info, agent.hellos) == (SMT_OFF, 1)
    assert rig.dialer.made == [agent]


@pytest.mark.parametrize("what", LOOKS)
async def test_a_session_that_was_made_for_the_call_has_just_said_it(rig: Rig, what: str) -> None:
    await LOOKS[what](rig.whole)
    (agent,) = rig.dialer.made
    assert agent.hellos == 0


async def test_who_looks_beside_an_operation_is_told_what_the_guest_is_like_now(rig: Rig) -> None:
    seen: list[VmView] = []
    await rig.whole.look()
    (agent,) = rig.dialer.made
    rig.whole._looker.operating = True
    agent.becomes = SMT_ON
    seen.append(await rig.whole.look())
    assert seen[0].agent == SMT_ON


async def test_a_watch_does_not_ask_for_it_again_and_again(rig: Rig) -> None:
    looks = 0
    async for _ in rig.whole.watch(interval=0.001):
        looks += 1
        if looks == 5:
            break
    assert [agent.hellos for agent in rig.dialer.made] == [0]


async def test_an_agent_that_does_not_answer_it_is_trouble_as_when_it_does_not_answer_at_all(rig: Rig) -> None:
    await rig.whole.look()
    (agent,) = rig.dialer.made

    async def lost(since: float) -> None:
        agent.die()
        await Agent.renew_info(agent, since)

    agent.renew_info = lost  # type: ignore[method-assign]
    with no_task_left():
        seen = await rig.whole.look()
    assert len(rig.dialer.made) == 2, "it was dialled anew"
    assert seen.guest is not None


async def test_a_refusal_for_what_the_guest_was_like_ends_when_the_advice_was_followed(rig: Rig) -> None:
    def second_threads(agent: Agent) -> None:
        agent.info = SMT_OFF

    rig.dialer.prepare = second_threads
    slots = (await rig.vmm.look()).slots
    rig.vmm.facts["slots"] = tuple(
        replace(slot, props={**slot.props, "thread-id": slot.index % 2}) if slot.index == 1 else slot for slot in slots
    )
    request = Request(Operation.PLUG, None, ("1",))
    refused = await rig.whole.run(request, BRISK)
    assert refused.reason is not None
    assert (refused.outcome, refused.reason.code) == (Outcome.REFUSED, "smt-off")
    (agent,) = rig.dialer.made
    agent.becomes = SMT_ON
    assert not (await rig.whole.plan(request)).refusals
