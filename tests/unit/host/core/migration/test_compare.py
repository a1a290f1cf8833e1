# SPDX-License-Identifier: Apache-2.0
"""What a migration would meet is told before: each difference by its slot, and none where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.views import host, slot
from vcpu_host.core.finding import Level
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.migration.compare import WAITING, compare, take_over
from vcpu_host.core.migration.shape import Shape
from vcpu_host.core.model import HostView, Slot, freeze_props

_SMP = {"cpus": 1, "maxcpus": 4, "sockets": 4, "cores": 1, "threads": 1}


def _source(*filled: int) -> Shape:
    return Shape.of(host(4, {0, *filled})._replace(topology=_SMP))


def _of(view: HostView) -> Shape:
    """The shape of such a VM while it runs."""
    return Shape.of(view._replace(status="running"))


def _waiting(*filled: int, **changes: object) -> HostView:
    view = host(4, {0, *filled}, status=WAITING)._replace(topology=_SMP)
    return view._replace(**changes)  # type: ignore[arg-type]


def _codes(source: Shape, destination: HostView) -> list[tuple[str, int | None]]:
    return [(d.finding.code, d.slot) for d in compare(source, destination, source.queues).obstacles]


@pytest.mark.parametrize(("mine", "its"), [((4,), (2,)), ((4, 4), (4,)), ((4,), ())])
def test_disks_with_other_numbers_of_queues_are_an_obstacle_that_prepare_cannot_mend(
    mine: tuple[int, ...], its: tuple[int, ...]
) -> None:
    disk = "virtio-blk-device.num-queues"
    source = replace(_source(1), queues={disk: mine})
    assert compare(source, _waiting(1), {disk: mine}).differences == ()
    (found,) = compare(source, _waiting(1), {disk: its} if its else {}).incurable
    assert found.finding.code == "queues"
    assert disk in found.finding.text


def test_a_cpu_that_the_destination_cannot_have_is_an_obstacle_that_prepare_leaves_alone() -> None:
    """Promise 9 holds there, too: such a device_add ends QEMU."""
    smp = {"cpus": 1, "maxcpus": 300, "sockets": 300, "cores": 1, "threads": 1}
    source = Shape.of(host(300, {0, 2, 299})._replace(topology=smp))
    there = host(300, {0}, status=WAITING)._replace(topology=smp, cpu_properties={"x2apic": False})
    result = compare(source, there, {})
    assert [(d.finding.code, d.slot) for d in result.incurable] == [("apic-id-too-large", 299)]
    assert "+x2apic" in result.incurable[0].finding.fix
    for able in ({"x2apic": True}, {}):  # what it does not say is not held against it
        assert compare(source, there._replace(cpu_properties=able), {}).incurable == ()


def test_an_id_that_another_device_has_on_the_destination_is_an_obstacle() -> None:
    source = Shape.of(host(4, slots=(slot(0, boot=True), slot(1, device_id="mine"), slot(2), slot(3, filled=False))))
    there = host(4, status=WAITING)._replace(devices={"mine": "virtio-rng-pci", "vcpu-1": "virtio-rng-pci"})
    assert [(d.finding.code, d.slot) for d in compare(source, there, {}).incurable] == [("id-taken", 1)]


def test_more_cpus_than_the_destination_survives_are_an_obstacle() -> None:
    """A destination under TCG that had more CPUs at its start than are left has used up contexts for them."""
    there = _waiting(1)._replace(accel="tcg", topology={**_SMP, "cpus": 4})
    source = replace(_source(1, 2, 3), accel="tcg", topology={**_SMP, "cpus": 4})
    result = compare(source, there, {})
    assert [d.finding.code for d in result.incurable] == ["tcg-plug-budget"]
    assert compare(source, there._replace(accel="kvm"), {}).incurable == ()


def test_two_equal_sides_have_nothing_between_them() -> None:
    assert compare(_source(1, 3), _waiting(1, 3), {}).differences == ()


def test_a_cpu_that_is_missing_is_named_with_its_slot_and_can_be_cured() -> None:
    result = compare(_source(1, 3), _waiting(1), {})
    assert [(d.finding.code, d.slot, d.curable) for d in result.obstacles] == [("cpu-missing", 3, True)]
    assert [place.index for place in result.missing] == [3]
    assert "vcpu-3" in result.obstacles[0].finding.fix
    assert result.incurable == ()


def test_a_cpu_too_many_is_named_with_its_slot_and_cannot_be_cured() -> None:
    result = compare(_source(1), _waiting(1, 2), {})
    assert [(d.finding.code, d.slot) for d in result.incurable] == [("cpu-too-many", 2)]
    assert result.missing == ()


def _another_type(view: HostView) -> HostView:
    odd = replace(view.slots[2], type="max-x86_64-cpu")
    return view._replace(slots=(*view.slots[:2], odd, view.slots[3]))


def _another_node(view: HostView) -> HostView:
    odd = replace(view.slots[2], props=freeze_props({**view.slots[2].props, "node-id": 1}))
    return view._replace(slots=(*view.slots[:2], odd, view.slots[3]))


@pytest.mark.parametrize(
    ("change", "code", "slot_index"),
    [
        (lambda view: view._replace(machine="pc-q35-9.0"), "machine-type", None),
        (lambda view: view._replace(arch="ppc64"), "arch", None),
        (lambda view: view._replace(topology={**_SMP, "sockets": 2, "cores": 2}), "topology", None),
        (lambda view: view._replace(slots=view.slots[:3]), "slots", None),
        (_another_type, "cpu-type", 2),
        (_another_node, "slot-props", 2),
        (lambda view: view._replace(status="running"), "not-incoming", None),
        (lambda view: view._replace(migration="active"), "migrating", None),
    ],
)
def test_what_cannot_be_mended_there_is_an_obstacle_and_says_both_sides(
    change: Callable[[HostView], HostView], code: str, slot_index: int | None
) -> None:
    result = compare(_source(1), change(_waiting(1)), {})
    assert (code, slot_index) in [(d.finding.code, d.slot) for d in result.incurable]
    mine = next(d for d in result.incurable if d.finding.code == code)
    assert mine.source != mine.destination
    assert mine.finding.fix


@pytest.mark.parametrize("status", ["", "none", "setup"])
def test_a_qemu_that_listens_for_its_vm_already_still_waits_for_it(status: str) -> None:
    assert compare(_source(1), _waiting(1, migration=status), {}).differences == ()


@pytest.mark.parametrize("status", ["active", "failed", "completed", "of-tomorrow"])
def test_a_qemu_whose_vm_has_begun_to_arrive_gets_nothing_more(status: str) -> None:
    result = compare(_source(1, 2), _waiting(1, migration=status), {})
    assert [d.finding.code for d in result.incurable] == ["migrating"]


def test_slots_of_machines_that_are_built_differently_are_not_compared_one_by_one() -> None:
    destination = _waiting(1, topology={**_SMP, "sockets": 2, "cores": 2})
    assert {slot_index for _, slot_index in _codes(_source(3), destination)} == {None}
    assert compare(_source(3), destination, {}).missing == ()


def test_a_level_of_one_is_the_same_as_a_level_that_is_not_shown() -> None:
    assert _codes(_source(1), _waiting(1, topology={**_SMP, "modules": 1, "dies": 1})) == []


@pytest.mark.parametrize(
    ("changes", "code", "level"),
    [
        ({"accel": "tcg"}, "accelerator", Level.WARNING),
        ({"qemu_version": (7, 2, 0)}, "older-qemu", Level.NOTE),
    ],
)
def test_what_may_go_well_is_said_and_is_no_obstacle(changes: dict[str, object], code: str, level: Level) -> None:
    result = compare(_source(1), _waiting(1, **changes), {})
    assert [(d.finding.code, d.finding.level) for d in result.differences] == [(code, level)]
    assert result.obstacles == ()


def test_a_qemu_that_does_not_show_its_smp_is_said_and_its_levels_are_not_made_up() -> None:
    untold = _waiting(1, topology={})
    for here, there in ((_source(1), untold), (_of(untold), _waiting(1))):
        result = compare(here, there, {})
        assert [(d.finding.code, d.finding.level) for d in result.differences] == [("topology", Level.WARNING)]
    assert compare(_source(1, 2), untold, {}).missing, "slots are compared all the same"


@pytest.mark.parametrize("changes", [{"status": "postmigrate"}, {"migration": "active"}])
def test_a_vm_that_is_not_at_the_source_any_more_cannot_go_from_there(changes: dict[str, str]) -> None:
    source = Shape.of(host(4, {0, 1})._replace(topology=_SMP, **changes))  # type: ignore[arg-type]
    assert [d.finding.code for d in compare(source, _waiting(1), {}).incurable] == ["migrating"]


def test_two_vms_of_different_names_are_a_warning() -> None:
    source = replace(_source(1), vm_name="web1")
    (found,) = compare(source, _waiting(1, vm_name="web2"), {}).differences
    assert (found.finding.code, found.finding.level) == ("vm-name", Level.WARNING)
    assert compare(source, _waiting(1, vm_name="web1"), {}).differences == ()
    assert compare(source, _waiting(1), {}).differences == ()


def test_another_id_is_a_note_since_slots_are_what_counts() -> None:
    destination = _waiting(1)._replace(slots=(slot(0, boot=True), slot(1, boot=True), *_waiting().slots[2:]))
    result = compare(_source(1), destination, {})
    assert [(d.finding.code, d.slot, d.finding.level) for d in result.differences] == [("device-id", 1, Level.NOTE)]


def test_a_boot_cpu_that_export_made_a_device_is_no_difference() -> None:
    source = Shape.of(host(4, {0, 1}, boot={0, 1})._replace(topology=_SMP))
    assert compare(source, _waiting(1), {}).differences == ()


def _s390x(*others: str, type_: str = "qemu-s390x-cpu") -> HostView:
    """Two cores; ``others`` are further levels of which each is number 0."""
    slots = tuple(slot(n, boot=True, type_=type_, props={"core-id": n, **dict.fromkeys(others, 0)}) for n in range(2))
    return host(2, slots=slots, status=WAITING)._replace(topology=_SMP)


def test_levels_that_only_one_of_two_qemus_shows_make_no_other_slot_of_it() -> None:
    old, new = _s390x(), _s390x("socket-id", "book-id", "drawer-id")
    assert compare(_of(old), new, {}).differences == ()
    assert compare(_of(new), old, {}).differences == ()


def test_a_node_that_only_one_side_has_is_a_difference() -> None:
    with_nodes, without = _s390x("node-id"), _s390x()
    for here, there in ((with_nodes, without), (without, with_nodes)):
        assert {code for code, _ in _codes(_of(here), there)} == {"slot-props"}


def test_a_type_that_one_qemu_does_not_show_is_no_other_type() -> None:
    untold, told = _s390x(type_=""), _s390x()
    assert compare(_of(untold), told, {}).differences == ()
    assert compare(_of(told), untold, {}).differences == ()


def _pseries(*filled: Slot, ic_mode: str = "dual", accel: str = "tcg") -> HostView:
    """Cores of one thread; what ``filled`` does not name is empty."""
    there = {each.index: each for each in filled}
    slots = tuple(there.get(n, slot(n, filled=False, props={"core-id": n})) for n in range(4))
    view = host(4, slots=slots, status=WAITING, accel=accel)._replace(topology=_SMP)
    return view._replace(arch="ppc64", machine="pseries-11.1", properties={"ic-mode": ic_mode})


def _core(index: int, made: int, *, boot: bool = False) -> Slot:
    return slot(index, boot=boot, fills=made, props={"core-id": index})


def test_where_qemu_numbers_cpus_as_they_come_another_order_is_an_obstacle() -> None:
    boot = _core(0, 0, boot=True)
    here, same = _pseries(boot, _core(2, 1), _core(1, 2)), _pseries(boot, _core(2, 3), _core(1, 4))
    assert _codes(_of(here), same) == []
    assert [d.finding.code for d in compare(_of(here), same, {}).differences] == ["cpu-numbers"]
    assert _codes(_of(here), _pseries(boot, _core(2, 4), _core(1, 3))) == [("cpu-order", None)]


def test_what_is_missing_is_plugged_only_if_the_order_comes_out_right() -> None:
    boot = _core(0, 0, boot=True)
    here = _of(_pseries(boot, _core(2, 1), _core(1, 2)))
    first, second = _pseries(boot, _core(2, 1)), _pseries(boot, _core(1, 1))
    assert compare(here, first, {}).incurable == ()
    assert [d.finding.code for d in compare(here, second, {}).incurable] == ["cpu-order"]
    assert [place.index for place in compare(here, _pseries(boot), {}).missing] == [2, 1]


def _with_xics(accel: str) -> tuple[HostView, HostView]:
    """The same cores, which came in another order."""
    boot = _core(0, 0, boot=True)
    orders = ([_core(2, 1), _core(1, 2)], [_core(1, 1), _core(2, 2)])
    here, there = (_pseries(boot, *cores, ic_mode="xics", accel=accel) for cores in orders)
    return here, there


def test_with_xics_the_order_does_not_matter_under_tcg() -> None:
    here, there = _with_xics("tcg")
    assert "cpu-order" not in {difference.finding.code for difference in compare(_of(here), there, {}).differences}


def test_under_kvm_the_order_matters_whatever_the_interrupt_controller_is() -> None:
    here, there = _with_xics("kvm")
    found = {difference.finding.code for difference in compare(_of(here), there, {}).differences}
    assert {"cpu-order", "cpu-numbers"} <= found


def test_what_is_pending_is_a_warning_with_its_slot() -> None:
    source = replace(_source(1), pending=(Intent(IntentKind.UNPLUG, 1, "vcpu-1", 1.0),))
    result = compare(source, _waiting(1), {})
    assert [(d.finding.code, d.slot, d.finding.level) for d in result.differences] == [("pending", 1, Level.WARNING)]
    assert "migrate prepare" in result.differences[0].finding.fix, "nothing else hands it over"


@given(st.sets(st.integers(1, 3)), st.sets(st.integers(1, 3)))
def test_the_obstacles_are_just_the_slots_that_differ_and_what_is_missing_is_what_prepare_plugs(
    here: set[int], there: set[int]
) -> None:
    result = compare(_source(*here), _waiting(*there), {})
    assert {d.slot for d in result.obstacles} == here ^ there
    assert {place.index for place in result.missing} == here - there
    cured = compare(_source(*here), _waiting(*(here | there)), {})
    assert {d.slot for d in cured.obstacles} == there - here


def test_what_is_pending_is_taken_over_under_the_names_that_it_has_there() -> None:
    removal = Intent(IntentKind.UNPLUG, 1, "/machine/unattached/device[4]", 5.0, (77,))
    gone = Intent(IntentKind.UNPLUG, 2, "vcpu-2", 5.0, (78,))
    destination = _waiting(1)
    (taken,) = take_over([removal, gone], destination)
    assert (taken.slot, taken.device_id, taken.since) == (1, "vcpu-1", 5.0)
    assert taken.threads == tuple(thread.thread_id for thread in destination.slots[1].threads)


def test_a_record_there_that_the_source_does_not_know_any_more_is_an_obstacle_that_prepare_mends() -> None:
    removal = Intent(IntentKind.UNPLUG, 1, "vcpu-1", 5.0, (77,))
    destination = _waiting(1)
    handed = take_over([removal], destination)
    (stale,) = compare(_source(1), destination, {}, handed).obstacles
    assert (stale.finding.code, stale.slot, stale.curable) == ("stale-record", 1, True)
    other_way = replace(_source(1), pending=(Intent(IntentKind.PLUG, 1, "vcpu-1", 6.0),))
    assert [d.finding.code for d in compare(other_way, destination, {}, handed).obstacles] == ["stale-record"]
    (known,) = compare(replace(_source(1), pending=(removal,)), destination, {}, handed).differences
    assert known.finding.code == "pending"
    assert "prepare" not in known.finding.fix, "it is handed over"
