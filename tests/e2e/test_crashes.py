# SPDX-License-Identifier: Apache-2.0
"""vcpuctl is killed at every one of its step boundaries while it resizes a real guest: the next ``scale`` converges."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from kit.component.crashing import MANY, killed
from kit.e2e import guestfirst
from kit.e2e.machine import Machine, Vcpuctl
from kit.lab import Lives

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

#: Room for many plugs: under TCG a QEMU has a budget. One boundary may cost the way to the start, the operation, and
#: the way to the goal.
_ROOM, _COST = "1,maxcpus=64,sockets=2,cores=16,threads=2", 8
#: Seconds for one command.
_WITHIN = 120.0


@pytest.fixture
def lives(lives_of: Callable[..., Lives]) -> Iterator[Lives]:
    found = lives_of(smp=_ROOM)
    yield found
    guestfirst.check(found.vm)


def scaled(lives: Lives, goal: int) -> None:
    """One ``scale`` does it, by the lab's own eyes, and nothing is pending after it."""
    machine = Machine(lives.vm, Vcpuctl(lives.vm))
    ended = machine.vcpuctl("scale", str(goal))
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == machine.online() == set(range(goal))
    assert set(machine.slots_in_guest()) == set(range(goal)), "CPUs that are offline are left"
    assert [slot for slot, shown in machine.vcpuctl.map().items() if shown["pending"] is not None] == []


@pytest.mark.parametrize(
    ("start", "words", "goals"),
    [(1, ("plug", "-n", "2"), (3, 1)), (3, ("unplug", "-n", "2"), (1, 3))],
    ids=["plug", "unplug"],
)
def test_whatever_instant_it_is_killed_at_the_next_scale_converges(
    lives: Lives, start: int, words: tuple[str, ...], goals: tuple[int, int]
) -> None:
    stands_at = 1
    for boundary in range(MANY):
        if lives.vm.plugs_left < _COST:
            guestfirst.check(lives.vm)
            lives.again()
            stands_at = 1
        if stands_at != start:
            scaled(lives, start)
        if not killed(lives.vm.qmp_socket, boundary, *words, within=_WITHIN):
            break
        # as it was meant, and the contrary: what is under way must not be taken for what is wanted
        goal = stands_at = goals[boundary % 2]
        scaled(lives, goal)
    assert 12 < boundary < MANY - 1, "the boundaries are not what this test takes them for"
    print(f"{words[0]}: {boundary} boundaries", file=sys.stderr)
