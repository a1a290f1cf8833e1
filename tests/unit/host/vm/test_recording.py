# SPDX-License-Identifier: Apache-2.0
"""A record that takes its time: the operation's own time and Ctrl-C are heard, and what was not sent is not begun."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from kit.fakes.adapters import BRISK, PLUG, Rig, no_task_left, until
from vcpu_host import ports
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.result import OperationResult
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Outcome
from vcpu_host.vm import recording
from vcpu_host.vm.coordinator import Coordinator

SHORT = BRISK._replace(timeout=0.3)


class Slow(ports.NoJournal):
    """Its writes wait for ``goes_on``. What was written when a write was given up, nobody knows: here it was."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()
        self.begun: list[tuple[Intent, ...]] = []

    async def save(self, intents: Sequence[Intent]) -> None:
        self.begun.append(tuple(intents))
        await super().save(intents)
        await self.goes_on.wait()


@pytest.fixture
def journal() -> Slow:
    return Slow()


@pytest.fixture
def rig(journal: Slow, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(recording, "_LAST_WORD", 0.05)
    rig = Rig()
    rig.whole = Coordinator(rig.vmm, rig.dialer, dial_timeout=1.0, journal=journal)
    return rig


async def interrupted(rig: Rig, journal: Slow, request: Request, limits: Limits) -> OperationResult:
    """How the operation ends if Ctrl-C comes while its first change is put on record."""
    running = asyncio.ensure_future(rig.whole.run(request, limits))
    await until(lambda: journal.begun)
    rig.whole.interrupt()
    return await running


async def test_ctrl_c_is_heard_while_a_plug_is_put_on_record_and_nothing_was_begun(rig: Rig, journal: Slow) -> None:
    with no_task_left():
        result = await interrupted(rig, journal, PLUG, BRISK)
    assert (result.outcome, rig.vm.commands) == (Outcome.REFUSED, [])


async def test_the_time_is_over_while_a_plug_is_put_on_record_and_nothing_was_begun(rig: Rig) -> None:
    with no_task_left():
        result = await rig.whole.run(PLUG, SHORT)
    assert (result.outcome, rig.vm.commands) == (Outcome.REFUSED, [])


async def test_a_qemu_that_dies_while_a_plug_is_put_on_record_was_asked_for_nothing(rig: Rig, journal: Slow) -> None:
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await until(lambda: journal.begun)
    rig.vmm.die()
    result = await running
    assert (result.slots[0].outcome, rig.vm.commands) == (Outcome.REFUSED, [])


@pytest.mark.parametrize("limits", [BRISK, SHORT], ids=["Ctrl-C", "its time"])
async def test_a_removal_that_was_not_sent_is_not_on_record_in_the_end(rig: Rig, journal: Slow, limits: Limits) -> None:
    journal.goes_on.set()
    await rig.whole.run(PLUG, BRISK)
    journal.goes_on.clear()
    journal.begun.clear()
    down = Request(Operation.UNPLUG, 1)
    result = await (interrupted(rig, journal, down, limits) if limits is BRISK else rig.whole.run(down, limits))
    assert result.outcome is Outcome.UNKNOWN, "its CPU was taken offline"
    assert "del vcpu-1" not in rig.vm.commands
    assert [[intent.kind for intent in intents] for intents in journal.begun] == [[IntentKind.UNPLUG], []]


async def test_a_result_does_not_wait_long_for_the_records_last_word(rig: Rig, journal: Slow) -> None:
    journal.goes_on.set()
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await until(lambda: rig.vm.commands)
    journal.goes_on.clear()
    assert (await running).outcome is Outcome.DONE


async def test_what_waits_for_the_record_holds_up_nobody_else(rig: Rig, journal: Slow) -> None:
    """The agent is asked to bring the CPU online while its plug is still to be put on record."""
    running = asyncio.ensure_future(rig.whole.run(PLUG, BRISK))
    await until(lambda: journal.begun)
    await until(lambda: rig.dialer.made[-1].asked)
    journal.goes_on.set()
    assert (await running).outcome is Outcome.DONE
