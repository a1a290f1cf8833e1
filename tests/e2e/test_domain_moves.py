# SPDX-License-Identifier: Apache-2.0
"""Domains that libvirt saves or moves to another host: CPUs, and what is pending, go along; what is gone stays gone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from kit.e2e.domain_faults import again, held, unknown, wait_slots
from kit.e2e.domains import DomainMachine, all_three, migrate, save_and_restore
from kit.e2e.operation import ARRIVED, PID
from kit.lab.virt.libvirt_host import LibvirtHost

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

Pair = tuple[LibvirtHost, LibvirtHost]
PLUG, UNPLUG = ("plug", "--slot", "5"), ("unplug", "--slot", "5")


def pending(machine: DomainMachine) -> dict[int, Any]:
    """By slot, what ``list`` shows as pending."""
    listed = machine.vcpuctl("list")
    assert listed.status == 0, listed.stderr
    return {slot: each["pending"] for slot, each in listed.slots.items() if each["pending"]}


def done(machine: DomainMachine, *words: str) -> None:
    """One command is done."""
    ended = machine.vcpuctl(*words)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr


def test_cpus_plugged_out_of_order_move_and_what_was_unplugged_comes_back_by_no_move_and_no_save(
    libvirt_pair: Pair, domain_machines: Callable[..., DomainMachine]
) -> None:
    one, other = libvirt_pair
    machine = domain_machines(host=one)
    done(machine, "plug", "--slot", "5", "3")
    migrate(machine, other)
    assert machine.sides() == all_three(0, 3, 5)
    again(machine, UNPLUG, 0, 3)  # which was plugged over there
    done(machine, "plug", "--slot", "1")
    save_and_restore(machine)
    assert machine.sides() == all_three(0, 1, 3)
    migrate(machine, one)
    assert machine.sides() == all_three(0, 1, 3)
    done(machine, "scale", "1")
    assert machine.sides() == all_three(0)


@pytest.mark.slow
def test_what_is_pending_moves_with_the_domain_and_is_settled_where_it_is_then(
    libvirt_pair: Pair, domain_machines: Callable[..., DomainMachine]
) -> None:
    one, other = libvirt_pair
    machine = domain_machines(host=one)
    domain = machine.domain
    done(machine, "plug", "--slot", "3")
    watch = f"until {ARRIVED}; do busybox usleep 5000; done; kill -STOP $pid"
    domain.shell(f"pid={PID}; ({watch}) >/dev/null 2>&1 </dev/null &")
    unknown(machine.vcpuctl("--timeout", "8", *PLUG), "online-pending", "agent-slow", "agent-lost")
    migrate(machine, other)
    assert set(pending(machine)) == {5}
    domain.shell(f"kill -CONT {PID}", 30)
    again(machine, PLUG, 0, 3, 5)
    assert pending(machine) == {}

    # vcpuctl dies as QEMU is told of the removal: nobody has libvirt notice that the CPU is gone
    with held(machine, "device_del", *UNPLUG) as vcpuctl:
        vcpuctl.process.kill()
        wait_slots(machine, 0, 3)
    migrate(machine, one)
    if machine.domain.slots() != [0, 3]:  # libvirt's own trap: it brings back what it has on its record
        assert machine.domain.record() == [0, 3, 5]
    again(machine, UNPLUG, 0, 3)
    assert pending(machine) == {}
    migrate(machine, other)
    assert machine.sides() == all_three(0, 3)


@pytest.mark.slow
def test_a_domain_that_moves_away_under_an_operation_is_told_as_moved_and_goes_on_over_there(
    libvirt_pair: Pair, domain_machines: Callable[..., DomainMachine]
) -> None:
    one, other = libvirt_pair
    machine = domain_machines(host=one)
    for at, words, slots, to in (("device_add", PLUG, (0, 5), other), ("device_del", UNPLUG, (0,), one)):
        with held(machine, at, *words) as vcpuctl:
            if words is UNPLUG:
                wait_slots(machine, 0)
            migrate(machine, to)
            ended = vcpuctl.ends()
            unknown(ended, "domain-off")
            assert "moved to another host" in ended.slots[5]["reason"]["text"]
        again(machine, words, *slots)


@pytest.mark.slow
def test_while_a_domain_moves_nothing_is_changed_and_after_that_it_is(
    libvirt_pair: Pair, domain_machines: Callable[..., DomainMachine]
) -> None:
    one, other = libvirt_pair
    machine = domain_machines(host=one)
    other.folder_of("web1")
    line = ["virsh", "migrate", "--live", "--p2p", "--unsafe", "--bandwidth", "1", "web1", other.uri_by_name]
    with subprocess.Popen(one.ground.command(line), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as moving:
        machine.domain.wait_command("migrate", 60.0)
        for words in (PLUG, ("scale", "3"), UNPLUG):
            ended = machine.vcpuctl(*words)
            assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout + ended.stderr
            assert ended.json["reason"]["code"] == "migrating"
        assert machine.vcpuctl("list").status == 0
        one.ask("domjobabort", "web1")
        moving.communicate(timeout=60)
    assert machine.sides() == all_three(0)
    again(machine, PLUG, 0, 5)
