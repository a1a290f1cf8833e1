# SPDX-License-Identifier: Apache-2.0
"""QEMU's slots beside libvirt's record: what it has missed it is told; what others do meanwhile is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest
from vcpu_host.core.model import HostView, Owner, Recorded, Slot
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import QemuError, QemuGoneError, VcpuctlError
from vcpu_host.libvirt import words
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
        self.plugged: list[int] = []
        #: How libvirt ends a plug, after or before QEMU has done it.
        self.plug_fails: QemuError | None = None
        #: How its monitor ends a question.
        self.blind: VcpuctlError | None = None
        #: Whether QEMU has the CPU; None: what the view of a look says.
        self.filled: bool | None = None
        #: What somebody else does right after the record was read, each time.
        self.meanwhile: list[Callable[[], None]] = []

    async def record(self) -> DomainRecord:
        try:
            return self._record()
        finally:
            if self.meanwhile:
                self.meanwhile.pop(0)()

    def _record(self) -> DomainRecord:
        vcpus = {0: RecordedVcpu(enabled=True, removable=False), 1: RecordedVcpu(self.enabled, removable=True)}
        return DomainRecord("web1", "uuid", 2, vcpus, channel=True)

    def plugs(self) -> None:
        """Somebody plugs the CPU by way of libvirt."""
        self.filled = self.enabled = True

    def unplugs(self) -> None:
        """Somebody removes it by way of libvirt."""
        self.filled = self.enabled = False

    async def call(self, command: str, arguments: object = None) -> Any:
        """QEMU's monitor."""
        del arguments
        if self.blind is not None:
            raise self.blind
        if command == "query-status":
            return {"status": "running"}
        if command == "query-migrate":
            return {}
        if command == "qom-list":
            return []
        paths = {0: "/machine/unattached/device[0]"}
        if self.filled:
            paths[1] = "/machine/peripheral/vcpu1"
        if command == "query-cpus-fast":
            return [{"cpu-index": at, "qom-path": path, "thread-id": 100 + at} for at, path in paths.items()]
        assert command == "query-hotpluggable-cpus"
        slots = [{"type": "cpu", "vcpus-count": 1, "props": {"socket-id": at}} for at in range(2)]
        return [{**slots[at], **({"qom-path": paths[at]} if at in paths else {})} for at in (1, 0)]

    async def plug(self, number: int) -> None:
        self.plugged.append(number)
        if self.plug_fails is not None:
            raise self.plug_fails

    async def unplug(self, number: int, *, asynchronously: bool, not_after: float | None = None) -> None:
        assert (asynchronously, not_after) == (True, None)
        self.asked.append(number)
        if len(self.asked) == self.hears:
            self.enabled = False
        elif len(self.asked) > 1:
            text = "internal error: qemu reported thread id for inactive vcpu '1'"
            raise QemuError(Reason("libvirt-error", Origin.LIBVIRT, text))


def machine(domain: Domain) -> LibvirtVmm:
    version = {"major": 11, "minor": 1, "micro": 3}
    monitor = SimpleNamespace(qemu_version=version, send=_sent, call=domain.call)
    return LibvirtVmm(cast("Any", domain), cast("Any", monitor), EventHub(LIBVIRTS))


def seen(slot: Slot) -> HostView:
    """QEMU's side as it was looked at."""
    return HostView((11, 1, 3), "pc-q35-11.1", "x86_64", "running", "tcg", (replace(FILLED, index=0), slot))


async def looked(domain: Domain, *slots: Slot) -> Slot:
    """The last of some looks after a removal was asked for, which find the slot as it says."""
    vmm = machine(domain)
    await vmm.unplug(FILLED)
    found = FILLED
    for slot in slots:
        domain.filled = slot.filled
        found = (await vmm._with_record(seen(slot))).slots[1]
    return found


async def _sent(*_words: object, not_after: float | None = None) -> None:
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


# --- others change the slots meanwhile --------------------------------------------------------------------------------


async def test_a_cpu_that_somebody_plugs_between_the_two_looks_is_no_record_that_is_behind() -> None:
    domain = Domain(hears=0)
    domain.enabled = False
    vmm = machine(domain)
    domain.plugs()  # since QEMU's slots were looked at
    view = await vmm._with_record(seen(EMPTY))
    slot = view.slots[1]
    assert (slot.filled, slot.recorded, slot.fixed, slot.device_id) == (True, Recorded.AGREES, None, "vcpu1")
    await vmm.mend(view)
    assert domain.asked == []


async def test_a_cpu_that_somebody_removes_between_the_two_looks_was_not_plugged_behind_libvirt() -> None:
    domain = Domain(hears=0)
    domain.unplugs()
    slot = (await machine(domain)._with_record(seen(FILLED))).slots[1]
    assert (slot.filled, slot.recorded, slot.fixed) == (False, Recorded.AGREES, None)


async def test_a_cpu_that_was_plugged_behind_libvirt_is_told() -> None:
    domain = Domain(hears=0)
    domain.filled, domain.enabled = True, False
    slot = (await machine(domain)._with_record(seen(FILLED))).slots[1]
    assert (slot.filled, slot.recorded) == (True, Recorded.BEHIND)


async def test_slots_that_never_hold_still_are_neither_behind_nor_free() -> None:
    class Restless(Domain):
        """Somebody plugs, or removes, before its record is read, and undoes that after."""

        async def record(self) -> DomainRecord:
            self.enabled = not self.filled
            self.filled = not self.filled
            return self._record()

    domain = Restless(hears=0)
    for last in (False, True):
        domain.filled = last
        slot = (await machine(domain)._with_record(seen(replace(FILLED, filled=last)))).slots[1]
        assert slot.recorded is not Recorded.BEHIND
        assert not slot.vacant


async def test_what_is_behind_is_mended_unless_somebody_has_plugged_a_cpu_there_since() -> None:
    domain = Domain(hears=1)
    domain.filled = False
    vmm = machine(domain)
    view = await vmm._with_record(seen(EMPTY))
    assert view.slots[1].recorded is Recorded.BEHIND
    domain.filled = True
    await vmm.mend(view)
    await vmm.plug(view.slots[1])
    assert (domain.asked, domain.plugged) == ([], [1]), "libvirt itself says that there is one"
    domain.filled = False
    await vmm.mend(view)
    assert domain.asked == [1]
    await vmm.mend(view)
    assert domain.asked == [1], "its record has followed"


async def test_a_cpu_that_comes_while_libvirt_is_to_be_told_of_a_removal_is_left_alone() -> None:
    domain = Domain(hears=2)
    vmm = machine(domain)
    await vmm.unplug(FILLED)
    domain.filled = False
    domain.meanwhile = [domain.plugs]  # the removal has ended, and somebody has plugged it anew
    slot = (await vmm._with_record(seen(EMPTY))).slots[1]
    assert domain.asked == [1], "our own request alone"
    assert (slot.filled, slot.recorded) == (True, Recorded.AGREES)


_CGROUP = Reason("libvirt-error", Origin.LIBVIRT, "Unable to write to '/sys/fs/cgroup/vcpu1/cpuset.cpus'")


async def test_a_plug_that_qemu_has_done_is_no_refusal_whatever_libvirt_fails_at_afterwards() -> None:
    domain = Domain(hears=0)
    vmm = machine(domain)
    domain.plug_fails = words.UnclearError(_CGROUP)
    domain.filled = True
    assert await vmm.plug(EMPTY) == "vcpu1"
    domain.filled = False
    with pytest.raises(QemuError, match="cgroup"):
        await vmm.plug(EMPTY)


async def test_a_refusal_of_qemu_itself_is_one_though_somebody_has_filled_the_slot() -> None:
    domain = Domain(hears=0)
    domain.plug_fails = QemuError(Reason("slot-occupied", Origin.QEMU, "it exists"))
    domain.filled = True
    with pytest.raises(QemuError, match="exists"):
        await machine(domain).plug(EMPTY)


@pytest.mark.parametrize("blind", [QemuError(_CGROUP), words.domain_off("the domain is not running")])
async def test_a_plug_at_which_libvirt_fails_is_not_known_to_anybody_if_qemu_cannot_be_looked_at(
    blind: VcpuctlError,
) -> None:
    domain = Domain(hears=0)
    domain.plug_fails, domain.blind = words.UnclearError(_CGROUP), blind
    with pytest.raises(QemuGoneError) as caught:
        await machine(domain).plug(EMPTY)
    assert caught.value.reason.code == blind.reason.code
