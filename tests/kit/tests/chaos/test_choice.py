# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from kit.chaos.choice import KINDS, OF_DOMAINS, Fault, Shape, Turn, When, cost, turn

Q35 = Shape(threads=1, slots=64)
POWER = Shape(threads=2, slots=32, without=frozenset({"refuse-eject", "revert", "foreign-name"}))
DOMAIN = Shape(threads=1, slots=64, without=frozenset({"raw-add", "raw-del"}), also=OF_DOMAINS)
MANY = 2000


def turns(shape: Shape, seed: int = 7) -> list[Turn]:
    return [turn(seed, number, shape) for number in range(1, MANY + 1)]


def test_a_turn_comes_from_the_seed_and_its_number_alone() -> None:
    assert [turn(1, number, Q35) for number in (3, 1, 2)] == [turn(1, number, Q35) for number in range(1, 4)][2:] + [
        turn(1, number, Q35) for number in (1, 2)
    ]
    assert turns(Q35, 1) != turns(Q35, 2)


def test_every_operation_and_every_fault_gets_its_turn_before_and_in_the_middle() -> None:
    chosen = [*turns(Q35), *turns(DOMAIN)]
    assert {t.words[0] for t in chosen} == {"scale", "plug", "unplug", "offline", "online", "list", "plan"}
    seen = {(fault.name, fault.when is When.BEFORE) for t in chosen for fault in t.faults}
    wanted = {(name, True) for name, kind in KINDS.items() if kind.before}
    wanted |= {(name, False) for name, kind in KINDS.items() if kind.during}
    assert seen == wanted
    moments = {fault.when for t in chosen for fault in t.faults}
    assert moments == set(When)


def test_a_machine_is_not_given_faults_that_it_cannot_have() -> None:
    for shape in (POWER, DOMAIN):
        assert shape.without.isdisjoint(fault.name for t in turns(shape) for fault in t.faults)
    assert OF_DOMAINS.isdisjoint(fault.name for t in turns(Q35) for fault in t.faults)


def test_the_boot_slot_is_left_alone_and_numbers_fit_whole_cores() -> None:
    for t in turns(POWER):
        slots = t.words[t.words.index("--slot") + 1 :] if "--slot" in t.words else ()
        slots = t.words[1:] if t.words[0] in ("online", "offline") else slots
        touched = [*map(int, slots), *(fault.slot for fault in t.faults)]
        assert all(0 < slot < POWER.slots for slot in touched)
        assert t.goal % POWER.threads == 0 < t.goal


def test_what_silences_the_guest_comes_last_and_alone() -> None:
    for t in turns(Q35):
        heavy = [KINDS[fault.name].heavy for fault in t.faults]
        assert sum(heavy) <= 1
        assert not any(heavy[:-1])


def test_an_onliner_leaves_time_for_a_device_del_between_two_looks() -> None:
    found = {fault.interval for t in turns(Q35) for fault in t.faults if fault.name == "onliner"}
    assert min(found) >= 0.2
    assert max(found) <= 1.2


def test_what_interrupts_a_way_comes_when_vcpuctl_takes_it() -> None:
    ways = {"ssh-ended": {"over-ssh"}, "network-cut": {"over-tcp"}}
    chosen = [{fault.name for fault in t.faults} for t in turns(DOMAIN)]
    for name, way in ways.items():
        assert any(name in names for names in chosen)
        assert all(
            names & {"over-ssh", "over-tcp"} == way for names in chosen if name in names and len(names & {*ways}) == 1
        )


def test_garbage_comes_from_the_seed_too() -> None:
    garbage = [fault.data for t in turns(Q35) for fault in t.faults if "garbage" in fault.name]
    assert all(garbage)
    assert len(set(garbage)) == len(garbage)


def fault(name: str, *words: str) -> Fault:
    return Fault(name, When.START, 0.0, 1.0, 3, words)


@pytest.mark.parametrize(
    ("words", "faults", "goal", "vcpus"),
    [
        (("list",), (), 1, 1 + 1),
        (("scale", "6"), (), 2, 2 * 6 + 2 + 1),
        (("plug", "--atomic", "--slot", "4", "9"), (), 1, 2 * 2 + 1 + 1),
        (("plug", "-n", "3"), (fault("raw-add"),), 1, 2 * 3 + 1 + 1 + 1),
        (("unplug", "-n", "3"), (fault("second-vcpuctl", "scale", "5"), fault("raw-del")), 4, 5 + 4 + 1),
        (("unplug", "-n", "3"), (fault("operator-plug"), fault("operator-unplug")), 4, 1 + 4 + 1),
        (("plan", "plug", "-n", "4"), (), 1, 1 + 1),
        (("plug", "-n", "3"), (fault("revert"),), 1, 2 * 3 + 1 + 2 * 7 + 1),
    ],
)
def test_the_budget_counts_the_most_that_a_turn_can_plug(
    words: tuple[str, ...], faults: tuple[Fault, ...], goal: int, vcpus: int
) -> None:
    chosen = Turn(1, words, 30, faults, goal, repeat=True)
    assert cost(chosen, Q35) == vcpus


def test_a_core_costs_its_threads() -> None:
    assert cost(Turn(1, ("plug", "--slot", "3", "4"), 30, (), 2, repeat=False), POWER) == 2 * (2 * 2 + 1 + 1)
    assert cost(Turn(1, ("plug", "-n", "4"), 30, (), 2, repeat=False), POWER) == 2 * (2 * 2 + 1 + 1)


def test_no_turn_costs_more_than_a_whole_budget() -> None:
    assert max(cost(t, Q35) for t in [*turns(Q35), *turns(DOMAIN)]) < Q35.slots * Q35.threads - 1
    assert max(cost(t, POWER) for t in turns(POWER)) < POWER.slots * POWER.threads - POWER.threads
