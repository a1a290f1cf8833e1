# SPDX-License-Identifier: Apache-2.0
"""Guests in which something brings CPUs online again and again: none is taken that is online (promise 2)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from kit.e2e import guestfirst
from kit.e2e.bringup import bringups
from kit.e2e.load import onliner, rounds
from kit.e2e.machine import Machine, Vcpuctl
from kit.e2e.races import died_of_it
from kit.ended import Ended
from kit.lab import Lives

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(7200)]

#: Room for many plugs: under TCG a QEMU has a budget.
WIDE = "1,maxcpus=64,sockets=2,cores=16,threads=2"
ONE, SEVERAL = ("3",), ("3", "4", "5")
#: How often QEMU may die of its own race (``races``) while a CPU is plugged that is to be unplugged.
DEATHS = 3
#: Seconds for which a CPU may have been online when its device_del comes, on a quiet host: it came online between the
#: last look at it and that (docs/tried.md has what was measured).
WINDOW = 0.02


def unplugs(lives: Lives, slots: tuple[str, ...], seconds: float) -> Iterator[tuple[Ended, dict[int, float]]]:
    """How each unplug ended, and which slots' CPUs were online when their device_del came, for how many seconds."""
    known = done = deaths = 0
    while done < rounds(20):
        if lives.vm.plugs_left < len(slots):
            lives.again()
            known = 0
        machine = Machine(lives.vm, Vcpuctl(lives.vm))
        up = machine.vcpuctl("plug", "--slot", *slots)
        if up.status != 0 and deaths < DEATHS and died_of_it(lives.vm):
            # The guest started anew while a CPU came up, and QEMU did not survive that (docs/testing.md).
            print(f"QEMU died in a plug: {up.stdout}", file=sys.stderr)
            deaths += 1
            lives.again()
            known = 0
            continue
        assert (up.status, up.outcome) == (0, "done"), up.stdout
        with bringups(lives.vm) as traced, onliner(lives.vm, seconds):
            ended = machine.vcpuctl("unplug", "--slot", *slots)
        kernel = lives.vm.kernel_log
        found = guestfirst.find(lives.vm.qmp_commands(), kernel, WIDE)
        online = {violation.apic: traced.online_for(violation, kernel) for violation in found[known:]}
        print(f"{ended.outcome}; begun to come online before: {online}", file=sys.stderr)
        yield ended, {slot: time for slot, time in online.items() if time > 0}
        known = len(found)
        done += 1


def judged(ended: Ended) -> Counter[str]:
    """Each slot is done or refused, with the reason; how many are what."""
    assert ended.status in (0, 3, 6), ended.stdout + ended.stderr
    outcomes: Counter[str] = Counter()
    for slot, part in ended.slots.items():
        outcomes[part["outcome"]] += 1
        if part["outcome"] != "done":
            assert part["outcome"] == "refused", part
            assert part["reason"]["who"] == "guest", part
            assert "online again" in part["reason"]["text"], f"slot {slot}: {part['reason']}"
    return outcomes


@pytest.mark.parametrize("slots", [ONE, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("seconds", [1, 0.2])
def test_no_cpu_is_taken_that_something_has_brought_online_again(
    lives_of: Callable[..., Lives], slots: tuple[str, ...], seconds: float
) -> None:
    outcomes: Counter[str] = Counter()
    for ended, online in unplugs(lives_of(smp=WIDE), slots, seconds):
        outcomes += judged(ended)
        assert online == {}
    print(f"every {seconds} s, {len(slots)} slots: {dict(outcomes)}", file=sys.stderr)
    assert outcomes["done"], "none was ever done"


@pytest.mark.parametrize("slots", [ONE, SEVERAL], ids=["one", "several"])
def test_where_a_cpu_never_stays_offline_unplugs_are_refused_or_done_and_what_slips_through_is_told(
    lives_of: Callable[..., Lives], slots: tuple[str, ...]
) -> None:
    outcomes: Counter[str] = Counter()
    slipped: list[float] = []
    for ended, online in unplugs(lives_of(smp=WIDE), slots, 0.05):
        outcomes += judged(ended)
        for slot, lasted in online.items():
            slipped.append(lasted)
            assert lasted <= WINDOW, f"slot {slot} was online for {lasted:.3f} s"
            assert ended.slots[slot]["reason"] is not None, f"slot {slot} was online, and nothing is said of it"
    print(f"every 0.05 s, {len(slots)} slots: {dict(outcomes)}, slipped through: {slipped}", file=sys.stderr)
