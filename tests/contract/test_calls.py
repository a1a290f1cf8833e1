# SPDX-License-Identifier: Apache-2.0
"""What the host's client asks, and what it gets from the guest's servicer, over the link."""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import cast

import pytest
from kit.both_ends import ENVIRONMENT, IDENTITY, Guest, agent_of, switched
from kit.fakes.sysfs import firmware_id
from kit.until import DEADLINE, until
from vcpu_guest.cpus.eject_gate import EjectGate
from vcpu_host.agent import client
from vcpu_host.agent.client import LinkAgent
from vcpu_host.core import codes
from vcpu_host.core.guest import CpuResult, CpuStatus, GuestView
from vcpu_host.core.reason import Origin
from vcpu_host.errors import AgentGoneError, VcpuctlError
from vcpu_host.ports import Arrived, SetOnlineAnswer
from vcpu_proto.v1 import agent_pb2


def results(answers: list[SetOnlineAnswer]) -> dict[str, CpuResult]:
    return {answer.firmware_id: answer for answer in answers if isinstance(answer, CpuResult)}


def test_the_agent_offers_these_calls_and_no_other() -> None:
    calls = agent_pb2.DESCRIPTOR.services_by_name["GuestAgent"].methods_by_name
    assert set(calls) == {"Hello", "ListCpus", "Watch", "SetOnline", "Control", "Workload", "WatchLoad"}


async def test_hello_brings_all_that_the_agent_says_of_itself_and_of_its_guest(agent: LinkAgent) -> None:
    info = agent.info
    assert (info.version, info.arch, info.kernel) == (IDENTITY.agent_version, IDENTITY.arch, IDENTITY.kernel)
    assert (info.boot_id, info.instance_id) == (IDENTITY.boot_id, IDENTITY.instance_id)
    assert (info.platform, info.event_source, info.protocol) == ("acpi", "udev", 1)
    assert "set-online" in info.capabilities
    assert info.environment._asdict() == {**asdict(ENVIRONMENT), "keeps_affinity": True}
    assert info.sees_programs


async def test_hello_may_be_said_again_and_changes_nothing_but_what_is_known_of_the_guest(
    agent: LinkAgent, guest: Guest
) -> None:
    first = agent.info
    waiting = asyncio.ensure_future(switched(agent, 4, online=True, wait=True))
    await until(lambda: guest.inventory._waiting)
    guest.environment = replace(ENVIRONMENT, smt_control="off")
    await agent.renew_info(-math.inf)
    assert agent.info is first, "what was said since is good enough"
    await agent.renew_info(math.inf)
    assert agent.info == first._replace(environment=first.environment._replace(smt_control="off"))
    assert not waiting.done()
    guest.kernel.add(4)
    assert results(await waiting)[firmware_id(4)].status is CpuStatus.DONE
    assert len((await agent.list_cpus()).cpus) == 2


async def test_the_list_is_the_kernels_own_whatever_order_the_slots_came_in(agent: LinkAgent, guest: Guest) -> None:
    for slot in (7, 2):
        guest.kernel.add(slot)
    view = await agent.list_cpus()
    assert [(cpu.number, cpu.firmware_id, cpu.online) for cpu in view.cpus] == [
        (0, firmware_id(0), True),
        (1, firmware_id(7), False),
        (2, firmware_id(2), False),
    ]
    assert (view.boot_id, view.instance_id) == (IDENTITY.boot_id, IDENTITY.instance_id)
    assert view.cpus[0].cannot_offline is not None
    assert (view.cpus[0].cannot_offline.code, view.cpus[0].cannot_offline.who) == ("cpu0", Origin.GUEST)
    assert (view.cpus[0].core_id, view.cpus[1].core_id) == (0, None)


async def test_switching_answers_each_cpu_with_what_was_read_back_and_ends_with_the_whole(
    agent: LinkAgent, guest: Guest
) -> None:
    guest.kernel.add(3)
    guest.kernel.add(5)
    answers = await switched(agent, 3, 5, 9, online=True)
    found = results(answers)
    assert [found[firmware_id(slot)].status for slot in (3, 5, 9)] == [
        CpuStatus.DONE,
        CpuStatus.DONE,
        CpuStatus.ABSENT,
    ]
    observed = found[firmware_id(3)].observed
    assert observed is not None
    assert (observed.number, observed.online) == (1, True)
    final = answers[-1]
    assert isinstance(final, GuestView)
    assert [cpu.online for cpu in final.cpus] == [True, True, True]

    again = results(await switched(agent, 3, online=True))
    assert again[firmware_id(3)].status is CpuStatus.ALREADY
    assert guest.kernel.writes == [(1, True), (2, True)]


async def test_a_refusal_arrives_with_its_errno_and_its_words(agent: LinkAgent, guest: Guest) -> None:
    number = guest.kernel.add(3)
    await switched(agent, 3, online=True)
    guest.kernel.refuse(number, errno.ENOSPC, online=False)
    found = results(await switched(agent, 3, online=False))[firmware_id(3)]
    assert found.status is CpuStatus.REFUSED
    assert found.reason is not None
    assert (found.reason.code, found.reason.errno, found.reason.who) == ("irq-vectors", "ENOSPC", Origin.GUEST)
    assert found.observed is not None
    assert found.observed.online


async def test_a_cpu_that_is_waited_for_is_announced_and_brought_online_when_it_comes(
    agent: LinkAgent, guest: Guest
) -> None:
    ids = [firmware_id(4)]
    async with aclosing(
        cast(
            AsyncGenerator[SetOnlineAnswer, None],
            agent.set_online(ids, online=True, wait=True, brief=False, timeout=DEADLINE),
        )
    ) as stream:
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: guest.inventory._waiting)
        guest.kernel.add(4)
        assert isinstance(await reading, Arrived)
        rest = [answer async for answer in stream]
    assert results(rest)[firmware_id(4)].status is CpuStatus.DONE
    assert guest.kernel.online == {0, 1}


async def test_watch_shows_every_change_until_the_caller_stops(agent: LinkAgent, guest: Guest) -> None:
    async with aclosing(cast(AsyncGenerator[GuestView, None], agent.watch())) as stream:
        assert len((await anext(stream)).cpus) == 1
        guest.kernel.add(6)
        async with asyncio.timeout(DEADLINE):
            view = await anext(stream)
            while len(view.cpus) < 2 or not view.cpus[1].firmware_id:
                view = await anext(stream)
    # The stream's end is not the session's.
    assert len((await agent.list_cpus()).cpus) == 2


@pytest.mark.parametrize("ids", [[], ["acpi:a", "acpi:a"], ["papr:4"], [""]])
async def test_a_request_that_is_wrong_in_itself_is_rejected_and_costs_no_session(
    agent: LinkAgent, guest: Guest, ids: list[str]
) -> None:
    with pytest.raises(VcpuctlError) as caught:
        async for _ in agent.set_online(ids, online=True, wait=False, brief=False, timeout=DEADLINE):
            pass
    assert caught.value.reason.code == "agent-rejected"
    assert not isinstance(caught.value, AgentGoneError)
    assert guest.kernel.writes == []
    assert len((await agent.list_cpus()).cpus) == 1


async def test_a_deadline_ends_the_waiting_on_both_sides_and_costs_no_session(agent: LinkAgent, guest: Guest) -> None:
    with pytest.raises(VcpuctlError) as caught:
        await switched(agent, 8, online=True, wait=True, timeout=0.3)
    assert caught.value.reason.code == "agent-slow"
    assert not isinstance(caught.value, AgentGoneError)
    await until(lambda: not guest.inventory._waiting)
    # What comes too late is left alone.
    guest.kernel.add(8)
    assert [cpu.online for cpu in (await agent.list_cpus()).cpus] == [True, False]
    assert guest.kernel.writes == []


async def test_a_caller_that_stops_lets_the_write_under_way_finish_and_starts_no_other(
    agent: LinkAgent, guest: Guest
) -> None:
    guest.kernel.add(1)
    guest.kernel.add(2)
    guest.kernel.released.clear()
    ids = [firmware_id(1), firmware_id(2)]
    stream = agent.set_online(ids, online=True, wait=False, brief=False, timeout=DEADLINE)
    reading = asyncio.ensure_future(anext(stream))
    await until(guest.kernel.holding.is_set)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    # A later answer shows that the agent has heard of it.
    await agent.list_cpus()
    guest.kernel.released.set()
    await until(lambda: 1 in guest.kernel.online)
    assert results(await switched(agent, 1, online=True))[firmware_id(1)].status is CpuStatus.ALREADY
    assert guest.kernel.writes == [(1, True)]


async def test_an_agent_that_ends_in_order_ends_calls_and_session_at_once_and_says_so(guest: Guest) -> None:
    async with agent_of(guest) as agent:
        waiting = asyncio.ensure_future(switched(agent, 9, online=True, wait=True))
        await until(lambda: guest.inventory._waiting)
        await guest.stop()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(AgentGoneError) as caught:
                await waiting
            assert "stopping" in caught.value.reason.text
            assert "stopping" in await agent.lost()
        assert agent.ended


async def test_an_agent_that_was_heard_of_is_asked_for_a_sign_of_life_only_when_that_is_a_while_ago(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_of(guest) as agent:
        assert guest._link is not None
        assert guest._link._wire is not None
        guest._link._wire.pause_reading()
        monkeypatch.setattr(client, "_FRESH", float("inf"))
        await agent.check()  # Hello was answered, and that is not long ago
        monkeypatch.setattr(client, "_FRESH", 0.0)
        monkeypatch.setattr(agent, "_call_timeout", 0.3)
        with pytest.raises(AgentGoneError) as caught:
            await agent.check()
        assert caught.value.reason.code == "agent-slow"
        guest._link._wire.resume_reading()
        monkeypatch.setattr(agent, "_call_timeout", DEADLINE)
        await agent.check()
        await guest.stop()
        await agent.lost()
        with pytest.raises(AgentGoneError) as caught:
            await agent.check()
        assert caught.value.reason.code == codes.AGENT_LOST


async def test_a_session_is_new_after_every_start_of_the_agent(guest: Guest) -> None:
    async with agent_of(guest) as agent:
        first = agent.session
        await guest.stop()
        await agent.lost()
    await guest.end_server()
    await guest.start()
    async with agent_of(guest) as agent:
        assert agent.session != first
        assert len((await agent.list_cpus()).cpus) == 1


async def test_a_brief_request_gets_results_alone_and_the_snapshot_only_if_something_is_not_as_wanted(
    agent: LinkAgent, guest: Guest
) -> None:
    guest.kernel.add(1)
    one, none = firmware_id(1), firmware_id(9)
    done = [a async for a in agent.set_online([one], online=True, wait=True, brief=True, timeout=DEADLINE)]
    assert [type(answer).__name__ for answer in done] == ["CpuResult"]
    both = [a async for a in agent.set_online([one, none], online=False, wait=False, brief=True, timeout=DEADLINE)]
    assert [type(answer).__name__ for answer in both] == ["CpuResult", "CpuResult", "GuestView"]


async def test_an_offline_that_is_for_an_ejection_opens_the_gate_of_an_agent_that_keeps_one_until_the_session_ends(
    guest: Guest,
) -> None:
    guest.servicer._gate = gate = EjectGate(guest.sysfs, guest.inventory, str(guest.folder), lambda: 1)
    await gate.shut()
    guest.kernel.add(1)
    one = firmware_id(1)
    async with agent_of(guest) as agent:
        assert agent.info.eject_gate == "open"  # as ENVIRONMENT has it
        for wanted, written in ((False, [False]), (True, [False, True])):
            asked = agent.set_online([one], online=False, wait=False, brief=True, timeout=DEADLINE, for_eject=wanted)
            assert [type(answer).__name__ async for answer in asked] == ["CpuResult"]
            assert guest.kernel.ejects == written
    await until(lambda: guest.kernel.ejects == [False, True, False])
    await gate.close()


async def test_a_port_that_qemu_left_throttled_is_freed_by_connecting_anew(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen on QEMU 10.0 after a host that ended while the VM was stopped: what the guest writes stays in the device
    # until the next host hangs up. virtio_serial_close then discards it.
    port, lost, write = guest.port, 0, guest.port._write_host

    def throttled() -> None:
        nonlocal lost
        lost += len(port._to_host)
        port._to_host.clear()

    def hung_up() -> None:
        drop()
        monkeypatch.setattr(port, "_write_host", write)

    drop = port.drop_host
    monkeypatch.setattr(port, "_write_host", throttled)
    monkeypatch.setattr(port, "drop_host", hung_up)
    async with agent_of(guest) as agent:
        assert len((await agent.list_cpus()).cpus) == 1
    assert lost


async def test_a_file_that_the_agent_may_not_write_is_its_own_lack_of_rights_and_no_refusal_of_the_guest(
    agent: LinkAgent, guest: Guest
) -> None:
    guest.kernel.add(3)
    guest.kernel.deny(errno.EROFS)
    found = results(await switched(agent, 3, online=True))
    reason = found[firmware_id(3)].reason
    assert reason is not None
    assert (reason.who, reason.code, reason.errno) == (Origin.AGENT, "agent-no-rights", "EROFS")


async def test_while_the_guests_kernel_is_at_work_the_list_is_answered_and_shows_what_has_come_and_what_is_in_hand(
    agent: LinkAgent, guest: Guest
) -> None:
    guest.kernel.released.clear()
    ids = [firmware_id(slot) for slot in (3, 5, 7)]

    async def ask() -> list[SetOnlineAnswer]:
        return [a async for a in agent.set_online(ids, online=True, wait=True, brief=True, timeout=DEADLINE)]

    asking = asyncio.create_task(ask())
    await until(lambda: bool(guest.inventory.has_listeners))
    guest.kernel.add(3)
    await until(guest.kernel.holding.is_set)
    guest.kernel.mute()
    guest.kernel.add(5)
    view = await agent.list_cpus()
    shown = {cpu.firmware_id: cpu for cpu in view.cpus}
    assert not shown[firmware_id(5)].online
    assert firmware_id(7) not in shown
    first, second, other = (shown[firmware_id(slot)].switching for slot in (3, 5, 0))
    assert first is not None
    assert first > 0.0
    assert (second, other) == (0.0, None)
    guest.kernel.released.set()
    guest.kernel.add(7)
    assert {a.status for a in results(await asking).values()} == {CpuStatus.DONE}
    assert {cpu.switching for cpu in (await agent.list_cpus()).cpus} == {None}
