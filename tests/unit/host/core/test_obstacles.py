# SPDX-License-Identifier: Apache-2.0
"""Slots that cannot be filled: known before anything is sent, and said in the plan and by doctor."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes.plans import codes, planned, steps
from fakes.views import INFO, guest, host, slot
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.model import HostView
from vcpu_host.core.platforms.x86 import apic_id
from vcpu_host.core.view import VmView, join

_LEVELS = ("socket", "die", "module", "core", "thread")


def _x86(*counts: int, x2apic: bool | None = False, shown: bool = True) -> HostView:
    """A machine of so many sockets, dies, modules, cores and threads; ``shown``: its -smp can be read (since 6.1)."""
    slots = []
    total = 1
    for count in counts:
        total *= count
    for index in range(total):
        rest, ids = index, {}
        for level, count in zip(reversed(_LEVELS), reversed(counts), strict=True):
            rest, number = divmod(rest, count)
            if count > 1 or level not in ("die", "module"):
                ids[f"{level}-id"] = number
        slots.append(slot(index, filled=index == 0, boot=index == 0, props=ids))
    names = ("sockets", "dies", "modules", "cores", "threads")
    smp = {"cpus": 1, "maxcpus": total, **dict(zip(names, counts, strict=True))}
    return replace(
        host(total, slots=tuple(slots)),
        topology=smp if shown else {},
        cpu_properties={} if x2apic is None else {"x2apic": x2apic},
    )


def _seen(view: HostView) -> VmView:
    return join(view, guest(view, {s.index for s in view.slots if s.filled}), agent=INFO)


def _found(view: VmView) -> dict[str, Finding]:
    return {finding.code: finding for finding in diagnose(view)}


@pytest.mark.parametrize(
    ("counts", "index", "number"),
    [
        # Counted by the rules of include/hw/i386/topology.h: each level has as many bits as its count needs.
        ((1, 1, 1, 16, 1), 15, 15),
        ((2, 1, 1, 3, 1), 3, 4),
        ((2, 1, 1, 3, 1), 5, 6),
        ((1, 1, 1, 3, 3), 8, 10),
        ((2, 2, 2, 3, 2), 47, 61),
        ((2, 3, 1, 1, 1), 3, 4),
        ((300, 1, 1, 1, 1), 299, 299),
        ((20, 1, 1, 10, 1), 199, 313),
    ],
)
@pytest.mark.parametrize("shown", [True, False])
def test_an_apic_id_is_made_of_levels_that_are_padded_to_powers_of_two(
    counts: tuple[int, ...], index: int, number: int, shown: bool
) -> None:
    view = _x86(*counts, shown=shown)
    assert apic_id(view, view.slots[index]) == number


def test_a_slot_without_a_socket_has_no_apic_id_that_could_be_told() -> None:
    view = host(2, slots=(slot(0, boot=True, props={"core-id": 0}), slot(1, filled=False, props={"core-id": 1})))
    assert apic_id(view, view.slots[1]) is None


def test_a_slot_that_the_cpu_model_cannot_address_is_refused_by_name_with_its_remedy() -> None:
    decided = planned(_seen(_x86(20, 1, 1, 10, 1)), "plug", None, "159", "160")
    assert codes(decided) == ["apic-id-too-large"]
    (refusal,) = decided.refusals
    assert refusal.slot == 160
    assert "APIC id 256" in refusal.reason.text
    assert "+x2apic" in refusal.reason.hint


def test_a_number_of_vcpus_skips_slots_that_the_cpu_model_cannot_address() -> None:
    view = _x86(256, 1, 1, 1, 1)
    full = tuple(replace(s, qom_path=f"/machine/peripheral/vcpu-{s.index}") for s in view.slots[1:254])
    seen = _seen(replace(view, slots=(view.slots[0], *full, *view.slots[254:])))
    assert steps(planned(seen, "plug", 1)) == [("plug", 254)]
    for operation, count in (("plug", 2), ("scale", 256)):
        decided = planned(seen, operation, count)
        assert codes(decided) == ["not-enough"]
        assert "only 1 is left; one empty slot cannot be filled: slot 255 would have" in decided.refusals[0].reason.text
        assert "+x2apic" in decided.refusals[0].reason.hint


def test_where_no_slot_is_left_that_can_be_addressed_that_is_the_reason() -> None:
    view = _x86(2, 1, 1, 200, 1)
    full = tuple(replace(s, qom_path=f"/machine/peripheral/vcpu-{s.index}") for s in view.slots[1:200])
    seen = _seen(replace(view, slots=(view.slots[0], *full, *view.slots[200:])))
    assert codes(planned(seen, "plug", 1)) == ["apic-id-too-large"]


@pytest.mark.parametrize("x2apic", [True, None])
def test_nothing_is_refused_where_the_cpu_model_has_x2apic_or_does_not_say(x2apic: bool | None) -> None:
    seen = _seen(_x86(300, 1, 1, 1, 1, x2apic=x2apic))
    assert steps(planned(seen, "plug", None, "299")) == [("plug", 299)]
    assert "apic-id-too-large" not in _found(seen)


def test_doctor_says_beforehand_which_slots_cannot_be_addressed() -> None:
    finding = _found(_seen(_x86(300, 1, 1, 1, 1)))["apic-id-too-large"]
    assert finding.level is Level.PROBLEM
    assert finding.text.startswith("45 empty slots cannot be filled (255, 256, 257, ")
    assert "x2APIC" in finding.text
    assert "+x2apic" in finding.fix
    assert "apic-id-too-large" not in _found(_seen(_x86(255, 1, 1, 1, 1)))
