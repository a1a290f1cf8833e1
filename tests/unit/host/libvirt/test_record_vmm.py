# SPDX-License-Identifier: Apache-2.0
"""By the record alone: a CPU that is on it still may be online, so nothing is removed that was not asked for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.fakes.libvirt_stream import LibvirtError
from vcpu_host.core import codes
from vcpu_host.core.model import Owner
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import QemuError, QemuGoneError
from vcpu_host.libvirt import words
from vcpu_host.libvirt.domain_xml import DomainRecord, RecordedVcpu
from vcpu_host.libvirt.record_vmm import RecordVmm


class Domain:
    """A running domain whose record never follows a removal."""

    def __init__(self) -> None:
        self.owner = Owner("libvirt 12.8.0", definition=True)
        self.asynchronous = True
        self.asked: list[int] = []
        self.connection = SimpleNamespace(on_loss=lambda hear: None, raw=SimpleNamespace(getVersion=lambda: 11_001_003))
        #: What virDomainGetState says: the state, and why it is so.
        self.state = [1, 1]
        self.raw = SimpleNamespace(state=lambda: self.state, jobStats=lambda: self.job)
        #: What virDomainGetJobStats says.
        self.job: dict[str, int] = {"type": 0}
        self.unplugs_not: QemuError | None = None

    async def call(self, _what: str, function: Any) -> Any:
        return function()

    async def record(self) -> DomainRecord:
        vcpus = {number: RecordedVcpu(enabled=True, removable=number > 0) for number in range(2)}
        name = "web1\x1b[2J"
        return DomainRecord(name, "uuid", 2, vcpus, channel=True, machine="pc-q35-11.1", arch="x86_64", accel="tcg")

    async def plug(self, number: int) -> None:
        text = "internal error: qemu didn't report thread id for vcpu"
        raise words.UnclearError(Reason("libvirt-error", Origin.LIBVIRT, f"{text} '{number}'"))

    async def unplug(self, number: int, *, asynchronously: bool, not_after: float | None = None) -> None:
        assert asynchronously is self.asynchronous
        assert not_after is None
        self.asked.append(number)
        if self.unplugs_not is not None:
            raise self.unplugs_not


async def test_a_removal_goes_out_once_for_each_time_that_it_is_asked_for_however_often_one_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    domain = Domain()
    vmm = RecordVmm(cast("Any", domain))
    view = await vmm.look()
    assert [slot.filled for slot in view.slots] == [True, True]
    assert view.vm_name.isprintable()
    await vmm.unplug(view.slots[1])
    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.time", lambda loop: 1e9)  # much later
    for _ in range(5):
        view = await vmm.look_slots(view)
    assert domain.asked == [1], "the guest may have brought the CPU online again meanwhile"
    await vmm.unplug(view.slots[1])
    assert domain.asked == [1, 1]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ([1, 1], "running"),
        ([3, 1], "paused"),  # by a user
        ([3, 5], "io-error"),
        ([3, 6], "watchdog"),
        ([3, 10], "guest-panicked"),
        ([6, 1], "guest-panicked"),
        ([7, 0], "suspended"),
    ],
)
async def test_a_domain_that_stands_still_is_paused_only_if_it_is(state: list[int], status: str) -> None:
    domain = Domain()
    domain.state = state
    assert (await RecordVmm(cast("Any", domain)).look()).status == status


async def test_a_plug_at_which_libvirt_fails_is_what_its_record_says_or_not_known() -> None:
    domain = Domain()
    vmm = RecordVmm(cast("Any", domain))
    slot = (await vmm.look()).slots[1]
    assert await vmm.plug(slot) == "vcpu1"
    with pytest.raises(QemuGoneError) as caught:
        await vmm.plug(replace(slot, index=5))  # which is not on the record; QEMU may have it
    assert "may have been done" in caught.value.reason.hint


@pytest.mark.parametrize(
    ("operation", "migrates"),
    # start, save, restore, migration to here and from here, snapshot
    [(1, False), (2, False), (3, False), (4, True), (5, True), (6, False)],
)
async def test_a_migration_is_known_by_what_libvirt_does(operation: int, migrates: bool) -> None:
    domain = Domain()
    vmm = RecordVmm(cast("Any", domain))
    assert (await vmm.look()).migration == ""
    domain.job = {"type": 2, "operation": operation}
    assert bool((await vmm.look()).migration) is migrates


_WAITED = "Timed out during operation: vcpu unplug request timed out. Unplug result must be manually inspected"
_LOCKED = "Timed out during operation: cannot acquire state change lock (held by monitor=remoteDispatchDomainSave)"


@pytest.mark.parametrize(
    ("asynchronous", "text", "asked"),
    [(False, _WAITED, True), (False, _LOCKED, False), (True, _LOCKED, False), (True, _WAITED, False)],
)
async def test_a_time_out_is_a_removal_under_way_only_where_libvirt_waits_for_its_end(
    asynchronous: bool, text: str, asked: bool
) -> None:
    domain = Domain()
    domain.asynchronous = asynchronous
    error = words.of_call(LibvirtError(text, 68, 10), "unplug vCPU 1")
    assert isinstance(error, QemuError)
    domain.unplugs_not = error
    vmm = RecordVmm(cast("Any", domain))
    slot = (await vmm.look()).slots[1]
    with nullcontext() if asked else pytest.raises(QemuError):
        await vmm.unplug(slot)


async def test_a_removal_at_which_a_waiting_libvirt_fails_is_what_its_record_says_or_not_known() -> None:
    domain = Domain()
    domain.unplugs_not = words.UnclearError(Reason("libvirt-error", Origin.LIBVIRT, "cannot write its state"))
    vmm = RecordVmm(cast("Any", domain))
    slot = (await vmm.look()).slots[1]
    with pytest.raises(QemuError, match="cannot write"):
        await vmm.unplug(slot)  # libvirt that does not wait has begun nothing
    domain.asynchronous = False
    with pytest.raises(QemuGoneError) as caught:
        await vmm.unplug(slot)
    assert "may have been done" in caught.value.reason.hint
    await vmm.unplug(replace(slot, index=5))  # which is not on the record any more


@pytest.mark.parametrize(
    ("text", "enabled", "code"),
    [
        ("invalid argument: vcpu '5' is already in requested state", False, codes.DEVICE_NOT_FOUND),
        ("invalid argument: vcpu '5' is already in requested state", True, codes.SLOT_OCCUPIED),
        ("internal error: qemu reported thread id for inactive vcpu '3'", False, codes.UNPLUGGING),
        ("internal error: qemu reported thread id for inactive vcpu '3'", True, codes.LIBVIRT_ERROR),
        ("Operation not supported: vcpu '3' can't be unplugged", False, codes.LIBVIRT_ERROR),
    ],
)
def test_what_is_no_failure_of_a_removal_has_the_code_that_operations_know(
    text: str, enabled: bool, code: codes.Code
) -> None:
    error = words.of_set_vcpu(QemuError(Reason(codes.LIBVIRT_ERROR, Origin.LIBVIRT, text)), enabled=enabled)
    assert (error.reason.code, error.reason.text) == (code, text)
