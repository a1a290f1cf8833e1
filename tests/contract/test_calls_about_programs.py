# SPDX-License-Identifier: Apache-2.0
"""What the host asks about the guest's programs, and what it gets from the guest's servicer, over the link."""

from __future__ import annotations

import pytest
from kit.both_ends import Guest, switched
from kit.fakes.programs import network
from kit.fakes.sysfs import firmware_id
from kit.until import DEADLINE
from vcpu_guest.cpus.programs import looking_threads
from vcpu_guest.process.urgency import Urgency
from vcpu_host.agent.client import LinkAgent
from vcpu_host.core import codes
from vcpu_host.core.workload.model import Fate
from vcpu_host.errors import VcpuctlError
from vcpu_proto.v1 import agent_pb2


async def test_a_look_at_programs_brings_all_that_was_found(agent: LinkAgent, guest: Guest) -> None:
    number = guest.kernel.add(3)
    guest.kernel.write(f"{guest.kernel.cpu_dir}/cpu{number}/online", b"1")
    made = guest.fake_programs
    awake = made.task(10, "1", comm=b"a\x1b[2J", cgroup="/system.slice/db.service", awake=True)
    made.task(11, "1", comm=b"quiet")
    made.unit("db.service", "[Service]\nCPUAffinity=1\n")
    made.cgroup("/rt", cpus="1", partition="isolated")
    network(guest.folder, "eth0", 1, 8)
    seen = await agent.workload([firmware_id(3)], use=True, broken=True, forgotten=True)
    (pinned,) = seen.pinned
    assert (seen.online, pinned.cpus, pinned.threads.count) == (0b11, 0b10, 2)
    names = {who.pid: str(who) for who in pinned.threads.some}
    assert names == {10: "a\\x1b[2J[10] of db.service", 11: "quiet[11]"}
    assert [(unit.name, unit.cpus) for unit in seen.units] == [("db.service", 0b10)]
    assert [(each.cgroup, each.partition, each.effective) for each in seen.cpusets] == [("/rt", "isolated", 0b10)]
    assert [(each.name, each.queue_pairs, each.most_queue_pairs) for each in seen.network] == [("eth0", 1, 8)]
    assert seen.partition_isolated == 0b10
    await switched(agent, 3, online=False)
    fates = {each.threads.some[0].pid: each.fate for each in (await agent.workload([], broken=True)).broken}
    assert fates == {10: Fate.WIDENED, 11: Fate.ASLEEP}
    assert awake.mask == "0-15"
    await switched(agent, 3, online=True)
    assert awake.mask == "1"
    assert [each.fate for each in (await agent.workload([], broken=True)).broken] == [Fate.PUT_BACK]


async def test_an_agent_that_takes_no_messages_about_programs_is_asked_by_a_call(
    agent: LinkAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    unary = agent._stub.workload

    def counted(request: agent_pb2.WorkloadRequest, timeout: float) -> object:
        calls.append(request.request_id)
        return unary(request, timeout=timeout)

    monkeypatch.setattr(agent._stub, "workload", counted)
    newest = await agent.workload([], use=True)
    assert calls == []
    agent._info = agent.info._replace(capabilities=("control", "workload"))
    older = await agent.workload([], use=True)
    assert (len(calls), older) == (1, newest)


async def test_a_look_at_programs_goes_before_nobody_while_the_agent_hurries(agent: LinkAgent, guest: Guest) -> None:
    hurried: set[int] = set()

    def set_policy(thread: int, policy: int, priority: int) -> None:
        hurried.add(thread)

    guest.servicer._hurry = Urgency(set_policy, spared=looking_threads).hurry
    await agent.workload([], use=True)
    number = guest.kernel.add(3)
    guest.kernel.write(f"{guest.kernel.cpu_dir}/cpu{number}/online", b"1")
    answers = agent.set_online(
        [firmware_id(3)], online=False, wait=False, brief=False, timeout=DEADLINE, for_eject=True, watch=True
    )
    assert [answer async for answer in answers]
    assert looking_threads()
    assert hurried
    assert not looking_threads() & hurried


@pytest.mark.parametrize("as_message", [True, False], ids=["message", "call"])
async def test_a_look_at_programs_for_what_is_no_identity_is_rejected(agent: LinkAgent, as_message: bool) -> None:
    if not as_message:
        agent._info = agent.info._replace(capabilities=("control", "workload"))
    for wrong in (["acpi:x", "acpi:x"], [""], ["papr:1"]):
        with pytest.raises(VcpuctlError, match=r"named twice|is empty|not an identity") as raised:
            await agent.workload(wrong)
        assert raised.value.reason.code == codes.AGENT_REJECTED
    assert (await agent.list_cpus()).cpus
