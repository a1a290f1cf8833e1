# SPDX-License-Identifier: Apache-2.0
"""Slots that cannot be filled: known before anything is sent, and said in the plan and by doctor."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kit.sim.plans import codes, planned, steps
from kit.sim.views import INFO, guest, host, slot
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.model import HostThread, HostView, Ost, PropValue, Slot
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.platforms.x86 import apic_id
from vcpu_host.core.view import VmView, join

_WIDE = {"intremap": "on", "eim": "on"}
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
    return host(total, slots=tuple(slots))._replace(
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


def _plugged(empty: Slot) -> Slot:
    name = empty.default_id
    return replace(empty, filled=True, device_id=name, path=f"/machine/peripheral/{name}", managed=True)


def test_a_number_of_vcpus_skips_slots_that_the_cpu_model_cannot_address() -> None:
    view = _x86(256, 1, 1, 1, 1)
    full = tuple(map(_plugged, view.slots[1:254]))
    seen = _seen(view._replace(slots=(view.slots[0], *full, *view.slots[254:])))
    assert steps(planned(seen, "plug", 1)) == [("plug", 254)]
    for operation, count in (("plug", 2), ("scale", 256)):
        decided = planned(seen, operation, count)
        assert codes(decided) == ["not-enough"]
        assert "only 1 is left; one empty slot cannot be filled: slot 255 would have" in decided.refusals[0].reason.text
        assert "+x2apic" in decided.refusals[0].reason.hint


def test_where_no_slot_is_left_that_can_be_addressed_that_is_the_reason() -> None:
    view = _x86(2, 1, 1, 200, 1)
    full = tuple(map(_plugged, view.slots[1:200]))
    seen = _seen(view._replace(slots=(view.slots[0], *full, *view.slots[200:])))
    assert codes(planned(seen, "plug", 1)) == ["apic-id-too-large"]


@pytest.mark.parametrize("x2apic", [True, None])
def test_nothing_is_refused_where_the_cpu_model_has_x2apic_or_does_not_say(x2apic: bool | None) -> None:
    seen = _seen(_x86(300, 1, 1, 1, 1, x2apic=x2apic)._replace(iommu=_WIDE))
    assert steps(planned(seen, "plug", None, "299")) == [("plug", 299)]
    assert "apic-id-too-large" not in _found(seen)


def test_doctor_says_beforehand_which_slots_cannot_be_addressed() -> None:
    finding = _found(_seen(_x86(300, 1, 1, 1, 1)))["apic-id-too-large"]
    assert finding.level is Level.PROBLEM
    assert finding.text.startswith("45 empty slots cannot be filled (255, 256, 257, ")
    assert "x2APIC" in finding.text
    assert "+x2apic" in finding.fix
    assert "apic-id-too-large" not in _found(_seen(_x86(255, 1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("accel", "model", "iommu", "first"),
    [
        ("tcg", {}, {}, 255),
        ("tcg", {}, {"intremap": "off", "eim": "on"}, 255),
        ("tcg", {}, {"intremap": "on", "eim": "off"}, 255),
        ("tcg", {}, {"intremap": "on", "xtsup": False}, 255),
        ("kvm", {}, {}, 256),
        ("kvm", {"kvm-msi-ext-dest-id": False}, {}, 256),
        ("kvm", {"kvm": False}, {}, 255),
        ("tcg", {}, _WIDE, None),
        ("tcg", {}, {"intremap": "on", "xtsup": True}, None),
        ("kvm", {"kvm-msi-ext-dest-id": True}, {}, None),
        ("xen", {}, {}, None),
    ],
)
def test_cpus_with_wide_apic_ids_are_left_out_where_nothing_remaps_their_interrupts(
    accel: str, model: dict[str, bool], iommu: dict[str, PropValue], first: int | None
) -> None:
    view = _x86(260, 1, 1, 1, 1, x2apic=True)
    view = view._replace(accel=accel, cpu_properties={"x2apic": True, **model}, iommu=iommu)
    seen = _seen(view)
    finding = _found(seen).get("apic-id-not-remapped")
    names = [str(index) for index in range(255, 260)]
    if first is None:
        assert finding is None
        assert steps(planned(seen, "plug", None, *names))
        return
    assert finding is not None
    assert finding.level is Level.PROBLEM
    assert f"({', '.join(str(index) for index in range(first, 260))})" in finding.text
    assert "intel-iommu,intremap=on,eim=on" in finding.fix
    assert codes(planned(seen, "plug", None, *names)) == ["apic-id-not-remapped"] * (260 - first)
    decided = planned(seen, "plug", 259)
    assert codes(decided) == ["not-enough"]
    assert f"only {first - 1} are left" in decided.refusals[0].reason.text
    blind = plan(join(view, None), Request(Operation.PLUG, None, ("259",), without_agent=True))
    assert steps(blind) == [("plug", 259)]  # who knows what guest that is


# --- vCPUs without a CPU ----------------------------------------------------------------------------------------------


def test_a_vcpu_that_a_failed_plug_has_left_is_no_removal_that_hangs_and_its_slot_is_let_be() -> None:
    view = host(4, {0, 1})
    phantom = replace(view.slots[2], phantoms=(HostThread(2, 9077, ""),))
    seen = _seen(view._replace(slots=(*view.slots[:2], phantom, view.slots[3])))
    assert [str(s.state) for s in seen.slots] == ["online", "online", "empty", "empty"]
    assert phantom.vacant
    assert steps(planned(seen, "plug", 1)) == [("plug", 3)]
    assert steps(planned(seen, "unplug", None, "2")) == []
    decided = planned(seen, "plug", None, "2")
    assert codes(decided) == ["phantom-vcpu"]
    assert "cpu-index 2" in decided.refusals[0].reason.text
    assert "removal" not in decided.refusals[0].reason.text
    finding = _found(seen)["phantom-vcpu"]
    assert finding.level is Level.PROBLEM
    assert "removal-stuck" not in _found(seen)


# --- ids are one name space -------------------------------------------------------------------------------------------


def _with_devices(view: HostView, **devices: str) -> VmView:
    named = {name.replace("_", "-"): kind for name, kind in devices.items()}
    return _seen(view._replace(devices={**view.devices, **named}))


def test_a_number_of_vcpus_goes_past_a_slot_whose_id_another_device_has() -> None:
    seen = _with_devices(host(4), vcpu_1="virtio-rng-pci", other="virtio-net-pci")
    assert steps(planned(seen, "plug", 2)) == [("plug", 2), ("plug", 3)]
    assert steps(planned(seen, "scale", 3)) == [("plug", 2), ("plug", 3)]


def test_a_slot_whose_id_another_device_has_is_refused_with_what_has_it() -> None:
    seen = _with_devices(host(2), vcpu_1="virtio-rng-pci")
    for decided in (planned(seen, "plug", None, "1"), planned(seen, "plug", 1), planned(seen, "scale", 2)):
        assert codes(decided) == ["id-taken"]
        assert "a device of type virtio-rng-pci has it" in decided.refusals[0].reason.text
    decided = planned(_with_devices(host(3), vcpu_1="virtio-rng-pci"), "plug", 2)
    assert codes(decided) == ["not-enough"]
    assert "slot 1 cannot have its id 'vcpu-1'" in decided.refusals[0].reason.text


def test_a_cpu_that_has_the_id_of_another_slot_is_named_by_its_own() -> None:
    view = host(
        4, slots=(slot(0, boot=True), slot(1, filled=False), slot(2, device_id="vcpu-1"), slot(3, filled=False))
    )
    decided = planned(_seen(view), "plug", None, "1")
    assert codes(decided) == ["id-taken"]
    assert "the CPU in slot 2 has it" in decided.refusals[0].reason.text
    assert steps(planned(_seen(view), "plug", 1)) == [("plug", 3)]


def test_a_filled_slots_own_id_is_no_obstacle() -> None:
    assert steps(planned(_seen(host(4, {0, 1, 2})), "plug", 1)) == [("plug", 3)]
    assert steps(planned(_with_devices(host(4, {0, 2}), vcpu_2="qemu64-x86_64-cpu"), "unplug", None, "2")) == [
        ("unplug", 2)
    ]


def test_doctor_warns_of_ids_that_are_taken() -> None:
    finding = _found(_with_devices(host(4), vcpu_1="virtio-rng-pci"))["id-taken"]
    assert finding.level is Level.WARNING
    assert finding.text.startswith("slot 1 cannot be filled")


# --- what QEMU does not survive under TCG -----------------------------------------------------------------------------

_REPLUG = (7, 2, 22)


def _tcg(total: int, filled: set[int], *, smp: int, version: tuple[int, int, int] = (10, 0, 13)) -> HostView:
    """A machine whose first ``smp`` slots had CPUs at its start."""
    view = host(total, filled, boot=set(range(smp)), accel="tcg", version=version)
    return view._replace(topology={"cpus": smp, "maxcpus": total})


@pytest.mark.parametrize("blind", [False, True])
def test_under_tcg_no_plug_is_sent_for_which_every_context_was_used(blind: bool) -> None:
    """Four CPUs at start, one of them unplugged: whatever is plugged now is the fifth of four (tcg_register_thread)."""
    view = _seen(_tcg(4, {0, 1, 2}, smp=4))
    for request in (
        Request(Operation.PLUG, 1, without_agent=blind),
        Request(Operation.PLUG, None, ("3",), without_agent=blind),
        *([] if blind else [Request(Operation.SCALE, 4)]),
    ):
        decided = plan(view, request)
        assert codes(decided) == ["tcg-plug-budget"]
        assert "cannot plug 1 vCPU, none at most" in decided.refusals[0].reason.text
    assert _found(view)["tcg-plug-budget"].level is Level.PROBLEM


def test_under_tcg_what_is_left_of_the_contexts_can_be_plugged_and_no_more() -> None:
    view = _seen(_tcg(6, {0, 4}, smp=3))  # three at start, of which two have gone; one came
    assert steps(planned(view, "plug", 2)) == [("plug", 1), ("plug", 2)]
    decided = planned(view, "plug", 3)
    assert codes(decided) == ["tcg-plug-budget"]
    assert "cannot plug 3 vCPUs, 2 at most" in decided.refusals[0].reason.text
    assert _found(view)["tcg-plug-budget"].level is Level.WARNING


def test_a_budget_is_no_matter_under_kvm_with_one_thread_for_all_or_where_the_start_is_not_known() -> None:
    view = _tcg(4, {0, 1, 2}, smp=4)
    shared = tuple(replace(s, threads=tuple(thread._replace(thread_id=77) for thread in s.threads)) for s in view.slots)
    for other in (view._replace(accel="kvm"), view._replace(topology={}), view._replace(slots=shared)):
        assert steps(planned(_seen(other), "plug", 1)) == [("plug", 3)]


def test_no_cpu_is_plugged_again_for_which_no_context_is_left() -> None:
    """What the guest never noticed would be taken out and plugged again: one more start."""
    for smp, again in ((1, True), (3, False)):
        view = _tcg(3, {0, 2}, smp=1)
        view = view._replace(topology={"cpus": smp, "maxcpus": 3})
        (step,) = planned(join(view, guest(view, {0}), agent=INFO), "scale", 2).steps
        assert (str(step.kind), step.replaceable) == ("online", again)


@pytest.mark.parametrize("left_by", ["a CPU of -smp", "an ejection"])
def test_before_10_0_no_plug_is_sent_under_tcg_after_an_unplug(left_by: str) -> None:
    if left_by == "an ejection":
        view = _tcg(16, {0}, smp=1, version=_REPLUG)._replace(ost={5: Ost(3, 0)})
    else:
        view = _tcg(16, {0}, smp=2, version=_REPLUG)
    seen = _seen(view)
    decided = planned(seen, "plug", 1)
    assert codes(decided) == ["tcg-replug"]
    assert "dies on the first device_add after an unplug" in decided.refusals[0].reason.text
    assert _found(seen)["tcg-replug"].level is Level.PROBLEM
    assert steps(planned(_seen(view._replace(qemu_version=(10, 0, 13))), "plug", 1)) == [("plug", 1)]


@pytest.mark.parametrize("ost", [Ost(1, 0), Ost(3, 0x82), Ost(3, 0x84)])
def test_before_10_0_a_plug_is_sent_under_tcg_where_nothing_was_unplugged(ost: Ost) -> None:
    seen = _seen(_tcg(16, {0, 5}, smp=1, version=_REPLUG)._replace(ost={5: ost, 0: Ost(3, 0)}))
    assert steps(planned(seen, "plug", 1)) == [("plug", 1)]
    assert _found(seen)["tcg-replug"].level is Level.WARNING
