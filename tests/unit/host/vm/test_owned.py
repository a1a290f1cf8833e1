# SPDX-License-Identifier: Apache-2.0
"""A VM that libvirt owns: its record is a third side of the proof, and its definition follows if it is asked to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from kit.clock import Clock
from kit.fakes.adapters import BRISK, Dialer, Vm, Vmm
from vcpu_host.core import codes
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.finding import Level
from vcpu_host.core.model import HostView, Owner, Recorded, Slot
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import QemuGoneError, RefusedError, UsageError, VcpuctlError
from vcpu_host.vm.coordinator import Coordinator


class Owned(Vmm):
    """A monitor whose VM has an owner. ``follows`` is after how many looks its record has a removal; None: never."""

    def __init__(self, vm: Vm, *, follows: int | None = 0, definition: bool = True) -> None:
        super().__init__(vm)
        self.follows = follows
        self.looks = 0
        self.fixed: dict[int, Reason] = {}
        self.behind: set[int] = set()
        self.recorded = set(vm.filled)
        self.kept: dict[int, bool] = {}
        self.whole = False
        self.not_kept: dict[int, Reason] = {}
        self.keeps_not: VcpuctlError | None = None
        self.mended = 0
        self.facts = {"owner": Owner("libvirt 12.8.0", definition)}

    def _slot(self, slot: Slot) -> Slot:
        if slot.index in self.behind:
            return replace(slot, recorded=Recorded.BEHIND, fixed=self.fixed[slot.index], managed=False)
        if slot.filled:
            self.recorded.add(slot.index)
            return replace(slot, fixed=self.fixed.get(slot.index))
        if slot.index in self.recorded and self.follows is not None:
            self.looks += 1
            if self.looks > self.follows:
                self.recorded.discard(slot.index)
        if slot.index not in self.recorded:
            return slot
        return replace(slot, recorded=Recorded.BEHIND if self.follows is None else Recorded.SETTLING)

    async def look(self) -> HostView:
        view = await super().look()
        return view._replace(slots=tuple(map(self._slot, view.slots)))

    async def mend(self, view: HostView) -> None:
        self.mended += 1
        self.recorded = {slot.index for slot in view.slots if slot.filled}

    async def keep(self, slots: Mapping[int, bool], *, whole: bool = False) -> Mapping[int, Reason]:
        if self.keeps_not is not None:
            raise self.keeps_not
        self.kept, self.whole = dict(slots), whole
        return self.not_kept


def _whole(vmm: Owned) -> Coordinator:
    return Coordinator(vmm, Dialer(vmm.vm), dial_timeout=1.0)


async def test_an_unplug_is_done_when_the_owners_record_has_it_too_and_not_before() -> None:
    vmm = Owned(Vm(4, (0, 1)), follows=3)
    result = await _whole(vmm).run(Request(Operation.UNPLUG, selectors=("1",)), BRISK)
    assert (result.outcome, result.slots[0].reason) == (Outcome.DONE, None)
    assert vmm.recorded == {0}
    assert vmm.looks == 4, "each look before the last one showed a record that had not followed"


async def test_a_record_that_stays_behind_is_told_with_what_it_brings_back() -> None:
    vmm = Owned(Vm(4, (0, 1)), follows=None)
    whole = _whole(vmm)
    result = await whole.run(Request(Operation.UNPLUG, selectors=("1",)), BRISK)
    assert result.outcome is Outcome.DONE
    reason = result.slots[0].reason
    assert reason is not None
    assert (reason.code, reason.who) == (codes.RECORD_BEHIND, Origin.LIBVIRT)
    found = [finding for finding in diagnose(await whole.look()) if finding.code == codes.RECORD_BEHIND]
    assert [finding.level for finding in found] == [Level.PROBLEM]
    assert "slot 1" in found[0].text


async def test_a_record_that_an_earlier_operation_left_behind_is_mended_by_the_same_command_once_more() -> None:
    vmm = Owned(Vm(4, (0, 1)), follows=None)
    whole = _whole(vmm)
    await whole.run(Request(Operation.UNPLUG, selectors=("1",)), BRISK)
    assert vmm.recorded == {0, 1}
    again = await whole.run(Request(Operation.UNPLUG, selectors=("1",)), BRISK)
    assert (again.outcome, vmm.recorded) == (Outcome.DONE, {0})


async def test_a_cpu_that_the_owner_keeps_is_not_asked_for() -> None:
    vmm = Owned(Vm(4, (0, 1, 2)))
    vmm.fixed[1] = Reason(codes.NOT_HOTPLUGGABLE, Origin.LIBVIRT, "libvirt keeps vCPU 1")
    whole = _whole(vmm)
    refused = await whole.run(Request(Operation.UNPLUG, selectors=("1",)), BRISK)
    assert (refused.outcome, refused.slots[0].reason) == (Outcome.REFUSED, vmm.fixed[1])
    assert vmm.vm.online == {0, 1, 2}
    assert (await whole.run(Request(Operation.SCALE, 1), BRISK)).outcome is Outcome.REFUSED
    done = await whole.run(Request(Operation.UNPLUG, 1), BRISK)
    assert (done.outcome, vmm.vm.filled) == (Outcome.DONE, {0, 1})


async def test_an_owner_that_is_not_asked_to_plug_leaves_the_guests_side_to_do() -> None:
    vmm = Owned(Vm(4, (0, 1)))
    no = Reason(codes.LIBVIRT_CORES, Origin.VCPUCTL, "cores")
    vmm.facts = {"owner": Owner("libvirt 12.8.0", definition=True, refuses=no)}
    whole = _whole(vmm)
    for request in (Request(Operation.PLUG, 1), Request(Operation.UNPLUG, 1), Request(Operation.SCALE, 3)):
        result = await whole.run(request, BRISK)
        assert (result.outcome, result.reason, vmm.vm.commands) == (Outcome.REFUSED, no, [])
    assert no.code in {finding.code for finding in diagnose(await whole.look())}
    assert (await whole.run(Request(Operation.OFFLINE, selectors=("1",)), BRISK)).outcome is Outcome.DONE


async def test_a_cpu_that_the_owner_knows_nothing_of_is_not_taken_for_one_that_was_plugged() -> None:
    vmm = Owned(Vm(4, (0, 1)))
    vmm.behind, vmm.fixed = {1}, {1: Reason(codes.BEHIND_LIBVIRT, Origin.LIBVIRT, "plugged behind libvirt's back")}
    vmm.vm.online.discard(1)
    whole = _whole(vmm)
    for operation in (Operation.PLUG, Operation.UNPLUG):
        refused = await whole.run(Request(operation, selectors=("1",)), BRISK)
        assert (refused.outcome, refused.slots[0].reason) == (Outcome.REFUSED, vmm.fixed[1])
    done = await whole.run(Request(Operation.PLUG, 1), BRISK)
    assert (done.outcome, vmm.vm.online) == (Outcome.DONE, {0, 2})


async def test_where_qemu_is_not_looked_at_the_result_says_so() -> None:
    vmm = Owned(Vm(4, (0, 1)))
    vmm.facts = {"owner": Owner("libvirt 12.8.0", definition=True, record_alone=True)}
    for request in (Request(Operation.PLUG, 1), Request(Operation.UNPLUG, 1)):
        result = await _whole(vmm).run(request, BRISK)
        assert result.outcome is Outcome.DONE
        assert [slot.reason.code for slot in result.slots if slot.reason] == [codes.RECORD_ALONE]


@pytest.mark.parametrize(
    "said",
    [
        RefusedError(Reason(codes.LIBVIRT_DENIED, Origin.LIBVIRT, "access denied")),
        UsageError(Reason(codes.NO_SUCH_DOMAIN, Origin.LIBVIRT, "no domain with matching uuid")),
    ],
)
async def test_whatever_the_owner_says_to_a_request_is_in_the_operations_result(said: VcpuctlError) -> None:
    vmm = Owned(Vm(4, (0, 1)))
    vmm.add_error = vmm.del_error = said
    for request in (Request(Operation.PLUG, 1), Request(Operation.UNPLUG, 1)):
        result = await _whole(vmm).run(request, BRISK)
        assert result.outcome in (Outcome.REFUSED, Outcome.FAILED)
        assert [slot.reason.code for slot in result.slots if slot.reason] == [said.reason.code]
    assert vmm.vm.online == {0, 1}


# --- --config ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (Request(Operation.PLUG, selectors=("2",), config=True), {2: True}),
        (Request(Operation.PLUG, 2, config=True), {2: True, 3: True}),
        (Request(Operation.UNPLUG, 1, config=True), {1: False}),
        (Request(Operation.SCALE, 3, config=True), {0: True, 1: True, 2: True, 3: False}),
        (Request(Operation.SCALE, 2, config=True), {0: True, 1: True, 2: False, 3: False}),
        (Request(Operation.PLUG, selectors=("1",), config=True), {1: True}),
        (Request(Operation.PLUG, 1), {}),
    ],
)
async def test_the_definition_gets_exactly_the_vcpus_that_were_asked_for(
    request_: Request, kept: dict[int, bool]
) -> None:
    vmm = Owned(Vm(4, (0, 1)))
    result = await _whole(vmm).run(request_, BRISK)
    assert (result.outcome, vmm.kept) == (Outcome.DONE, kept)
    assert vmm.whole is (request_.operation is Operation.SCALE)


async def test_a_vcpu_of_the_definition_that_has_no_slot_before_the_next_start_is_told_if_it_stays() -> None:
    vmm = Owned(Vm(4, (0, 1)))
    vmm.not_kept = {9: Reason("libvirt-error", Origin.LIBVIRT, "no space")}
    result = await _whole(vmm).run(Request(Operation.SCALE, 3, config=True), BRISK)
    assert result.outcome is Outcome.PARTIAL
    reason = result.slots[-1].reason
    assert (result.slots[-1].slot, reason and reason.code) == (9, codes.NOT_KEPT)


async def test_what_is_not_done_is_not_kept() -> None:
    vmm = Owned(Vm(4, (0, 1)))
    vmm.vm.guest_works = False
    result = await Clock().ends(
        _whole(vmm).run(Request(Operation.SCALE, 3, config=True), BRISK), lambda: vmm.vm.commands
    )
    assert (result.outcome is Outcome.DONE, vmm.kept) == (False, {})


async def test_a_definition_that_cannot_be_changed_makes_the_slot_done_in_part_only() -> None:
    vmm = Owned(Vm(4, (0, 1)))
    vmm.not_kept = {2: Reason("libvirt-error", Origin.LIBVIRT, "no space")}
    result = await _whole(vmm).run(Request(Operation.PLUG, 2, config=True), BRISK)
    assert result.outcome is Outcome.PARTIAL
    assert [(slot.slot, slot.outcome) for slot in result.slots] == [(2, Outcome.PARTIAL), (3, Outcome.DONE)]
    reason = result.slots[0].reason
    assert reason is not None
    assert reason.code == codes.NOT_KEPT
    assert "no space" in reason.text


async def test_what_was_done_is_told_although_its_owner_is_lost_before_it_is_kept() -> None:
    vmm = Owned(Vm(4, (0, 1)))
    vmm.keeps_not = QemuGoneError(Reason(codes.LIBVIRT_GONE, Origin.LIBVIRT, "the connection is lost"))
    for request in (Request(Operation.PLUG, 1, config=True), Request(Operation.SCALE, 2, config=True)):
        result = await _whole(vmm).run(request, BRISK)
        assert result.outcome is Outcome.PARTIAL
        assert {slot.reason.code for slot in result.slots if slot.reason} == {codes.NOT_KEPT}
    assert vmm.vm.online == {0, 1}


async def test_a_refusal_leaves_the_owners_record_as_it_is() -> None:
    vmm = Owned(Vm(4, (0, 1)), follows=None)
    whole = _whole(vmm)
    await whole.run(Request(Operation.UNPLUG, selectors=("1",)), BRISK)
    refused = await whole.run(Request(Operation.PLUG, 99), BRISK)
    assert (refused.outcome, vmm.mended) == (Outcome.REFUSED, 0)


async def test_time_that_runs_out_while_the_record_is_to_follow_is_told_as_that() -> None:
    vmm = Owned(Vm(4, (0, 1)), follows=10**9)
    result = await Clock().ends(
        _whole(vmm).run(Request(Operation.UNPLUG, selectors=("1",)), BRISK), lambda: vmm.vm.filled == {0}
    )
    assert (result.outcome, vmm.vm.filled) == (Outcome.UNKNOWN, {0})
    reason = result.slots[0].reason
    assert reason is not None
    assert reason.code == codes.RECORD_BEHIND


@pytest.mark.parametrize("owner", [None, Owner("libvirt 12.8.0", definition=False)])
async def test_without_a_definition_nothing_is_changed(owner: Owner | None) -> None:
    vmm = Owned(Vm(4, (0,)))
    vmm.facts = {"owner": owner}
    result = await _whole(vmm).run(Request(Operation.PLUG, 1, config=True), BRISK)
    assert (result.outcome, vmm.vm.filled) == (Outcome.REFUSED, {0})
    assert result.reason is not None
    assert result.reason.code == codes.NO_DEFINITION


def test_the_definition_is_about_what_is_plugged() -> None:
    with pytest.raises(ValueError, match="definition"):
        Request(Operation.OFFLINE, selectors=("1",), config=True)
    with pytest.raises(ValueError, match="definition"):
        Request(Operation.SCALE, 1, in_guest=True, config=True)
