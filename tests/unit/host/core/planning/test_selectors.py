# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.views import host, slot
from vcpu_host.core.model import HostView
from vcpu_host.core.planning.selectors import GuestUnknownError, SelectorError, select


def _names(view: HostView, *selectors: str) -> list[int]:
    return [chosen.index for chosen in select(view.slots, selectors)]


def _sockets() -> HostView:
    """Two sockets of two dies of two cores, each with a property that nobody has heard of."""
    slots = tuple(
        slot(
            i,
            filled=i == 0,
            props={"socket-id": i // 4, "die-id": i // 2 % 2, "core-id": i % 2, "new-id": i, "ok": i > 5},
        )
        for i in range(8)
    )
    return host(8, slots=slots)


def test_an_index_names_its_slot() -> None:
    assert _names(host(4), "2") == [2]
    assert _names(host(4), " 3 ") == [3]


def test_slots_come_in_slot_order_however_they_were_named() -> None:
    assert _names(host(8), "5", "1", "3") == [1, 3, 5]


@pytest.mark.parametrize("text", ["4", "99999999999999999999999", "-1", "+1", "1.0", "0x1", "²", "١", "", "  "])
def test_what_is_no_index_of_this_vm_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        select(host(4).slots, (text,))


def test_a_device_id_names_the_slot_that_holds_it() -> None:
    view = host(3, slots=(slot(0, boot=True), slot(1, device_id="mine"), slot(2, filled=False)))
    assert _names(view, "mine") == [1]


@pytest.mark.parametrize("text", ["vcpu-2", "vcpu-0", "device[3]", "None"])
def test_the_id_of_an_empty_slot_or_of_a_boot_cpu_names_nothing(text: str) -> None:
    view = host(3, {0, 1})
    with pytest.raises(SelectorError, match="no id of a plugged CPU"):
        select(view.slots, (text,))


def test_props_name_every_slot_that_has_them_at_any_level() -> None:
    view = _sockets()
    assert _names(view, "socket-id=1") == [4, 5, 6, 7]
    assert _names(view, "socket-id=1,die-id=0") == [4, 5]
    assert _names(view, " socket-id = 1 , die-id=0, core-id=1") == [5]
    assert _names(view, "new-id=3") == [3]
    assert _names(view, "ok=True") == [6, 7]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("socket-id=9", "no slot has"),
        ("socket-id=01", "no slot has"),
        ("sockets=1", "have no 'sockets': they have core-id, die-id, new-id, ok, socket-id"),
        ("socket-id=1,socket-id=1", "given twice"),
        ("socket-id=", "is not name=value"),
        ("=1", "is not name=value"),
        ("socket-id=1,", "is not name=value"),
        ("socket-id=1,die-id", "is not name=value"),
    ],
)
def test_props_that_fit_no_slot_are_refused_with_what_would(text: str, words: str) -> None:
    with pytest.raises(SelectorError, match=words):
        select(_sockets().slots, (text,))


def test_one_slot_named_in_two_ways_is_refused() -> None:
    with pytest.raises(SelectorError, match=r"slot 4 is named twice, by 'socket-id=1' and by '4'"):
        select(_sockets().slots, ("socket-id=1", "4"))


def test_props_of_one_slot_given_apart_are_refused_with_how_to_join_them() -> None:
    with pytest.raises(SelectorError, match=r"named twice.*join them: socket=1,core=0$"):
        select(_sockets().slots, ("socket=1", " core=0"))


def test_props_may_be_named_as_tables_show_them() -> None:
    assert _names(_sockets(), "socket=1,die=0,core-id=1") == [5]
    with pytest.raises(SelectorError, match="given twice"):
        select(_sockets().slots, ("socket=1,socket-id=1",))
    both = host(2, slots=(slot(0, props={"new": 1, "new-id": 2}), slot(1, props={"new": 2, "new-id": 1})))
    assert _names(both, "new=1") == [0]


def test_a_range_names_its_slots_as_tables_show_them() -> None:
    assert _names(host(8), "2-4", "6-6") == [2, 3, 4, 6]
    with pytest.raises(SelectorError, match="no slot 8: this VM has slots 0 to 7"):
        select(host(8).slots, ("5-8",))
    with pytest.raises(SelectorError, match="first number is above its last"):
        select(host(8).slots, ("4-2",))
    with pytest.raises(SelectorError, match="slot 3 is named twice, by '2-4' and by '3'"):
        select(host(8).slots, ("2-4", "3"))


def _by_guest(guest_cpus: dict[int, int] | None, *selectors: str) -> list[int]:
    return [chosen.index for chosen in select(host(4, {0, 1, 3}).slots, selectors, guest_cpus)]


def test_the_guests_name_of_a_cpu_names_the_slot_that_shows_it() -> None:
    assert _by_guest({0: 0, 1: 3, 2: 1}, "cpu1") == [3]
    assert _by_guest({0: 0, 1: 3, 2: 1}, "cpu1", "cpu2") == [1, 3]
    assert _by_guest({0: 0, 1: 3, 2: 1}, " cpu2,cpu1 ") == [1, 3]
    with pytest.raises(SelectorError, match="no slot shows a cpu7 in the guest"):
        _by_guest({0: 0, 1: 3}, "cpu7")
    with pytest.raises(SelectorError, match="slot 3 is named twice"):
        _by_guest({0: 0, 1: 3}, "cpu1", "3")
    with pytest.raises(SelectorError, match="slot 3 is named twice"):
        _by_guest({0: 0, 1: 3}, "cpu1", "cpu1")


def test_a_guest_that_was_not_asked_names_no_slot() -> None:
    with pytest.raises(GuestUnknownError, match="cpu1 is the guest's name of a CPU, and the guest is not asked"):
        _by_guest(None, "cpu1")


def test_the_guests_names_name_a_slot_of_several_threads_only_all_together() -> None:
    threads = {0: 0, 8: 1, 9: 1}
    assert _by_guest(threads, "cpu8,cpu9") == _by_guest(threads, "cpu9", "cpu8") == [1]
    with pytest.raises(SelectorError, match="go together: name the slot, 1, or all of them, cpu8,cpu9"):
        _by_guest(threads, "cpu8")


def test_a_name_that_is_an_id_of_qemus_and_another_cpu_of_the_guest_is_refused() -> None:
    named = host(3, slots=(slot(0, boot=True), slot(1, device_id="cpu0"), slot(2, filled=False))).slots
    assert [each.index for each in select(named, ("cpu0",))] == [1]
    assert [each.index for each in select(named, ("cpu0",), {0: 1, 1: 0})] == [1]
    assert [each.index for each in select(named, ("cpu0",), {})] == [1]
    with pytest.raises(SelectorError, match="id of the CPU in slot 1, and the guest's name of the one in slot 0"):
        select(named, ("cpu0",), {0: 0})


def test_no_selectors_name_no_slots() -> None:
    assert select(host(2).slots, ()) == ()


@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_text_names_slots_or_is_refused_in_words(selectors: list[str]) -> None:
    view = _sockets()
    try:
        chosen = select(view.slots, selectors)
    except SelectorError as error:
        assert str(error)  # noqa: PT017 - both ends are right
    else:
        assert len(chosen) >= len(selectors)
        assert [s.index for s in chosen] == sorted({s.index for s in chosen})
