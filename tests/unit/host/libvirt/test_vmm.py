# SPDX-License-Identifier: Apache-2.0
"""A removal that libvirt does not hear of by itself: it is told once more, and its record then says how it stands."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

from vcpu_host.core.model import HostView, Owner, Recorded, Slot
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import QemuError
from vcpu_host.libvirt.domain_xml import DomainRecord, RecordedVcpu
from vcpu_host.libvirt.vmm import LibvirtVmm
from vcpu_host.qmp.events import EventHub
from vcpu_host.qmp.names import LIBVIRTS

FILLED = Slot(1, "cpu", MappingProxyType({}), 1, filled=True)
EMPTY = replace(FILLED, filled=False)


class Domain:
    """libvirt's record of one vCPU beside the first; ``hears``: asked so often to remove it, it has it (0: never)."""

    owner = Owner("libvirt 12.8.0", True)

    def __init__(self, *, hears: int, asynchronous: bool = True) -> None:
        self.hears, self.asynchronous = hears, asynchronous
        self.enabled = True
        self.asked: list[int] = []

    async def record(self) -> DomainRecord:
        vcpus = {1: RecordedVcpu(enabled=self.enabled, removable=True)}
        return DomainRecord("web1", "uuid", 2, vcpus, channel=True)

    async def unplug(self, number: int, *, asynchronously: bool) -> None:
        assert asynchronously
        self.asked.append(number)
        if len(self.asked) == self.hears:
            self.enabled = False
        elif len(self.asked) > 1:
            text = "internal error: qemu reported thread id for inactive vcpu '1'"
            raise QemuError(Reason("libvirt-error", Origin.LIBVIRT, text))


async def looked(domain: Domain, *slots: Slot) -> Slot:
    """The last of some looks after a removal was asked for, which find the slot as it says."""
    version = {"major": 11, "minor": 1, "micro": 3}
    monitor = SimpleNamespace(qemu_version=version, send=_sent)
    vmm = LibvirtVmm(cast("Any", domain), cast("Any", monitor), EventHub(LIBVIRTS))
    await vmm.unplug(FILLED)
    found = FILLED
    for slot in slots:
        slots_now = (replace(FILLED, index=0), slot)
        view = HostView((11, 1, 3), "pc-q35-11.1", "x86_64", "running", "tcg", slots_now)
        found = (await vmm._with_record(view)).slots[1]
    return found


async def _sent(*_words: object) -> None:
    pass


async def test_libvirt_is_told_of_an_empty_slot_at_the_first_look_that_finds_it() -> None:
    domain = Domain(hears=2)
    slot = await looked(domain, FILLED, EMPTY)
    assert domain.asked == [1, 1]
    assert slot == EMPTY


async def test_it_is_told_again_while_it_finds_the_removal_half_done() -> None:
    domain = Domain(hears=4)
    slot = await looked(domain, EMPTY, EMPTY, EMPTY)
    assert domain.asked == [1, 1, 1, 1]
    assert slot == EMPTY


async def test_what_libvirt_does_not_take_stays_on_its_record() -> None:
    slot = await looked(Domain(hears=0), EMPTY, EMPTY)
    assert slot.recorded is not Recorded.AGREES


async def test_a_record_that_has_followed_by_itself_is_left_alone() -> None:
    domain = Domain(hears=2)
    domain.enabled = False
    assert await looked(domain, EMPTY) == EMPTY
    assert domain.asked == [1]


async def test_an_older_libvirt_is_not_asked_what_would_hold_up_everybody() -> None:
    domain = Domain(hears=2, asynchronous=False)
    slot = await looked(domain, EMPTY, EMPTY)
    assert domain.asked == []
    assert slot.recorded is not Recorded.AGREES
