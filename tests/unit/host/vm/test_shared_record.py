# SPDX-License-Identifier: Apache-2.0
"""A record that vcpuctl on other hosts writes, too: who has not the agent's channel takes nothing of theirs away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from kit.fakes.adapters import BRISK, PLUG, Rig, gone
from vcpu_host import ports
from vcpu_host.core import codes
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import RefusedError, VcpuctlError
from vcpu_host.vm.coordinator import Coordinator
from vcpu_host.vm.shared_record import Shared

#: Somebody's plug, which looks as if it were over: its slot is empty.
THEIRS = Intent(IntentKind.PLUG, 1, "vcpu-1", 100.0)
OTHER = Intent(IntentKind.UNPLUG, 3, "vcpu-3", 100.0)
_BUSY = RefusedError(Reason(codes.PORT_BUSY, Origin.LIBVIRT, "another client has the channel"))


class Record(ports.NoJournal):
    """The record, of which all hosts see the same. ``writes`` are those of this one; each look reads it anew."""

    def __init__(self, *intents: Intent) -> None:
        super().__init__()
        self.shared = True
        self.stands: tuple[Intent, ...] = intents
        self.writes: list[tuple[Intent, ...]] = []
        self.read = 0
        self.when_read: Callable[[int], None] = lambda times: None

    async def load(self) -> tuple[Intent, ...]:
        self.read += 1
        self.when_read(self.read)
        return self.stands

    async def save(self, intents: Sequence[Intent]) -> None:
        self.writes.append(tuple(intents))
        self.stands = tuple(intents)


@pytest.fixture(name="record")
def _record() -> Record:
    return Record(THEIRS)


@pytest.fixture(name="rig")
def _rig(record: Record) -> Rig:
    rig = Rig()
    rig.whole = Coordinator(rig.vmm, rig.dialer, dial_timeout=1.0, journal=record)
    return rig


@pytest.mark.parametrize("trouble", [_BUSY, gone("nobody answers")], ids=["port-busy", "no agent"])
async def test_who_looks_without_the_channel_strikes_nothing_out(
    rig: Rig, record: Record, trouble: VcpuctlError
) -> None:
    rig.dialer.trouble = trouble
    view = await rig.whole.look()
    assert view.agent_trouble is not None
    await rig.whole.plan(Request(Operation.PLUG, 1, without_agent=True))
    assert (record.stands, record.writes) == ((THEIRS,), [])


async def test_who_has_the_vm_strikes_out_without_an_agent_where_nobody_else_writes_the_record(
    rig: Rig, record: Record
) -> None:
    record.shared = False
    rig.dialer.trouble = gone("nobody answers")
    await rig.whole.look()
    assert record.stands == ()


async def test_who_has_the_channel_strikes_out_what_is_over(rig: Rig, record: Record) -> None:
    await rig.whole.look()
    assert record.stands == ()


async def test_a_slot_that_was_seen_before_the_channel_was_free_settles_nothing(rig: Rig, record: Record) -> None:
    def ends(_agent: object) -> None:
        """Who had the channel is killed; libvirt carries out the plug, and the guest has not taken the CPU in."""
        rig.vm.filled.add(1)

    rig.dialer.prepare = ends
    view = await rig.whole.look()
    assert view.slots[1].slot.filled
    assert (record.stands, record.writes) == ((THEIRS,), [])


async def test_a_look_does_not_judge_what_was_recorded_while_it_looked(rig: Rig, record: Record) -> None:
    await rig.whole.look()
    record.writes.clear()
    record.read = 0

    def somebody_writes(times: int) -> None:
        record.stands = (THEIRS,) if times > 1 else ()

    record.when_read = somebody_writes
    await rig.whole.look()
    assert (record.read, record.stands, record.writes) == (2, (THEIRS,), [])


async def test_a_session_that_ends_while_it_is_looked_strikes_nothing_out(rig: Rig, record: Record) -> None:
    await rig.whole.look()
    record.stands = (THEIRS,)
    agent = rig.dialer.made[0]
    rig.dialer.trouble = _BUSY
    record.when_read = lambda _times: agent.die()
    await rig.whole.look()
    assert record.stands == (THEIRS,)


async def test_an_operation_without_the_channel_leaves_what_others_have_under_way_on_record(
    rig: Rig, record: Record
) -> None:
    result = await rig.whole.run(Request(Operation.PLUG, None, ("2",), without_agent=True), BRISK)
    assert result.outcome is Outcome.DONE
    assert [[(intent.kind, intent.slot) for intent in written] for written in record.writes] == [
        [("plug", 1), ("plug", 2)],
        [("plug", 1)],
    ]
    assert record.stands == (THEIRS,)


async def test_what_others_record_during_an_operation_is_there_after_it(rig: Rig, record: Record) -> None:
    record.stands = tuple[Intent, ...]()

    def somebody_writes(_times: int) -> None:
        if rig.vm.commands:
            record.stands = (*record.stands, OTHER) if OTHER not in record.stands else record.stands

    record.when_read = somebody_writes
    assert (await rig.whole.run(PLUG, BRISK)).outcome is Outcome.DONE
    assert record.stands == (OTHER,)


async def test_of_a_write_that_was_given_up_nothing_stays_that_was_not_sent() -> None:
    record = Record(OTHER)
    mine = Shared(record)
    assert await mine.load() == (OTHER,)
    await mine.save((THEIRS, OTHER))  # nobody waited for its end
    await mine.save((OTHER,))
    assert record.stands == (OTHER,)
