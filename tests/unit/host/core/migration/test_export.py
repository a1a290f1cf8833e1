# SPDX-License-Identifier: Apache-2.0
"""The arguments that give a QEMU exactly the vCPUs that a VM has, whatever was removed and in whatever order."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.views import host, slot
from vcpu_host import documents
from vcpu_host.core.migration.export import ExportError, arguments, device_text
from vcpu_host.core.migration.shape import Place, Shape
from vcpu_host.core.model import HostView, PropValue, Slot

_TOPOLOGY = {
    "cpus": 4,
    "drawers": 1,
    "sockets": 2,
    "dies": 1,
    "clusters": 1,
    "modules": 1,
    "cores": 2,
    "threads": 2,
    "maxcpus": 8,
}


def _shape(*slots: Slot, topology: Mapping[str, int] = _TOPOLOGY) -> Shape:
    return replace(Shape.of(host(len(slots), slots=slots)), topology=topology)


_DISK = "virtio-blk-device.num-queues"


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ((4,), {_DISK: 4}),  # by -smp 4, which it was started with
        ((4, 4), {_DISK: 4}),
        ((1, 4), {_DISK: 4}),  # one was given its own, which weighs more
        ((2,), {_DISK: 2}),  # by a -global before, or its own
        ((1,), {}),  # as it would be anyway
        ((2, 3), {}),  # both were given their own
    ],
)
def test_queues_that_follow_from_smp_are_kept_when_its_number_changes(
    numbers: tuple[int, ...], kept: dict[str, int]
) -> None:
    shape = _shape(slot(0, boot=True), slot(1, filled=False), slot(2, boot=True), slot(3, boot=True))
    result = arguments(replace(shape, queues={_DISK: numbers}))
    assert result.initial == 1
    assert result.globals == kept
    assert result.argv.count("-global") == len(kept)


def test_queues_are_not_mentioned_when_smp_stays_as_it_was() -> None:
    shape = _shape(*(slot(index, boot=True) for index in range(4)))
    assert arguments(replace(shape, queues={_DISK: (4,)})).globals == {}


def _started(argv: list[str], shape: Shape, *, threads: int = 1) -> dict[int, str | None]:
    """What a QEMU has that is started so: slot to id (pc_cpus_init and qdev_device_add, in a few lines)."""
    smp = dict(part.split("=") for part in argv[1].split(","))
    filled: dict[int, str | None] = dict.fromkeys(range(int(smp["cpus"]) // threads))
    for option, text in zip(argv[2::2], argv[3::2], strict=True):
        assert option == "-device"
        driver, *pairs = text.split(",")
        props = dict(pair.split("=") for pair in pairs)
        name = props.pop("id")
        index = next(
            p.index for p in shape.places if p.type == driver and {k: str(v) for k, v in p.props.items()} == props
        )
        assert index not in filled, "QEMU refuses a slot that is taken"
        filled[index] = name
    return filled


def test_boot_cpus_are_counted_and_plugged_ones_are_devices_with_their_ids() -> None:
    shape = _shape(slot(0, boot=True), slot(1, boot=True), slot(2, filled=False), slot(3), slot(4, device_id="mine"))
    result = arguments(shape)
    assert result.initial == 2
    assert [place.device_id for place in result.devices] == ["vcpu-3", "mine"]


def test_boot_cpus_behind_a_removed_one_become_devices_with_the_ids_of_their_slots() -> None:
    shape = _shape(slot(0, boot=True), slot(1, filled=False), slot(2, boot=True), slot(3, boot=True))
    result = arguments(shape)
    assert result.initial == 1
    assert _started(result.argv, shape) == {0: None, 2: "vcpu-2", 3: "vcpu-3"}


def test_a_plugged_cpu_next_to_the_boot_cpus_keeps_its_id_and_is_not_counted_among_them() -> None:
    shape = _shape(slot(0, boot=True), slot(1), slot(2, boot=True))
    assert _started(arguments(shape).argv, shape) == {0: None, 1: "vcpu-1", 2: "vcpu-2"}


def test_devices_come_in_the_order_in_which_the_cpus_were_made() -> None:
    early, late = slot(5), slot(2, fills=1)
    shape = _shape(slot(0, boot=True), slot(1, filled=False), late, slot(3, filled=False), slot(4, filled=False), early)
    assert [place.index for place in arguments(shape).devices] == [5, 2]


def test_smp_counts_vcpus_where_a_slot_has_several() -> None:
    shape = _shape(slot(0, threads=2, boot=True), slot(1, threads=2, boot=True), slot(2, threads=2))
    result = arguments(shape)
    assert result.initial == 4
    assert _started(result.argv, shape, threads=2) == {0: None, 1: None, 2: "vcpu-2"}


def test_levels_that_the_machine_may_not_know_are_left_out_while_they_are_one() -> None:
    shape = _shape(slot(0, boot=True))
    assert arguments(shape).argv[1] == "cpus=1,sockets=2,cores=2,threads=2,maxcpus=8"
    dies = _shape(slot(0, boot=True), topology={**_TOPOLOGY, "dies": 2})
    assert "dies=2" in arguments(dies).argv[1].split(",")


def test_the_forms_say_the_same() -> None:
    shape = _shape(slot(0, boot=True), slot(2), slot(1, filled=False))
    result = arguments(shape)
    assert [word for line in result.shell.splitlines() for word in shlex.split(line)] == result.argv
    commands = [json.loads(line) for line in result.qmp.splitlines()]
    assert [command["arguments"] for command in commands] == documents.of_export(shape, result)["device_add"]
    assert commands[0] == {
        "execute": "device_add",
        "arguments": {
            "driver": "qemu64-x86_64-cpu",
            "id": "vcpu-2",
            "socket-id": 2,
            "core-id": 0,
            "thread-id": 0,
        },
    }


@pytest.mark.parametrize(("value", "written"), [("a,b", "a,,b"), (True, "on"), (False, "off"), (7, "7")])
def test_values_are_written_as_qemu_reads_them(value: PropValue, written: str) -> None:
    place = Place(1, "some-cpu", {"odd": value}, 1, filled=True, device_id="vcpu-1")
    assert device_text(place) == f"some-cpu,id=vcpu-1,odd={written}"


def test_what_a_shell_would_take_apart_is_quoted() -> None:
    shape = _shape(slot(0, boot=True), slot(1, device_id="my cpu"))
    assert shlex.split(arguments(shape).shell)[-1].startswith("qemu64-x86_64-cpu,id=my cpu,")


def test_a_qemu_that_does_not_show_its_smp_is_said_and_nothing_is_made_up() -> None:
    with pytest.raises(ExportError) as caught:
        arguments(_shape(slot(0, boot=True), topology={}))
    assert caught.value.reason.code == "no-topology"


def test_two_cpus_that_would_have_one_id_are_said() -> None:
    view = (slot(0, boot=True), slot(1, device_id="vcpu-3"), slot(2, filled=False), slot(3, boot=True))
    with pytest.raises(ExportError) as caught:
        arguments(_shape(*view))
    assert caught.value.reason.code == "duplicate-id"


@given(st.lists(st.sampled_from(["empty", "boot", "ours", "other"]), min_size=0, max_size=24))
def test_any_mix_of_slots_starts_as_it_was(kinds: list[str]) -> None:
    slots = [slot(0, boot=True)]
    for index, kind in enumerate(kinds, 1):
        slots.append(
            slot(index, filled=kind != "empty", boot=kind == "boot", device_id="x" * index if kind == "other" else None)
        )
    shape = _shape(*slots)
    started = _started(arguments(shape).argv, shape)
    assert set(started) == {s.index for s in slots if s.filled}
    plugged = {s.index: s.device_id for s in slots if s.device_id is not None}
    assert {index: started[index] for index in plugged} == plugged


def test_the_view_of_a_machine_without_hotplug_is_all_boot_cpus() -> None:
    view: HostView = host(3, {0, 1, 2}, boot={0, 1, 2})
    result = arguments(
        replace(Shape.of(view), topology={"cpus": 3, "maxcpus": 3, "sockets": 1, "cores": 3, "threads": 1})
    )
    assert (result.initial, result.devices) == (3, ())
