# SPDX-License-Identifier: Apache-2.0
"""Every operation over a machine monitor that calls CPUs in its own way: the core makes no ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from kit.fakes.adapters import BRISK, Dialer, Vm
from kit.fakes.other_monitor import OtherMonitor, own_name
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Outcome
from vcpu_host.ports import NoJournal
from vcpu_host.vm.coordinator import Coordinator


class Remembering(NoJournal):
    """Keeps all that was ever recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[Intent] = []

    async def save(self, intents: Sequence[Intent]) -> None:
        self.saved += intents
        await super().save(intents)


class Whole:
    """The coordinator over the other monitor, which has been given a CPU in slot 1 at its start."""

    def __init__(self) -> None:
        self.vm = Vm(6, (0, 1))
        self.monitor = OtherMonitor(self.vm, frozenset({0, 1}))
        self.journal = Remembering()
        self.coordinator = Coordinator(self.monitor, Dialer(self.vm), dial_timeout=1.0, journal=self.journal)

    async def ends(self, operation: str, count: int | None = None, *slots: str) -> dict[int, str]:
        result = await self.coordinator.run(Request(Operation(operation), count, slots), BRISK)
        assert result.outcome is Outcome.DONE, result
        return {slot.slot: slot.device_id for slot in result.slots}


@pytest.fixture(name="whole")
async def _whole() -> AsyncIterator[Whole]:
    whole = Whole()
    yield whole
    await whole.coordinator.close()


async def test_each_operation_goes_by_the_monitors_own_ids(whole: Whole) -> None:
    assert await whole.ends("plug", 2) == {2: own_name(2), 3: own_name(3)}
    assert await whole.ends("plug", None, "5") == {5: own_name(5)}
    assert await whole.ends("offline", None, own_name(3)) == {3: own_name(3)}
    assert await whole.ends("online", None, "3") == {3: own_name(3)}
    assert await whole.ends("scale", 6) == {4: own_name(4)}
    assert whole.vm.online == {0, 1, 2, 3, 4, 5}
    assert await whole.ends("unplug", None, own_name(5)) == {5: own_name(5)}
    assert await whole.ends("unplug", None, "1") == {1: ""}
    assert set(await whole.ends("scale", 1)) == {2, 3, 4}
    assert whole.vm.filled == {0}
    taken = [said for said in whole.monitor.said if said.startswith("detach")]
    assert taken[:2] == [f"detach {own_name(5)}", "detach #1"]
    assert not await whole.journal.load()


async def test_what_is_recorded_is_what_the_monitor_will_know_it_by(whole: Whole) -> None:
    await whole.ends("plug", None, "4")
    await whole.ends("unplug", None, "1")
    recorded = {(i.kind, i.slot, i.device_id) for i in whole.journal.saved}
    assert recorded == {(IntentKind.PLUG, 4, own_name(4)), (IntentKind.UNPLUG, 1, "#1")}


async def test_a_plan_shows_the_ids_that_the_monitor_would_give(whole: Whole) -> None:
    decided = await whole.coordinator.plan(Request(Operation.PLUG, 2))
    assert [step.device_id for step in decided.steps] == [own_name(2), own_name(3)]


async def test_a_half_done_plug_is_known_as_vcpuctls_own_by_the_monitors_word(whole: Whole) -> None:
    whole.vm.filled.add(2)
    whole.vm.present.add(2)
    decided = await whole.coordinator.plan(Request(Operation.PLUG, 1))
    assert [(str(step.kind), step.slot.index) for step in decided.steps] == [("online", 2)]
