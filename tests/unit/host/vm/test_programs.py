# SPDX-License-Identifier: Apache-2.0
"""When the coordinator has the agent look at the guest's programs, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from kit.clock import Clock
from kit.fakes.adapters import BRISK, Agent, Rig, no_task_left, until
from vcpu_host import ports
from vcpu_host.core import codes
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.planning.plan import OnWorkload, Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import VmView
from vcpu_host.core.workload.model import Broken, Cpuset, Fate, Pinned, Threads, Who, Workload
from vcpu_host.errors import VcpuctlError
from vcpu_host.vm import programs
from vcpu_host.vm.coordinator import Coordinator
from vcpu_host.vm.programs import looked_at

_DB = Threads(1, (Who(812, 812, "postgres"),))
_PINNED = Workload(online=0b1111, pinned=(Pinned(0b1000, _DB),), broken=(Broken(0b1000, Fate.WIDENED, _DB),))
_LOST = Cpuset("/rt", 0b11000000, 0b0011, "isolated invalid", True)
_SLOW = VcpuctlError(Reason(codes.AGENT_SLOW, Origin.AGENT, "no answer"))


@pytest.fixture
def rig() -> Rig:
    rig = Rig(filled=(0, 1, 2, 3))
    rig.dialer.prepare = _sees
    return rig


def _sees(agent: Agent, found: Workload | VcpuctlError | None = _PINNED) -> None:
    agent.info = agent.info._replace(capabilities=(*agent.info.capabilities, "workload"))
    agent.programs = found


def _falls_silent(agent: Agent) -> None:
    """A look at programs is never answered."""
    _sees(agent, None)


def _unplug(slot: int, on: OnWorkload | None = None) -> Request:
    return Request(Operation.UNPLUG, None, (str(slot),), workload=on)


async def test_an_unplug_has_programs_looked_at_before_and_after_and_masks_watched(rig: Rig) -> None:
    result = await rig.whole.run(_unplug(3), BRISK)
    assert result.outcome is Outcome.DONE
    assert [note.code for note in result.notes] == [codes.PINNED_THREADS, codes.AFFINITY_BROKEN]
    (agent,) = rig.dialer.made
    assert agent.watched
    assert agent.looked == [((rig.vm.name(3),), False, False, True), ((), True, True, False)]


async def test_a_plug_has_them_looked_at_afterwards_alone_unless_hurting_is_refused(rig: Rig) -> None:
    rig.vm.filled, rig.vm.online, rig.vm.present = {0}, {0}, {0}
    await rig.whole.run(Request(Operation.PLUG, 1), BRISK)
    (agent,) = rig.dialer.made
    assert [broken for _, _, broken, _ in agent.looked] == [True]
    await rig.whole.run(Request(Operation.PLUG, 1, workload=OnWorkload.REFUSE), BRISK)
    assert [broken for _, _, broken, _ in agent.looked] == [True, False, True]


async def test_a_plan_of_a_plug_is_shown_with_what_keeps_cpus_from_being_used(rig: Rig) -> None:
    rig.vm.filled, rig.vm.online, rig.vm.present = {0}, {0}, {0}
    await rig.whole.plan(Request(Operation.PLUG, 1))
    (agent,) = rig.dialer.made
    assert agent.looked == [((), True, False, True)]


async def test_refuse_sends_nothing_to_qemu_and_asks_for_no_offline(rig: Rig) -> None:
    result = await rig.whole.run(_unplug(3, OnWorkload.REFUSE), BRISK)
    assert (result.outcome, result.reason.code if result.reason else "") == (Outcome.REFUSED, codes.PINNED_THREADS)
    assert rig.vm.commands == []
    assert rig.dialer.made[0].asked == []
    assert result.notes


@pytest.mark.parametrize("ways", [{"workload": OnWorkload.IGNORE}, {"without_agent": True}])
async def test_who_does_not_want_a_look_gets_none(rig: Rig, ways: dict[str, object]) -> None:
    await rig.whole.look()
    if "without_agent" in ways:
        rig.vm.online.discard(3)
    result = await rig.whole.run(Request(Operation.UNPLUG, None, ("3",), **ways), BRISK)  # type: ignore[arg-type]
    assert result.outcome is Outcome.DONE
    (agent,) = rig.dialer.made
    assert (agent.looked, agent.watched, result.notes) == ([], False, ())


async def test_the_vms_own_default_counts_where_the_request_says_nothing(rig: Rig) -> None:
    rig.whole.workload = "refuse"
    assert (await rig.whole.run(_unplug(3), BRISK)).outcome is Outcome.REFUSED
    assert (await rig.whole.run(_unplug(3, OnWorkload.WARN), BRISK)).outcome is Outcome.DONE


@pytest.mark.parametrize("said", [None, OnWorkload.REFUSE])
async def test_refuse_refuses_without_the_agent_what_takes_cpus_away_and_nothing_else(
    rig: Rig, said: OnWorkload | None
) -> None:
    rig.whole.workload = "refuse" if said is None else "warn"
    request = replace(_unplug(3, said), without_agent=True)
    for ended in (await rig.whole.run(request, BRISK), await rig.whole.plan(request)):
        (reason,) = [each.reason for each in ended.refusals] if isinstance(ended, Plan) else [ended.reason]
        assert reason is not None
        assert (reason.code, reason.who) == (codes.WORKLOAD_UNSEEN, Origin.VCPUCTL)
        assert reason.text.endswith("with --without-agent nobody looks at them")
        assert reason.hint.endswith("add --workload ignore; --workload warn does it all the same")
    assert rig.vm.commands == []
    rig.vm.filled, rig.vm.online, rig.vm.present = {0, 3}, {0}, {0, 3}
    assert (await rig.whole.run(replace(_unplug(2, said), without_agent=True), BRISK)).outcome is Outcome.DONE  # empty
    plugged = await rig.whole.run(Request(Operation.PLUG, 1, without_agent=True, workload=said), BRISK)
    assert (plugged.outcome, plugged.notes) == (Outcome.DONE, ())
    for on in (OnWorkload.WARN, OnWorkload.IGNORE):
        rig.vm.filled.add(3)
        assert (await rig.whole.run(replace(request, workload=on), BRISK)).outcome is Outcome.DONE
    assert rig.vm.commands == ["add 1 vcpu-1", "del vcpu-3", "del vcpu-3"]
    assert [agent.looked for agent in rig.dialer.made] == []


async def test_an_amount_spares_who_is_pinned(rig: Rig) -> None:
    await rig.whole.run(Request(Operation.UNPLUG, 1), BRISK)
    assert rig.vm.commands == ["del vcpu-2"]


async def test_an_agent_that_fails_to_look_is_told_once_and_holds_nothing_up(rig: Rig) -> None:
    rig.dialer.prepare = lambda agent: _sees(agent, _SLOW)
    result = await rig.whole.run(_unplug(3), BRISK)
    assert result.outcome is Outcome.DONE
    assert [note.code for note in result.notes] == [codes.WORKLOAD_UNSEEN]
    refused = await rig.whole.run(_unplug(2, OnWorkload.REFUSE), BRISK)
    assert refused.outcome is Outcome.REFUSED
    assert rig.vm.commands == ["del vcpu-3"]


async def test_a_look_afterwards_that_is_not_answered_ends_with_the_operations_time(
    rig: Rig,
) -> None:
    rig.dialer.prepare = _falls_silent
    rig.vm.filled, rig.vm.online, rig.vm.present = {0}, {0}, {0}
    result = await Clock().ends(
        rig.whole.run(Request(Operation.PLUG, 1), Limits(timeout=60.0)), lambda: rig.vm.online == {0, 1}
    )
    assert result.outcome is Outcome.DONE
    assert [note.code for note in result.notes] == [codes.WORKLOAD_UNSEEN]
    assert "in time" in result.notes[0].text


async def test_who_stops_waiting_does_not_wait_for_the_look_afterwards_either(rig: Rig) -> None:
    rig.dialer.prepare = _falls_silent
    rig.vm.filled, rig.vm.online, rig.vm.present = {0}, {0}, {0}
    with no_task_left():
        running = asyncio.ensure_future(rig.whole.run(Request(Operation.PLUG, 1), BRISK))
        await until(lambda: rig.dialer.made and rig.dialer.made[0].looked)
        rig.whole.interrupt()
        result = await running
    assert result.outcome is Outcome.DONE
    assert [note.code for note in result.notes] == [codes.WORKLOAD_UNSEEN]
    assert "stopped waiting" in result.notes[0].text


async def test_an_older_agent_is_never_asked(rig: Rig) -> None:
    rig.dialer.prepare = lambda agent: None
    result = await rig.whole.run(_unplug(3), BRISK)
    assert [note.code for note in result.notes] == [codes.WORKLOAD_UNSEEN]
    assert rig.dialer.made[0].looked == []


async def test_a_session_that_has_ended_before_the_look_refuses_what_is_to_be_refused(rig: Rig) -> None:
    view = await rig.whole.look()
    decided = await rig.whole.plan(_unplug(3))
    seen = await looked_at(None, view, decided, OnWorkload.REFUSE, shows=False)
    assert plan(seen, _unplug(3)).refusals[0].reason.code == codes.WORKLOAD_UNSEEN


async def test_doctor_has_what_stands_still(rig: Rig) -> None:
    view = await rig.whole.checkup()
    assert view.programs is not None
    assert view.programs.workload is _PINNED


async def _begin(rig: Rig) -> None:
    """An earlier unplug of slot 3 is on record; its CPU is online yet."""
    record = ports.NoJournal()
    await record.save([Intent(IntentKind.UNPLUG, 3, "vcpu-3", 0.0)])
    rig.whole = Coordinator(rig.vmm, rig.dialer, dial_timeout=1.0, journal=record)


async def test_with_refuse_a_removal_that_was_begun_earlier_is_not_finished_over_pinned_threads(rig: Rig) -> None:
    await _begin(rig)
    result = await rig.whole.run(Request(Operation.PLUG, 1, workload=OnWorkload.REFUSE), BRISK)
    assert (result.outcome, result.reason.code if result.reason else "") == (Outcome.REFUSED, codes.PINNED_THREADS)
    (agent,) = rig.dialer.made
    assert (rig.vm.commands, agent.asked) == ([], [])
    assert agent.looked == [((rig.vm.name(3),), False, False, True)]


async def test_with_warn_such_a_removal_is_told_as_what_it_does(rig: Rig) -> None:
    await _begin(rig)
    result = await rig.whole.run(Request(Operation.PLUG, 1), BRISK)
    assert result.outcome is Outcome.DONE
    assert rig.vm.commands[0] == "del vcpu-3"
    assert [note.code for note in result.notes] == [codes.PINNED_THREADS, codes.AFFINITY_BROKEN]


async def test_a_plan_that_then_takes_a_slot_that_was_not_asked_about_has_it_looked_at_too(rig: Rig) -> None:
    view = await rig.whole.look()
    (agent,) = rig.dialer.made
    first, other = (plan(view, _unplug(slot)) for slot in (3, 2))
    seen, decided = await programs.informed(agent, view, first, OnWorkload.REFUSE, lambda _: other, shows=False)
    assert decided is other
    assert [set(going) for going, *_ in agent.looked] == [{rig.vm.name(3)}, {rig.vm.name(3), rig.vm.name(2)}]
    assert seen.programs is not None
    assert seen.programs.refuses


async def test_looking_again_for_one_plan_comes_to_an_end_with_what_was_not_looked_at() -> None:
    rig = Rig(8, range(8))
    rig.dialer.prepare = lambda agent: _sees(agent, Workload(online=0xFF))
    view = await rig.whole.look()
    takes = iter((6, 5, 4, 4))

    def make(seen: VmView) -> Plan:
        return plan(seen, _unplug(next(takes)))

    first = plan(view, _unplug(7))
    _, decided = await programs.informed(rig.whole.agent, view, first, OnWorkload.REFUSE, make, shows=False)
    assert [refusal.reason.code for refusal in decided.refusals] == [codes.WORKLOAD_UNSEEN]
    assert len(rig.dialer.made[0].looked) == programs.LOOKS


async def test_an_unplug_does_not_tell_of_a_partition_that_was_lost_before_it_and_tells_of_one_that_it_empties(
    rig: Rig,
) -> None:
    rig.dialer.prepare = lambda agent: _sees(agent, Workload(online=0b1111, cpusets=(_LOST,)))
    assert (await rig.whole.run(_unplug(3), BRISK)).notes == ()
    (agent,) = rig.dialer.made
    real, whole = agent.workload, _LOST._replace(partition="isolated")

    async def looks(*going: Any, **what: Any) -> Workload:
        found = await real(*going, **what)
        return found if what.get("broken") else found._replace(cpusets=(whole,))

    agent.workload = looks  # type: ignore[method-assign]
    notes = (await rig.whole.run(_unplug(2), BRISK)).notes
    assert [(note.code, note.hurts) for note in notes] == [(codes.PARTITION_INVALID, True)]
