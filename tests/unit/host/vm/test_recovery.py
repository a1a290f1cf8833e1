# SPDX-License-Identifier: Apache-2.0
"""What earlier operations left open, and a record that fails: known, seen to, and never in the way of the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from kit.clock import Clock
from kit.fakes.adapters import BRISK, PLUG, Rig, until
from vcpu_host import ports
from vcpu_host.core.intent import Intent
from vcpu_host.core.model import Slot
from vcpu_host.core.operation.counts import Counts
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import RefusedError
from vcpu_host.vm.coordinator import Coordinator


async def _leave_a_removal_open(rig: Rig) -> None:
    await rig.whole.run(PLUG, BRISK)
    rig.vm.guest_works = False  # it ejects nothing
    left = await Clock().ends(
        rig.whole.run(Request(Operation.UNPLUG, 1), BRISK), lambda: "del vcpu-1" in rig.vm.commands
    )
    assert left.outcome is Outcome.UNKNOWN
    assert [slot.state for slot in (await rig.whole.look()).slots][1] == "unplugging"


async def test_a_plug_ends_what_an_unplug_left_open_first_and_says_so(rig: Rig) -> None:
    await _leave_a_removal_open(rig)
    rig.vm.guest_works, before = True, len(rig.vm.commands)
    result = await rig.whole.run(PLUG, BRISK)
    assert (result.outcome, [slot.slot for slot in result.slots]) == (Outcome.DONE, [1])
    assert [(slot.slot, slot.outcome) for slot in result.recovered] == [(1, Outcome.DONE)]
    assert (result.before, result.after) == (Counts(2, 1), Counts(2, 2)), "before is what it found, not what it made"
    assert rig.vm.commands[before:] == ["del vcpu-1", "add 1 vcpu-1"]
    assert all(slot.pending is None for slot in (await rig.whole.look()).slots)


async def test_a_slot_means_the_same_before_and_after_a_removal_that_is_ended_first(rig: Rig) -> None:
    await _leave_a_removal_open(rig)
    rig.vm.guest_works = True
    named = Request(Operation.PLUG, selectors=("vcpu-1",))  # an id that is gone once the removal is over
    result = await rig.whole.run(named, BRISK)
    assert (result.outcome, [slot.slot for slot in result.slots], result.request) == (Outcome.DONE, [1], named)
    assert [(slot.slot, slot.outcome) for slot in result.recovered] == [(1, Outcome.DONE)]


async def test_what_became_of_earlier_removals_is_told_also_if_the_request_itself_cannot_be_begun(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _leave_a_removal_open(rig)
    rig.vm.guest_works, before = True, len(rig.vm.commands)
    why, unplug = RefusedError(Reason("port-busy", Origin.VCPUCTL, "somebody")), rig.vmm.unplug

    async def unplug_and_lose_the_agent(slot: Slot, not_after: float | None = None) -> None:
        await unplug(slot, not_after)
        rig.dialer.trouble = why
        rig.dialer.made[-1].die()

    monkeypatch.setattr(rig.vmm, "unplug", unplug_and_lose_the_agent)
    result = await rig.whole.run(PLUG, BRISK)
    assert (result.outcome, result.reason, result.slots) == (Outcome.REFUSED, why.reason, ())
    assert [(slot.slot, slot.outcome) for slot in result.recovered] == [(1, Outcome.DONE)]
    assert rig.vm.commands[before:] == ["del vcpu-1"]


async def test_a_second_operation_is_refused_while_one_is_under_way_and_takes_nothing_of_its_record(rig: Rig) -> None:
    await rig.whole.run(PLUG, BRISK)
    rig.vm.guest_works = False
    first = asyncio.ensure_future(rig.whole.run(Request(Operation.UNPLUG, 1), BRISK))
    await until(lambda: "del vcpu-1" in rig.vm.commands)
    with pytest.raises(RefusedError) as refused:
        await rig.whole.run(PLUG, BRISK)
    assert refused.value.reason.code == "vm-busy"
    result = await Clock().ends(first, lambda: True)
    assert result.outcome is Outcome.UNKNOWN
    assert [slot.state for slot in (await rig.whole.look()).slots][1] == "unplugging"


async def test_a_refused_offline_leaves_a_removal_open_that_was_asked_for_before(rig: Rig) -> None:
    await _leave_a_removal_open(rig)
    rig.dialer.made[-1].refuses = Reason("last-cpu", Origin.GUEST, "no", errno="EBUSY")
    result = await Clock().ends(rig.whole.run(Request(Operation.SCALE, 2), BRISK), lambda: rig.dialer.made[-1].asked)
    assert result.outcome is not Outcome.DONE, "the CPU that it would count may go at any moment"
    assert [slot.state for slot in (await rig.whole.look()).slots][1] == "unplugging"


class _Record(ports.NoJournal):
    """One that can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: Reason | None = None

    async def load(self) -> tuple[Intent, ...]:
        if self.broken is not None and self.broken.code == "bad-record":
            raise RefusedError(self.broken)
        return await super().load()

    async def save(self, intents: Sequence[Intent]) -> None:
        if self.broken is not None and (not intents or self.broken.code == "no-record"):
            raise RefusedError(self.broken)
        await super().save(intents)


class _Busy(ports.NoJournal):
    """One that takes longer than the guest's word holds, and meanwhile something brings a CPU online."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self._vm = rig.vm

    async def save(self, intents: Sequence[Intent]) -> None:
        if intents and 1 in self._vm.present:
            self._vm.online.add(1)
            loop = asyncio.get_running_loop()
            old = loop.time() + BRISK.look_fresh
            await until(lambda: loop.time() > old)
        await super().save(intents)


async def test_no_removal_is_asked_for_on_a_word_that_grew_old_while_it_was_put_on_record(rig: Rig) -> None:
    await rig.whole.run(PLUG, BRISK)
    rig.whole = Coordinator(rig.vmm, rig.dialer, journal=_Busy(rig))
    result = await rig.whole.run(Request(Operation.UNPLUG, 1), BRISK)  # the fake QEMU has no CPU go that is online
    assert (result.outcome, result.slots[0].reason) == (Outcome.DONE, None)
    assert rig.vm.commands.count("del vcpu-1") == 1


async def test_a_removal_that_was_put_on_record_and_never_sent_is_not_left_there(rig: Rig) -> None:
    await rig.whole.run(PLUG, BRISK)
    journal = _Busy(rig)
    rig.whole = Coordinator(rig.vmm, rig.dialer, journal=journal)
    rig.vmm.too_late = True
    result = await rig.whole.run(Request(Operation.UNPLUG, 1), BRISK._replace(timeout=0.5))
    assert result.outcome is not Outcome.DONE
    assert "del vcpu-1" not in rig.vm.commands
    assert await journal.load() == ()


async def test_a_record_that_cannot_be_read_is_shown_and_nothing_is_asked_of_qemu(rig: Rig) -> None:
    record = _Record()
    rig.whole = Coordinator(rig.vmm, rig.dialer, journal=record)
    record.broken = Reason("bad-record", Origin.VCPUCTL, "garbage")
    view = await rig.whole.look()
    assert (view.record_trouble, len(view.slots)) == (record.broken, 4)
    result = await rig.whole.run(PLUG, BRISK)
    assert (result.outcome, result.reason) == (Outcome.REFUSED, record.broken)
    assert rig.vm.commands == []


async def test_a_record_that_cannot_be_struck_out_does_not_hide_the_result(rig: Rig) -> None:
    record = _Record()
    rig.whole = Coordinator(rig.vmm, rig.dialer, journal=record)
    record.broken = Reason("stuck", Origin.VCPUCTL, "full")
    result = await rig.whole.run(PLUG, BRISK)
    assert result.outcome is Outcome.DONE
    assert all(slot.pending is None for slot in (await rig.whole.look()).slots), "the look settles it, for the eye"


async def test_what_cannot_be_recorded_is_not_asked(rig: Rig) -> None:
    record = _Record()
    rig.whole = Coordinator(rig.vmm, rig.dialer, journal=record)
    record.broken = Reason("no-record", Origin.VCPUCTL, "full")
    result = await rig.whole.run(PLUG, BRISK)
    assert (result.outcome, result.slots[0].reason) == (Outcome.REFUSED, record.broken)
    assert rig.vm.commands == []


async def test_what_the_guest_said_in_an_operation_is_known_to_the_next_one_of_the_session(rig: Rig) -> None:
    """QEMU 7.2 under TCG dies of a plug after an unplug, and the second look of a session asks for no _OST."""
    rig.vmm.facts = {"accel": "tcg", "qemu_version": (7, 2, 22)}
    assert (await rig.whole.run(PLUG, BRISK)).outcome is Outcome.DONE
    assert (await rig.whole.run(Request(Operation.UNPLUG, 1), BRISK)).outcome is Outcome.DONE
    sent = list(rig.vm.commands)
    result = await rig.whole.run(PLUG, BRISK)
    assert result.outcome is Outcome.REFUSED
    assert result.reason is not None
    assert result.reason.code == "tcg-replug"
    assert rig.vm.commands == sent
    assert len(rig.dialer.made) == 1
