# SPDX-License-Identifier: Apache-2.0
"""What follows from a look at the guest's programs, for an operation and for doctor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core import codes
from vcpu_host.core.finding import Level
from vcpu_host.core.workload import cpus
from vcpu_host.core.workload.hurt import MOST, forgotten, hurt, to_be_spared
from vcpu_host.core.workload.model import (
    AffineUnit,
    Broken,
    Cpuset,
    Fate,
    NetworkDevice,
    Note,
    Pinned,
    Quota,
    Threads,
    Who,
    Workload,
)
from vcpu_host.core.workload.unused import broken, findings, unused

_ALL = cpus.parse("0-3")
_SLOTS = {0: 0, 1: 1, 2: 2, 3: 3}
_DB = Threads(3, (Who(812, 813, "postgres", "db.service", "/system.slice/db.service"),))


def _hurt(workload: Workload, going: str) -> tuple[Note, ...]:
    return hurt(workload, cpus.parse(going), _SLOTS)


def _cpuset(own: str, partition: str = "member", effective: str = "", *, populated: bool = True) -> Workload:
    found = Cpuset("/rt", cpus.parse(own), cpus.parse(effective or own), partition, populated)
    return Workload(online=_ALL, cpusets=(found,))


def test_threads_are_hurt_when_the_last_of_their_cpus_goes_and_not_before() -> None:
    workload = Workload(online=_ALL, pinned=(Pinned(cpus.parse("2-3"), _DB),))
    assert _hurt(workload, "3") == ()
    (note,) = _hurt(workload, "2-3")
    assert (note.code, note.slots, note.count, note.hurts) == (codes.PINNED_THREADS, (2, 3), 3, True)
    assert "postgres[812] of db.service, ..." in note.text
    assert "CPUs 2-3 alone" in note.text


def test_a_partition_is_hurt_only_with_tasks_in_it_and_while_it_is_valid() -> None:
    (note,) = _hurt(_cpuset("2-3", "isolated"), "2-3")
    assert (note.code, note.who) == (codes.PARTITION_EMPTIED, (Who(cgroup="/rt"),))
    assert _hurt(_cpuset("2-3", "isolated"), "3") == ()
    assert _hurt(_cpuset("2-3", "isolated", populated=False), "2-3") == ()
    assert _hurt(_cpuset("2-3", "isolated invalid (x)", "0-1"), "2-3") == ()


def test_a_cpuset_falls_back_to_its_parents_when_all_of_its_cpus_go() -> None:
    (note,) = _hurt(_cpuset("3,9"), "3")
    assert note.code == codes.CPUSET_FALLS_BACK


def test_a_nested_cpuset_loses_its_last_cpu_when_its_parent_has_no_other_of_its_own() -> None:
    (note,) = _hurt(_cpuset("2-3", effective="3"), "3")
    assert (note.code, note.slots) == (codes.CPUSET_FALLS_BACK, (3,))
    assert _hurt(_cpuset("2-3", effective="3"), "2") == ()
    assert to_be_spared(_cpuset("2-3", effective="3"), 0, [(3,), (2,)]) == {0}


def test_a_cpuset_that_has_its_parents_cpus_already_loses_none_of_its_own() -> None:
    assert _hurt(_cpuset("3,9", effective="0-1"), "3") == ()
    assert _hurt(_cpuset("3,9", effective="0-1"), "0-1") == ()
    assert to_be_spared(_cpuset("3,9", effective="0-1"), 0, [(3,), (1,), (0,)]) == set()


def test_units_are_hurt_whose_affinity_cannot_be_met_any_more() -> None:
    units = (AffineUnit("mysql.service", cpus.parse("3"), True), AffineUnit("x.service", cpus.parse("1,3"), False))
    (note,) = _hurt(Workload(online=_ALL, units=units), "3")
    assert note.code == codes.UNIT_AFFINITY
    assert "cannot be restarted without CPU 3: CPUAffinity=3" in note.text
    assert "215/CPUAFFINITY" in note.hint


def test_deadline_reservations_are_told_and_left_to_the_kernel() -> None:
    (note,) = _hurt(Workload(online=_ALL, deadline=_DB), "3")
    assert (note.code, note.level) == (codes.DEADLINE_THREADS, Level.NOTE)


def test_masks_that_any_change_wipes_are_told_up_and_down() -> None:
    (note,) = forgotten(Workload(online=_ALL, forgotten=_DB))
    assert (note.code, note.hurts) == (codes.MASKS_FORGOTTEN, True)
    assert forgotten(Workload()) == ()


def test_of_very_many_sets_of_cpus_few_are_told_and_the_rest_is_counted() -> None:
    pinned = tuple(Pinned(1 << number, Threads(1, (Who(number, number, "x"),))) for number in range(1, 100))
    notes = hurt(Workload(online=(1 << 100) - 1, pinned=pinned), (1 << 100) - 2, {})
    assert len(notes) == MOST + 1
    assert sum(note.count for note in notes) == 99


def test_one_more_cpu_does_harm_only_if_it_is_the_last_one_of_somebody() -> None:
    workload = Workload(online=_ALL, pinned=(Pinned(cpus.parse("2-3"), _DB),))
    assert to_be_spared(workload, 0, [(3,), (1,)]) == set()
    assert to_be_spared(workload, 0, [(3,), (2,), (1,)]) == {1}
    assert to_be_spared(workload, 0, [(0, 1), (2, 3)]) == {1}
    assert to_be_spared(workload, cpus.parse("3"), [(2,), (1,)]) == {0}
    assert to_be_spared(workload, cpus.parse("2-3"), [(1,), (0,)]) == set()
    assert to_be_spared(workload, 0, []) == set()


_NUMBERS = st.integers(0, 8)


@given(
    st.frozensets(_NUMBERS),
    st.permutations(range(9)).flatmap(
        lambda numbers: st.lists(st.integers(0, 9), max_size=4).map(
            lambda cuts: [tuple(numbers[a:b]) for a, b in pairwise([0, *sorted(cuts), 9])]
        )
    ),
    st.lists(st.frozensets(_NUMBERS, min_size=1), max_size=6),
    st.integers(0, 3),
)
def test_what_is_spared_is_what_judging_one_place_after_another_spares(
    gone: frozenset[int], order: list[tuple[int, ...]], masks: list[frozenset[int]], kept: int
) -> None:
    order = [tuple(number for number in each if number not in gone) for each in order[kept:]]
    may_go, going = gone.union(*order), gone
    expected = set()
    for place, each in enumerate(order):
        after = going | set(each)
        if any(mask & set(each) and mask <= after for mask in masks if mask <= may_go):
            expected.add(place)
        else:
            going = after
    pinned = tuple(Pinned(cpus.of(mask), _DB) for mask in masks)
    assert to_be_spared(Workload(online=0x1FF, pinned=pinned), cpus.of(gone), order) == expected


class _Counted(int):
    """A set of CPUs that counts what is done with it, all sets together."""

    done = 0

    def __and__(self, other: int) -> _Counted:
        _Counted.done += 1
        return _Counted(int(self) & other)

    __rand__ = __and__


@pytest.mark.parametrize("first", [0, cpus.LIMIT - 4096])
def test_many_slots_among_very_many_sets_of_cpus_are_no_slots_times_sets_of_work(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    slots, sets, numbered = 4096, 1024, 0
    real = cpus.of

    def of(numbers: Iterable[int]) -> int:
        nonlocal numbered
        known = tuple(numbers)
        numbered += len(known)
        return real(known)

    monkeypatch.setattr(cpus, "of", of)
    may = ((1 << slots) - 1) << first
    masks = [_Counted(may & ~(1 << first + number)) for number in range(sets)]
    workload = Workload(
        online=may,
        pinned=tuple(Pinned(mask, _DB) for mask in masks),
        cpusets=tuple(Cpuset("/x", mask, mask, "member", True) for mask in masks),
        units=tuple(AffineUnit("x.service", mask, True) for mask in masks),
    )
    _Counted.done = 0
    assert to_be_spared(workload, 0, [(first + number,) for number in range(slots)]) == {slots - 1}
    depth = slots.bit_length()
    assert 0 < _Counted.done <= 3 * sets * (depth + 6)
    assert 0 < numbered <= slots * (depth + 3)


def test_sets_of_cpus_that_a_guest_made_up_are_never_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    real = cpus._runs

    def counted(mask: int) -> Iterator[range]:
        taken.append(mask)
        return real(mask)

    monkeypatch.setattr(cpus, "_runs", counted)
    wide = tuple(Pinned(cpus.parse(f"{low}-65535"), _DB) for low in range(1, 1025))
    units = tuple(AffineUnit(f"{low}.service", cpus.parse(f"{low}-65535"), True) for low in range(1, 1025))
    sets = tuple(Cpuset("/x", mask, mask, "member", True) for mask in (pinned.cpus for pinned in wide))
    workload = Workload(online=cpus.parse("0-65535"), pinned=wide, units=units, cpusets=sets)
    assert to_be_spared(workload, 0, [(number,) for number in range(4)]) == set()
    assert _hurt(workload, "1-3") == ()
    assert taken == []
    mixed = tuple(AffineUnit(f"{low}.service", cpus.parse(f"3,{low}-65535"), True) for low in range(5, 1029))
    assert len(_hurt(Workload(online=_ALL, units=mixed), "1-3")) == MOST + 1
    assert len(taken) < 4 * MOST


def test_a_set_of_cpus_that_are_all_away_does_no_harm() -> None:
    workload = Workload(online=_ALL, units=(AffineUnit("x.service", cpus.parse("9"), True),))
    assert to_be_spared(workload, 0, [(3,)]) == set()
    assert _hurt(workload, "3") == ()


def _codes(workload: Workload, online: int, came: int) -> list[str]:
    return [note.code for note in unused(workload, online, came)]


def test_new_cpus_that_are_isolated_are_told_by_what_isolates_them() -> None:
    for kind in ("isolated", "nohz_full", "partition_isolated"):
        workload = Workload(online=cpus.parse("0-4"), **{kind: cpus.parse("1-3")})  # type: ignore[arg-type]
        (note,) = unused(workload, 5, cpus.parse("1-4"))
        assert note.code == codes.ISOLATED_CPUS
        assert "3 of the 4 new CPUs" in note.text
        assert _codes(workload, 5, cpus.parse("4")) == []


def test_before_a_plug_isolated_numbers_that_are_not_there_yet_are_told_as_possible() -> None:
    assert _codes(Workload(online=1, isolated=cpus.parse("1-3")), 4, 0) == [codes.ISOLATED_CPUS]
    assert _codes(Workload(online=cpus.parse("0-3"), isolated=cpus.parse("1-3")), 4, 0) == []


def test_queue_pairs_are_told_against_what_the_device_has_and_the_cpus_there_will_be() -> None:
    workload = Workload(network=(NetworkDevice("eth0", 1, 8),))
    assert _codes(workload, 1, 0) == []
    (note,) = unused(workload, 4, 0)
    assert note.text == "eth0 uses 1 of 8 queue pairs, with 4 CPUs"
    assert "combined 4" in note.hint
    assert _codes(Workload(network=(NetworkDevice("eth0", 8, 8),)), 16, 0) == []


def test_a_quota_is_told_when_it_is_for_several_cpus_and_less_than_there_are() -> None:
    workload = Workload(quotas=(Quota("/a", "a.service", 2.0), Quota("/b", "b.service", 0.2)))
    assert _codes(workload, 2, 0) == []
    (note,) = unused(workload, 4, 0)
    assert (note.code, note.count) == (codes.CPU_QUOTA, 1)
    assert "a.service may use 2 CPUs of 4" in note.text


def test_partitions_that_share_cpus_or_are_none_any_more_are_told() -> None:
    rt = Cpuset("/rt", cpus.parse("2-3"), cpus.parse("2-3"), "isolated", True)
    off = Cpuset("/off", cpus.parse("7"), cpus.parse("0-1"), "root invalid (No cpu available due to hotplug)", True)
    workload = Workload(online=_ALL, cpusets=(rt, off), root_effective=cpus.parse("0-1,3"))
    overlap, invalid = unused(workload, 4, 0)
    assert (overlap.code, overlap.hurts) == (codes.PARTITION_OVERLAP, False)
    assert "shares CPU 3" in overlap.text
    assert (invalid.code, invalid.hurts) == (codes.PARTITION_INVALID, False)
    assert {each.level for each in findings(workload)} == {Level.WARNING}


def test_a_partitions_state_hurts_only_if_it_is_new_since_the_look_before() -> None:
    whole = _cpuset("2-3", "isolated")
    lost = _cpuset("2-3", "isolated invalid", "0-1")
    assert [note.hurts for note in unused(lost, 2, 0, before=whole)] == [True]
    assert [note.hurts for note in unused(lost, 2, 0, before=lost)] == [False]
    assert [note.hurts for note in unused(lost, 2, 0, before=Workload(online=_ALL))] == [False]


def test_an_overlap_hurts_if_it_is_of_cpus_that_came_or_the_look_before_saw_none_there() -> None:
    shares = _cpuset("2-3", "isolated")._replace(root_effective=cpus.parse("0-1,3"))
    assert [note.hurts for note in unused(shares, 4, cpus.parse("3"))] == [True]
    assert [note.hurts for note in unused(shares, 4, cpus.parse("1"))] == [False]
    apart = shares._replace(root_effective=cpus.parse("0-1"))
    assert [note.hurts for note in unused(shares, 4, 0, before=apart)] == [True]
    assert [note.hurts for note in unused(shares, 4, 0, before=shares)] == [False]
    unread = shares._replace(root_effective=0)
    assert [note.hurts for note in unused(shares, 4, 0, before=unread)] == [False]


def test_what_became_of_threads_is_told_by_mask_and_fate() -> None:
    found = [
        Broken(cpus.parse("3"), fate, Threads(1, (Who(9, 9, "w"),)))
        for fate in (Fate.WIDENED, Fate.ASLEEP, Fate.PUT_BACK)
    ]
    widened, asleep, back = broken(Workload(broken=tuple(found)))
    assert (widened.code, widened.hurts) == (codes.AFFINITY_BROKEN, True)
    assert (asleep.code, asleep.hurts) == (codes.AFFINITY_ASLEEP, False)
    assert (back.code, back.hurts) == (codes.AFFINITY_PUT_BACK, False)
    assert "1 thread all CPUs, pinned to CPU 3 before: w[9]" in widened.text
    many = Workload(broken=tuple(Broken(1 << n, Fate.WIDENED, Threads(2)) for n in range(MOST + 2)))
    assert sum(note.count for note in broken(many)) == 2 * (MOST + 2)


def test_doctor_tells_units_that_cannot_start_and_cpusets_without_their_cpus() -> None:
    units = (AffineUnit("mysql.service", cpus.parse("7"), True), AffineUnit("ok.service", cpus.parse("1"), True))
    away = Cpuset("/a.slice", cpus.parse("6-7"), cpus.parse("0-3"), "member", True)
    found = {each.code: each for each in findings(Workload(_ALL, cpusets=(away,), units=units, kdump_reloads=True))}
    assert found[codes.UNIT_AFFINITY].text.startswith("mysql.service cannot be restarted: CPUAffinity=7")
    assert "/a.slice has its parent's CPUs: none of its own is online (6-7)" in found[codes.CPUSET_FALLS_BACK].text
    assert "twice for each CPU" in found[codes.KDUMP_RELOADS].text
    assert all(each.fix for each in found.values())


def test_doctor_tells_a_cpuset_whose_parent_has_none_of_its_cpus_though_they_are_online() -> None:
    nested = Cpuset("/a.slice/b", cpus.parse("2-3"), cpus.parse("0-1"), "member", True)
    (found,) = findings(Workload(_ALL, cpusets=(nested,)))
    assert found.text == "the cpuset /a.slice/b has its parent's CPUs: none of its own is its parent's (2-3)"
    assert found.fix == "it gets them by itself when they are its parent's"
    assert list(findings(Workload(_ALL, cpusets=(nested._replace(effective=cpus.parse("2")),)))) == []
