# SPDX-License-Identifier: Apache-2.0
"""What ``prepare`` leaves behind on a destination, and what it says of that, wherever it is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from kit.fakes.adapters import Dialer, Vm, Vmm
from kit.sim.views import host
from vcpu_host import ports
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.migration.compare import WAITING
from vcpu_host.core.migration.shape import Shape
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import QemuError, RefusedError
from vcpu_host.vm.coordinator import Coordinator
from vcpu_host.vm.migration_target import prepare

_REMOVAL = Intent(IntentKind.UNPLUG, 1, "vcpu-1", 5.0, (77,))


class _Full(ports.NoJournal):
    """A record on a full disk."""

    async def save(self, intents: Sequence[Intent]) -> None:
        del intents
        raise RefusedError(Reason("no-record", Origin.VCPUCTL, "No space left on device"))


def _source(*filled: int) -> Shape:
    return replace(Shape.of(host(4, {0, *filled})), pending=(_REMOVAL,))


@pytest.fixture(name="vmm")
def _vmm() -> Vmm:
    vmm = Vmm(Vm())
    vmm.status = WAITING
    return vmm


async def test_what_is_missing_is_plugged_and_what_is_pending_is_on_the_destinations_record(vmm: Vmm) -> None:
    journal = ports.NoJournal()
    prepared = await prepare(_source(1, 3), vmm, journal)
    assert (prepared.outcome, [place.index for place in prepared.plugged]) == (Outcome.DONE, [1, 3])
    (taken,) = await journal.load()
    there = (await vmm.look()).slots[1]
    assert (taken.slot, taken.threads) == (1, tuple(thread.thread_id for thread in there.threads))


async def test_nothing_is_plugged_where_a_plug_would_end_the_destination(vmm: Vmm) -> None:
    smp = {"sockets": 300, "cores": 1, "threads": 1}
    vmm.vm.total, vmm.facts = 300, {"topology": smp, "cpu_properties": {"x2apic": False}}
    source = Shape.of(host(300, {0, 2, 299})._replace(topology=smp))
    prepared = await prepare(source, vmm, ports.NoJournal())
    assert (prepared.outcome, vmm.vm.commands) == (Outcome.REFUSED, [])


async def test_a_plug_that_qemu_refuses_is_said_in_its_words_and_leaves_no_record(vmm: Vmm) -> None:
    vmm.vm.filled.add(1)
    vmm.add_error = QemuError(Reason("qemu-refused", Origin.QEMU, "no"))
    journal = ports.NoJournal()
    prepared = await prepare(_source(1, 3), vmm, journal)
    assert (prepared.outcome, prepared.plugged, prepared.reason) == (Outcome.REFUSED, (), vmm.add_error.reason)
    assert await journal.load() == ()


@pytest.mark.parametrize(("there", "outcome"), [({0}, Outcome.PARTIAL), ({0, 1, 3}, Outcome.REFUSED)])
async def test_a_record_that_cannot_be_written_is_said_beside_what_was_plugged(
    vmm: Vmm, there: set[int], outcome: Outcome
) -> None:
    vmm.vm.filled = there
    missing = [index for index in (1, 3) if index not in there]
    prepared = await prepare(_source(1, 3), vmm, _Full())
    assert (prepared.outcome, [place.index for place in prepared.plugged]) == (outcome, missing)
    assert prepared.reason is not None
    assert prepared.reason.code == "no-record"


async def test_what_was_handed_over_and_has_ended_at_the_source_is_told_by_check_and_struck_out_by_prepare(
    vmm: Vmm,
) -> None:
    journal = ports.NoJournal()
    whole = Coordinator(vmm, Dialer(vmm.vm), journal=journal)
    await whole.prepare(_source(1))
    assert await journal.load()
    settled = replace(_source(1), pending=())
    assert [d.finding.code for d in (await whole.compare(settled)).obstacles] == ["stale-record"]
    assert (await whole.prepare(settled)).outcome is Outcome.DONE
    assert await journal.load() == ()
    assert (await whole.compare(settled)).obstacles == ()
