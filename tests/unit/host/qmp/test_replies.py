# SPDX-License-Identifier: Apache-2.0
"""Replies become values; what is missing, odd or hostile becomes a clear error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core.model import Ost
from vcpu_host.errors import QemuError
from vcpu_host.qmp import replies

TYPE = "qemu64-x86_64-cpu"


def hotpluggable(count: int, filled: dict[int, str], vcpus: int = 1) -> list[dict[str, Any]]:
    """As QEMU sends it: highest first."""
    found: list[dict[str, Any]] = []
    for index in reversed(range(count)):
        item: dict[str, Any] = {"type": TYPE, "vcpus-count": vcpus, "props": {"core-id": index, "new-id": index}}
        if index in filled:
            item["qom-path"] = filled[index]
        found.append(item)
    return found


def cpu(index: int, path: str) -> dict[str, Any]:
    return {"cpu-index": index, "thread-id": 1000 + index, "qom-path": path, "target": "x86_64"}


def test_the_last_entry_of_the_reply_is_slot_0_and_props_are_kept_verbatim() -> None:
    paths = {0: "/machine/unattached/device[0]", 2: "/machine/peripheral/vcpu-2"}
    threads = [cpu(2, paths[2]), cpu(0, paths[0])]
    slots = replies.slots(hotpluggable(4, paths), threads)
    assert [slot.index for slot in slots] == [0, 1, 2, 3]
    assert [dict(slot.props) for slot in slots] == [{"core-id": i, "new-id": i} for i in range(4)]
    assert [slot.path for slot in slots] == [paths[0], None, paths[2], None]
    assert [thread.thread_id for thread in slots[2].threads] == [1002]
    assert replies.consistent(slots, threads)


def test_a_cores_threads_are_those_below_its_path() -> None:
    paths = {0: "/machine/unattached/device[0]", 1: "/machine/peripheral/core1", 2: "/machine/peripheral/core10"}
    threads = [cpu(2 * core + t, f"{path}/thread[{t}]") for core, path in paths.items() for t in (0, 1)]
    slots = replies.slots(hotpluggable(3, paths, vcpus=2), threads)
    assert [[thread.cpu_index for thread in slot.threads] for slot in slots] == [[0, 1], [2, 3], [4, 5]]


def test_a_reply_in_another_order_is_noticed_instead_of_believed() -> None:
    paths = {0: "/machine/unattached/device[0]", 3: "/machine/peripheral/x"}
    threads = [cpu(0, paths[0]), cpu(3, paths[3])]
    with pytest.raises(QemuError, match="its order agrees neither"):
        replies.slots(list(reversed(hotpluggable(4, paths))), threads)


def test_replies_that_show_different_cpus_are_not_consistent() -> None:
    paths = {0: "/machine/unattached/device[0]", 1: "/machine/peripheral/vcpu-1"}
    both = [cpu(0, paths[0]), cpu(1, paths[1])]
    one = both[:1]
    assert not replies.consistent(replies.slots(hotpluggable(2, paths), one), one)
    assert not replies.consistent(replies.slots(hotpluggable(2, {0: paths[0]}), both), both)


def test_a_vcpu_whose_slot_is_empty_is_on_its_way_out_of_that_slot() -> None:
    paths = {0: "/machine/unattached/device[0]", 2: "/machine/peripheral/vcpu-2"}
    raw = [
        {**cpu(index, path), "props": {"core-id": core, "new-id": core, "thread-id": 0}}
        for index, path, core in ((0, paths[0], 0), (2, paths[2], 2), (3, "/machine/peripheral/vcpu-3/thread[1]", 3))
    ]
    slots = replies.slots(hotpluggable(4, paths), raw)
    assert [[thread.cpu_index for thread in slot.leaving] for slot in slots] == [[], [], [], [3]]
    assert [slot.index for slot in slots if slot.filled] == [0, 2]
    assert [slot.index for slot in slots if slot.vacant] == [1]
    assert not replies.consistent(slots, raw), "asked once more, it has mostly ended"


def test_only_cpus_of_which_the_guest_said_something_have_an_ost() -> None:
    entries = [
        {"slot-type": "CPU", "slot": "0", "source": 0, "status": 0},
        {"slot-type": "CPU", "slot": "5", "source": 3, "status": 130, "device": "vcpu-5"},
        {"slot-type": "DIMM", "slot": "1", "source": 1, "status": 0},
    ]
    assert replies.ost(entries) == {5: Ost(3, 130)}


def only_bad_replies(read: Callable[[], object]) -> bool:
    """Whether it succeeds, or says "bad-reply"; any other exception passes."""
    try:
        read()
    except QemuError as err:
        return err.reason.code == "bad-reply"
    return True


# Anything JSON can hold, in place of any member of a good reply.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(JSON, st.sampled_from(["type", "vcpus-count", "props", "qom-path", None]), st.booleans())
def test_whatever_query_hotpluggable_cpus_says_is_understood_or_a_bad_reply(
    odd: Any, name: str | None, drop: bool
) -> None:
    reply: Any = copy.deepcopy(hotpluggable(2, {0: "/a"}))
    if name is None:
        reply = odd
    elif drop:
        reply[1].pop(name)
    else:
        reply[1][name] = odd
    assert only_bad_replies(lambda: replies.slots(reply, [cpu(0, "/a")]))


@given(JSON)
def test_whatever_the_small_queries_say_is_understood_or_a_bad_reply(odd: Any) -> None:
    for read in (replies.threads, replies.ost, replies.version, replies.children, lambda v: replies.text(v, "x")):
        for value in (odd, [odd], [{"slot-type": "CPU", "slot": odd, "cpu-index": odd}]):
            assert only_bad_replies(partial(read, value))


def test_a_vcpu_without_a_place_in_the_tree_is_a_phantom_of_its_slot_and_the_look_is_whole() -> None:
    """As QEMU 11.1 shows what a refused device_add has left."""
    reply = hotpluggable(4, {0: "/a"})
    cpus = [{**cpu(0, "/a"), "props": reply[3]["props"]}, {**cpu(2, ""), "props": reply[1]["props"]}]
    found = replies.slots(reply, cpus)
    assert [[thread.cpu_index for thread in slot.phantoms] for slot in found] == [[], [], [2], []]
    assert not any(slot.leaving for slot in found)
    assert replies.consistent(found, cpus)


def test_children_are_told_from_an_objects_other_properties() -> None:
    listing = [
        {"name": "type", "type": "string"},
        {"name": "vcpu-1", "type": "child<virtio-rng-pci>"},
        {"name": "drive", "type": "link<virtio-blk-pci>"},
        {"name": "odd", "type": "child<x\x1b[0m>"},
    ]
    assert replies.children(listing) == {"vcpu-1": "virtio-rng-pci", "odd": "x?[0m"}


def test_a_boolean_is_no_number() -> None:
    with pytest.raises(QemuError, match="thread-id is True"):
        replies.threads([{"cpu-index": 0, "thread-id": True, "qom-path": "/a"}])


def test_a_reply_without_end_is_refused_before_it_is_read() -> None:
    with pytest.raises(QemuError, match="list was expected"):
        replies.threads([{}] * 70_000)


def pseries_under_kvm(**numbers: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What QEMU 11.1.3 under KVM answered: cores by device id, with their cpu-index; cN is in slot N.

    ``core-id`` in query-cpus-fast is made of cpu-index, whatever core it is.
    """
    paths = {0: "/machine/unattached/device[0]", **{int(name[1:]): f"/machine/peripheral/{name}" for name in numbers}}
    raw = [
        {"type": "host-spapr-cpu-core", "vcpus-count": 1, "props": {"core-id": index}}
        | ({"qom-path": paths[index]} if index in paths else {})
        for index in reversed(range(4))
    ]
    order = [(0, paths[0]), *((number, f"/machine/peripheral/{name}") for name, number in numbers.items())]
    cpus = [{**cpu(number, f"{path}/thread[0]"), "props": {"core-id": number}} for number, path in order]
    return raw, cpus


def test_cores_that_qemu_numbers_in_order_of_plugging_are_found_by_their_path() -> None:
    raw, cpus = pseries_under_kvm(c3=1, c1=2, c2=3)
    slots = replies.slots(raw, cpus)
    assert [[thread.cpu_index for thread in slot.threads] for slot in slots] == [[0], [2], [3], [1]]
    assert [slot.device_id for slot in slots] == [None, "c1", "c2", "c3"]
    assert replies.consistent(slots, cpus)


def test_a_core_that_leaves_belongs_to_the_slot_that_had_its_path_not_to_the_one_in_its_props() -> None:
    raw, cpus = pseries_under_kvm(c3=1, c1=2)
    assert "qom-path" in raw[0]
    del raw[0]["qom-path"]
    slots = replies.slots(raw, cpus, {"/machine/peripheral/c3/thread[0]": 3}.get)
    assert [[thread.cpu_index for thread in slot.leaving] for slot in slots] == [[], [], [], [1]]
    assert [slot.index for slot in slots if slot.vacant] == [2]


def test_where_props_are_another_cores_a_vcpu_of_an_unseen_path_is_nobodys() -> None:
    raw, cpus = pseries_under_kvm(c3=1, c1=2)
    del raw[0]["qom-path"]
    slots = replies.slots(raw, cpus)
    assert not any(slot.leaving for slot in slots)
    assert not replies.consistent(slots, cpus), "so it is looked at again"


def test_an_order_that_numbers_do_not_show_is_shown_by_the_places() -> None:
    """The other way round: an s390x core that was moved keeps its number (set-cpu-topology)."""
    paths = {index: f"/machine/unattached/device[{index}]" for index in range(2)}
    raw = hotpluggable(2, paths)
    for item, socket in zip(raw, (0, 1), strict=True):
        item["props"] = {"socket-id": socket, "core-id": item["props"]["core-id"]}
    slots = replies.slots(raw, [cpu(index, path) for index, path in paths.items()])
    assert [slot.props["core-id"] for slot in slots] == [0, 1]
