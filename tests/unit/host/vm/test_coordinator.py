# SPDX-License-Identifier: Apache-2.0
"""The coordinator between a monitor and an agent that live in memory."""

from __future__ import annotations

import asyncio

import pytest
from kit.clock import Clock
from kit.fakes.adapters import BRISK, PLUG, Rig, no_task_left, until
from kit.sim.views import host, identities
from kit.until import DEADLINE
from vcpu_host.core import codes
from vcpu_host.core import vm_events as ev
from vcpu_host.core.guest import GuestCpu, GuestView
from vcpu_host.core.model import Ost, SlotState
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import AgentGoneError, QemuError, QemuGoneError, RefusedError
from vcpu_host.vm.coordinator import Coordinator
from vcpu_proto.link import NoAnswerError

# --- end to end -------------------------------------------------------------------------------------------------------


async def test_plug_ends_with_the_slot_filled_and_its_cpu_online(rig: Rig) -> None:
    with no_task_left():
        result = await rig.whole.run(Request(Operation.PLUG, 2), BRISK)
    assert result.outcome is Outcome.DONE, result
    assert rig.vm.commands == ["add 1 vcpu-1", "add 2 vcpu-2"]
    assert rig.vm.online == {0, 1, 2}
    assert [slot.guest_cpus for slot in result.slots] == [(1,), (2,)]


async def test_unplug_takes_the_cpu_offline_before_it_asks_qemu(rig: Rig) -> None:
    await rig.whole.run(PLUG, BRISK)
    result = await rig.whole.run(Request(Operation.UNPLUG, 1), BRISK)
    assert result.outcome is Outcome.DONE
    assert rig.vm.commands == ["add 1 vcpu-1", "del vcpu-1"]
    assert rig.vm.filled == {0}


async def test_the_agent_is_told_which_cpus_are_to_be_ejected(rig: Rig) -> None:
    await rig.whole.run(Request(Operation.PLUG, 2), BRISK)
    (agent,) = rig.dialer.made
    await rig.whole.run(Request(Operation.OFFLINE, selectors=("1",)), BRISK)
    assert not agent.for_eject
    await rig.whole.run(Request(Operation.UNPLUG, selectors=("2",)), BRISK)
    assert agent.for_eject == {rig.vm.name(2)}


async def test_a_goal_that_is_reached_sends_nothing(rig: Rig) -> None:
    result = await rig.whole.run(Request(Operation.SCALE, 1), BRISK)
    assert result.outcome is Outcome.DONE
    assert rig.vm.commands == []


async def test_a_plan_sends_nothing(rig: Rig) -> None:
    assert len((await rig.whole.plan(Request(Operation.PLUG, 3))).steps) == 3
    assert rig.vm.commands == []


async def test_what_the_plan_refuses_is_a_result_and_sends_nothing(rig: Rig) -> None:
    result = await rig.whole.run(Request(Operation.SCALE, 9), BRISK)
    assert (result.outcome, result.reason.code if result.reason else "") == (Outcome.REFUSED, "over-max")
    assert rig.vm.commands == []


async def test_progress_hears_of_every_action_and_event(rig: Rig) -> None:
    heard: list[str] = []
    await rig.whole.run(PLUG, BRISK, lambda what, machine: heard.append(type(what).__name__))
    assert {"DoPlug", "DoSetOnline", "PlugReturned", "CpuSettled", "DoLookHost", "HostLooked"} <= set(heard)


async def test_empty_slots_are_plugged_without_asking_for_the_guests_list_beside_an_agent_that_lives(rig: Rig) -> None:
    await rig.whole.look()  # each of the guest's CPUs is a slot's
    (agent,) = rig.dialer.made
    assert (await rig.whole.run(Request(Operation.PLUG, 2), BRISK)).outcome is Outcome.DONE
    assert (agent.checked, agent.listed) == (1, 2)  # one list was asked for, the other is that of the request's end
    agent.silent = True
    rig.dialer.trouble = AgentGoneError(Reason("agent-slow", Origin.AGENT, "no answer"))
    with pytest.raises(AgentGoneError) as error:
        await Clock().ends(rig.whole.run(Request(Operation.PLUG, None, ("3",)), BRISK), lambda: rig.dialer.dialled == 2)
    assert error.value.reason.code == "agent-slow"
    assert rig.vm.commands == ["add 1 vcpu-1", "add 2 vcpu-2"]


async def test_a_plug_asks_for_the_guests_list_in_a_session_that_has_not_shown_it(rig: Rig) -> None:
    rig.dialer.prepare = lambda agent: setattr(agent, "list_cpus", foreign)
    for request in (Request(Operation.PLUG, 2), Request(Operation.PLUG, None, ("3",))):
        result = await rig.whole.run(request, BRISK)
        assert result.outcome is Outcome.REFUSED
        assert result.reason is not None
        assert result.reason.code == "unexplained-cpus"
    assert rig.vm.commands == []


async def foreign() -> GuestView:
    return GuestView(1, "b", "i", (GuestCpu(0, "acpi:\\_SB_.CP00", True),))


async def test_a_cpu_that_has_no_firmware_name_yet_is_looked_at_again(rig: Rig) -> None:
    names = iter(["", "", identities(host(4), 0)[0]])
    rig.dialer.prepare = lambda agent: setattr(agent, "list_cpus", lambda: named(next(names)))
    view = await rig.whole.look()
    assert (view.unexplained, view.slots[0].state) == ((), SlotState.ONLINE)


async def named(name: str) -> GuestView:
    return GuestView(1, "b", "i", (GuestCpu(0, name, True),))


# --- no agent ---------------------------------------------------------------------------------------------------------


async def test_a_session_that_breaks_off_while_looking_is_made_anew_once(rig: Rig) -> None:
    rig.dialer.prepare = lambda agent: None if rig.dialer.made else agent.die()
    view = await rig.whole.look()
    assert (view.guest is not None, view.agent_trouble, len(rig.dialer.made)) == (True, None, 2)
    await rig.whole.close()
    rig.dialer.made.clear()
    rig.dialer.prepare = lambda agent: agent.die()
    view = await rig.whole.look()
    assert (view.guest, len(rig.dialer.made)) == (None, 2)
    assert view.agent_trouble is not None
    assert view.agent_trouble.code == codes.AGENT_LOST


async def test_a_port_that_closes_while_it_is_dialled_is_an_absent_agent_at_once(rig: Rig) -> None:
    def close() -> None:
        rig.vmm.port_open = False
        rig.vmm.hub.put(ev.PortChanged(open=False))

    rig.whole = Coordinator(rig.vmm, rig.dialer, dial_timeout=3600.0)
    rig.dialer.silence = close
    async with asyncio.timeout(DEADLINE):
        view = await rig.whole.look()
    assert view.agent_trouble is not None
    assert (view.agent_trouble.code, rig.dialer.dialled) == ("agent-absent", 2)


async def test_a_port_whose_closing_nobody_reported_is_an_absent_agent_after_the_dial(rig: Rig) -> None:
    rig.whole = Coordinator(rig.vmm, rig.dialer, dial_timeout=0.01)
    rig.dialer.silence = lambda: setattr(rig.vmm, "port_open", False)
    view = await rig.whole.look()
    assert view.agent_trouble is not None
    assert (view.agent_trouble.code, rig.dialer.dialled) == ("agent-absent", 2)


async def test_a_port_that_stays_open_in_silence_is_no_answer(rig: Rig) -> None:
    rig.whole = Coordinator(rig.vmm, rig.dialer, dial_timeout=0.01)
    rig.dialer.silence = lambda: None
    view = await rig.whole.look()
    assert view.agent_trouble is not None
    assert (view.agent_trouble.code, rig.dialer.dialled) == (codes.NO_ANSWER, 1)
    assert NoAnswerError.code == codes.NO_ANSWER


async def test_without_an_agent_an_operation_raises_and_changes_nothing(rig: Rig) -> None:
    rig.dialer.trouble = AgentGoneError(Reason("agent-absent", Origin.AGENT, "nobody has the port open"))
    with pytest.raises(AgentGoneError) as error:
        await rig.whole.run(PLUG, BRISK)
    assert error.value.reason.code == "agent-absent"
    assert rig.vm.commands == []


async def test_without_an_agent_the_map_is_shown_with_the_reason(rig: Rig) -> None:
    rig.dialer.trouble = AgentGoneError(Reason("agent-absent", Origin.AGENT, "nobody"))
    view = await rig.whole.look()
    assert view.guest is None
    assert view.agent_trouble is rig.dialer.trouble.reason


async def test_a_session_that_ended_between_two_looks_is_made_anew(rig: Rig) -> None:
    await rig.whole.look()
    rig.dialer.made[0].die()
    assert (await rig.whole.look()).guest is not None
    assert len(rig.dialer.made) == 2


async def test_a_paused_vm_is_shown_at_once_and_its_agent_not_asked(rig: Rig) -> None:
    await rig.whole.look()
    rig.vmm.status = "paused"
    view = await rig.whole.look()
    assert view.guest is None
    assert view.agent_trouble is not None
    assert view.agent_trouble.code == "vm-not-running"


# --- in the middle ----------------------------------------------------------------------------------------------------


async def test_an_agent_lost_in_the_middle_is_dialled_again_and_the_operation_goes_on(rig: Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await until(lambda: rig.vm.commands and rig.dialer.made[0].asked)
    rig.dialer.made[0].die()
    await until(lambda: len(rig.dialer.made) == 2)
    rig.vm.present.add(1)
    rig.vm.note()
    assert (await running).outcome is Outcome.DONE
    assert rig.vm.online == {0, 1}


async def test_an_agent_that_stays_away_ends_in_unknown_that_says_so(rig: Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await until(lambda: rig.vm.commands)
    rig.dialer.trouble = AgentGoneError(Reason("agent-absent", Origin.AGENT, "nobody has the port open"))
    rig.dialer.made[0].die()
    result = await Clock().ends(running, lambda: rig.dialer.dialled > 1)
    assert result.outcome is Outcome.UNKNOWN
    assert result.slots[0].reason is not None
    assert result.slots[0].reason.code == "agent-lost"
    assert "nobody has the port open" in result.slots[0].reason.text


async def test_a_port_taken_by_another_program_is_trouble_with_the_agent_and_not_with_qemu(rig: Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await until(lambda: rig.vm.commands)
    rig.dialer.trouble = RefusedError(Reason("port-busy", Origin.VCPUCTL, "another program holds the port"))
    rig.dialer.made[0].die()
    result = await Clock().ends(running, lambda: rig.dialer.dialled > 1)
    assert [slot.reason and slot.reason.code for slot in result.slots] == ["agent-lost"]


async def test_while_another_program_has_the_port_one_can_look_and_nothing_is_begun(rig: Rig) -> None:
    rig.dialer.trouble = busy = RefusedError(Reason("port-busy", Origin.VCPUCTL, "another program holds the port"))
    view = await rig.whole.look()
    assert (view.guest, view.agent_trouble, view.slots[0].slot.filled) == (None, busy.reason, True)
    assert [refusal.reason for refusal in (await rig.whole.plan(PLUG)).refusals] == [busy.reason]
    with pytest.raises(RefusedError, match="another program"):
        await rig.whole.run(PLUG, BRISK)
    assert rig.vm.commands == []
    rig.dialer.trouble = None
    assert (await rig.whole.look()).agent_trouble is None
    for other in ("not-our-port", "not-permitted"):
        await rig.whole._sessions.drop()
        rig.dialer.trouble = RefusedError(Reason(other, Origin.VCPUCTL, "no"))
        with pytest.raises(RefusedError):
            await rig.whole.look()


async def test_an_agent_that_breaks_the_contract_is_asked_nothing_more_in_that_session(rig: Rig) -> None:
    rig.dialer.prepare = lambda agent: setattr(agent, "breaks_contract", not rig.dialer.made)
    result = await rig.whole.run(PLUG, BRISK)
    assert result.outcome is Outcome.DONE
    assert len(rig.dialer.made[0].asked) == 1
    assert rig.dialer.made[0].ended


async def test_a_request_that_ends_before_its_answers_is_made_again(rig: Rig) -> None:
    rig.dialer.prepare = lambda agent: setattr(agent, "slow_once", True)
    result = await rig.whole.run(PLUG, BRISK)
    assert result.outcome is Outcome.DONE
    assert len(rig.dialer.made) == 1
    assert len(rig.dialer.made[0].asked) == 2


async def test_qemu_dying_in_the_middle_ends_all_long_before_the_time_is_over(rig: Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK._replace(timeout=3600.0)))
    await until(lambda: rig.vm.commands)
    rig.vmm.die("connection reset")
    result = await running
    assert result.outcome is Outcome.UNKNOWN
    assert result.reason is not None
    assert (result.reason.code, result.reason.text) == ("qemu-gone", "connection reset")


async def test_qemu_dead_before_the_first_look_is_an_error(rig: Rig) -> None:
    rig.vmm.die()
    with pytest.raises(QemuGoneError):
        await rig.whole.run(PLUG, BRISK)


async def test_qemus_refusal_is_the_slots_reason(rig: Rig) -> None:
    rig.vmm.add_error = QemuError(Reason("qemu-refused", Origin.QEMU, "device_add not allowed while migrating"))
    result = await rig.whole.run(PLUG, BRISK)
    assert result.outcome is Outcome.REFUSED
    assert result.slots[0].reason is rig.vmm.add_error.reason


async def test_a_refused_removal_brings_the_cpu_back_online(rig: Rig) -> None:
    await rig.whole.run(PLUG, BRISK)
    rig.vmm.del_error = QemuError(Reason("qemu-refused", Origin.QEMU, "not while migrating"))
    result = await rig.whole.run(Request(Operation.UNPLUG, 1), BRISK)
    assert result.outcome is Outcome.FAILED
    assert rig.vm.online == {0, 1}


async def test_a_guest_that_keeps_its_cpu_refuses_in_its_own_words(rig: Rig) -> None:
    await rig.whole.run(PLUG, BRISK)
    why = Reason("deadline-bandwidth", Origin.GUEST, "SCHED_DEADLINE tasks need it", errno="EBUSY")
    rig.dialer.made[0].refuses = why
    result = await rig.whole.run(Request(Operation.UNPLUG, 1), BRISK)
    assert result.outcome is Outcome.REFUSED
    assert result.slots[0].reason is why
    assert rig.vm.commands == ["add 1 vcpu-1"]


async def test_events_that_came_before_the_first_look_do_no_harm(rig: Rig) -> None:
    for event in (
        ev.OstReported(1, Ost(3, 0x82)),
        ev.OstReported(99, Ost(1, 0)),
        ev.DeviceDeleted(1),
        ev.UnplugRefused(1),
        ev.VmStatus("running"),
        ev.PortChanged(open=False),
    ):
        rig.vmm.hub.put(event)
    assert (await rig.whole.run(PLUG, BRISK)).outcome is Outcome.DONE


async def test_a_reset_in_the_middle_is_lived_through(rig: Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await until(lambda: rig.vm.commands)
    rig.vmm.hub.put(ev.VmReset())
    rig.dialer.made[0].die()
    rig.vm.present.add(1)
    rig.vm.online.add(1)
    assert (await running).outcome is Outcome.DONE


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_an_interrupt_ends_the_wait_with_what_is_known(rig: Rig) -> None:
    rig.vm.guest_works = False
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await until(lambda: rig.vm.commands)
    with no_task_left():
        rig.whole.interrupt()
        result = await running
    assert result.outcome is Outcome.UNKNOWN
    assert result.reason is not None
    assert result.reason.code == "interrupted"


async def test_an_interrupt_before_anything_was_sent_keeps_it_so(rig: Rig) -> None:
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await asyncio.sleep(0)
    rig.whole.interrupt()
    assert (await running).outcome is Outcome.REFUSED
    assert rig.vm.commands == []
    rig.whole.interrupt()
    assert (await rig.whole.run(PLUG, BRISK)).outcome is Outcome.DONE


async def test_cancelling_leaves_no_task_behind(rig: Rig) -> None:
    rig.vm.guest_works = False
    await rig.whole.look()
    with no_task_left():
        running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
        await until(lambda: rig.vm.commands and rig.dialer.made[0].asked)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert rig.dialer.made[0].cancelled == 1


async def test_a_fault_in_an_adapter_comes_out_and_leaves_no_task_behind(rig: Rig) -> None:
    rig.vmm.add_error = ZeroDivisionError("a bug")
    with no_task_left(), pytest.raises(ZeroDivisionError):
        await rig.whole.run(PLUG, BRISK)


async def test_closing_ends_session_and_monitor(rig: Rig) -> None:
    await rig.whole.look()
    await rig.whole.close()
    assert rig.dialer.made[0].ended
    assert rig.vmm.closed


# --- watching ---------------------------------------------------------------------------------------------------------


async def test_watch_shows_the_map_at_once_and_after_each_change(rig: Rig) -> None:
    stop = asyncio.Event()
    plugged = []
    with no_task_left():
        async for view in rig.whole.watch(stop, None):
            plugged.append(view.plugged_vcpus)
            if len(plugged) == 1:
                rig.vm.filled.add(1)
                rig.vmm.hub.put(ev.OstReported(1, Ost(1, 0)))
            elif plugged[-1] == 2:
                stop.set()
    assert plugged[0] == 1
    assert plugged[-1] == 2


async def test_watch_ends_at_its_time(rig: Rig) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.1
    assert [view async for view in rig.whole.watch(asyncio.Event(), until)]
    assert loop.time() >= until
