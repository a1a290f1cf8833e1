# SPDX-License-Identifier: Apache-2.0
"""By the record alone: a CPU that is on it still may be online, so nothing is removed that was not asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from vcpu_host.core import codes
from vcpu_host.core.model import Owner
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import QemuError
from vcpu_host.libvirt import words
from vcpu_host.libvirt.domain_xml import DomainRecord, RecordedVcpu
from vcpu_host.libvirt.record_vmm import RecordVmm


class Domain:
    """A running domain whose record never follows a removal."""

    def __init__(self) -> None:
        self.owner = Owner("libvirt 12.8.0", definition=True)
        self.asynchronous = True
        self.asked: list[int] = []
        self.connection = SimpleNamespace(on_loss=lambda hear: None)

    async def call(self, *_words: object) -> tuple[str, int, int]:
        return "running", 11_001_003, 0

    async def record(self) -> DomainRecord:
        vcpus = {number: RecordedVcpu(enabled=True, removable=number > 0) for number in range(2)}
        name = "web1\x1b[2J"
        return DomainRecord(name, "uuid", 2, vcpus, channel=True, machine="pc-q35-11.1", arch="x86_64", accel="tcg")

    async def unplug(self, number: int, *, asynchronously: bool) -> None:
        assert asynchronously
        self.asked.append(number)


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
