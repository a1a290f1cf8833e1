# SPDX-License-Identifier: Apache-2.0
"""Debian 13 with its ordinary kernel, as installations have it; the matrix (test_platforms) has every command on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest
from kit.e2e import guestfirst
from kit.e2e.load import busy_host, rounds
from kit.e2e.machine import Machine, Vcpuctl
from kit.lab import Lives

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long]

GUEST = "debian13-amd64"
#: Room for five rounds: under TCG each plug uses up one of maxcpus for good.
WIDE = "1,maxcpus=64,sockets=2,cores=16,threads=2"
STEPS = (3, 8)
#: Seconds for a command, where each new CPU has udev load modules, on a host that is busy.
WITHIN = 600.0


@pytest.mark.timeout(900)
def test_a_guest_that_knows_no_hypervisor_is_told_as_one_in_the_plan(machines: Callable[..., Machine]) -> None:
    machine = machines(guest=GUEST, smp="1,maxcpus=16", unaided=True)
    assert machine.vm.accel == "tcg"  # KVM is a hypervisor that Linux knows
    before = machine.state()
    assert machine.vm.shell("cat /sys/devices/system/cpu/possible").strip() == "0"
    causes = set()
    for words in (("plug", "-n", "3"), ("plug", "--slot", "9"), ("scale", "2"), ("plan", "plug")):
        ended = machine.vcpuctl(*words)
        assert ended.status == 3, f"{words}: {ended.stdout}"
        reason = ended.json["refusals"][0]["reason"] if words[0] == "plan" else ended.json["reason"]
        assert "hypervisor" in reason["text"], reason
        assert "nr_cpus" not in reason["text"] + reason["hint"], reason
        causes.add(reason["code"])
        assert machine.state() == before
    assert machine.sent("device_add") == []
    doctor = machine.vcpuctl("doctor")
    assert doctor.status == 1, doctor.stdout
    problems = {finding["code"]: finding for finding in doctor.json["findings"] if finding["level"] == "problem"}
    assert set(problems) == causes
    (problem,) = problems.values()
    assert "hypervisor" in problem["text"]
    assert "nr_cpus" not in problem["fix"]


@pytest.mark.timeout(7200)
def test_rounds_under_load_get_no_false_verdict(lives_of: Callable[..., Lives]) -> None:
    lives = lives_of(guest=GUEST, smp=WIDE)
    machine = Machine(lives.vm, Vcpuctl(lives.vm))
    for number in range(1, rounds(10) + 1):
        if lives.vm.plugs_left < sum(STEPS):
            guestfirst.check(lives.vm)
            lives.again()
            machine = Machine(lives.vm, Vcpuctl(lives.vm))
        before = machine.state()
        with busy_host():
            for step in STEPS:
                spent = [both_ways(machine, step, way) for way in ("plug", "unplug")]
                print(f"round {number}: +{step} {spent[0]:.1f} s, -{step} {spent[1]:.1f} s", file=sys.stderr)
        assert machine.state() == before
    guestfirst.check(lives.vm)


def both_ways(machine: Machine, step: int, way: str) -> float:
    """So many slots up or down, of which each has to be done, by the console's words; how long it took."""
    began = time.monotonic()
    ended = machine.vcpuctl("--timeout", str(WITHIN), way, "-n", str(step), timeout=WITHIN + 60)
    took = time.monotonic() - began
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    slots = set(ended.slots)
    assert len(slots) == step
    for slot, part in ended.slots.items():
        assert part["outcome"] == "done", part
        # by its place in the firmware's table, which is the slot's: Linux 6.6 and newer
        word = f"Processor {slot} APIC 0x{slot:x}" if way == "plug" else f"CPU {slot} is now offline"
        machine.vm.wait_kernel(f"{word}$", WITHIN, since=began)  # what it said before may come late over its console
    assert machine.online() == ({0} | slots if way == "plug" else {0})
    assert set(machine.filled()) == machine.online()
    return took
