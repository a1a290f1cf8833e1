# SPDX-License-Identifier: Apache-2.0
"""The judge of promise 2 itself, on made-up records: it must see a violation, and only that."""

from __future__ import annotations

from typing import Any

import pytest
from kit.e2e import guestfirst

pytestmark = pytest.mark.e2e

SMP = "1,maxcpus=16,sockets=2,cores=4,threads=2"
BOOTED = (2.0, "smpboot: Booting Node 0 Processor 1 APIC 0x5")
OFFLINE = (3.0, "smpboot: CPU 1 is now offline")


def add(when: float, device_id: str) -> tuple[float, dict[str, Any]]:
    """Slot 5."""
    props = {"socket-id": 0, "core-id": 2, "thread-id": 1}
    return when, {"execute": "device_add", "arguments": {"driver": "x", "id": device_id, **props}}


def remove(when: float, device_id: str, request: str | None = None) -> tuple[float, dict[str, Any]]:
    return when, {"execute": "device_del", "arguments": {"id": device_id}, "id": request}


@pytest.mark.parametrize("device_id", ["vcpu-5", "foreign-1"])
def test_a_removal_before_the_kernel_let_go_is_a_violation(device_id: str) -> None:
    early = guestfirst.find([add(1.0, device_id), remove(2.5, device_id)], [BOOTED, OFFLINE], SMP)
    assert len(early) == 1
    assert (early[0].target, early[0].apic, early[0].since) == (device_id, 5, 2.0)
    assert device_id in str(early[0])
    assert guestfirst.find([add(1.0, device_id), remove(3.5, device_id)], [BOOTED, OFFLINE], SMP) == []


def test_a_cpu_that_came_back_is_online_again_and_one_that_never_was_is_not() -> None:
    again = (4.0, BOOTED[1])
    assert guestfirst.find([add(1.0, "vcpu-5"), remove(4.5, "vcpu-5")], [BOOTED, OFFLINE, again], SMP)
    assert guestfirst.find([add(1.0, "vcpu-5"), remove(4.5, "vcpu-5")], [], SMP) == []


@pytest.mark.parametrize("name", ["/machine/unattached/device[3]", "/machine/peripheral/vcpu-5", "vcpu-5"])
def test_a_cpu_that_was_there_before_the_record_began_is_watched_too(name: str) -> None:
    start = guestfirst.Start({name: 5}, {1: 5}, frozenset({0, 5}))
    assert len(guestfirst.find([remove(2.5, name)], [OFFLINE], SMP, start)) == 1
    assert guestfirst.find([remove(3.5, name)], [OFFLINE], SMP, start) == []


def test_what_the_lab_itself_removes_is_its_own_affair() -> None:
    assert guestfirst.find([add(1.0, "vcpu-5"), remove(2.5, "vcpu-5", "lab-7")], [BOOTED], SMP) == []


def test_a_slot_is_told_by_its_apic_id_whatever_the_sizes_of_the_levels() -> None:
    odd = "1,maxcpus=12,sockets=2,cores=3,threads=2"  # slot 9, whose APIC id is 11
    props = {"driver": "x", "id": "vcpu-9", "socket-id": 1, "core-id": 1, "thread-id": 1}
    assert guestfirst.apic_id(props, odd) == 11
    booted = (2.0, "smpboot: Booting Node 0 Processor 9 APIC 0xb")
    found = guestfirst.find(
        [(1.0, {"execute": "device_add", "arguments": props}), remove(2.5, "vcpu-9")], [booted], odd
    )
    assert [violation.apic for violation in found] == [11]


def hmp(when: float, line: str) -> tuple[float, dict[str, Any]]:
    return when, {"execute": "human-monitor-command", "arguments": {"command-line": line}, "id": "lab-1"}


def test_after_a_revert_the_cpus_are_those_of_the_snapshot() -> None:
    gone = [add(1.0, "vcpu-5"), hmp(1.5, "savevm one"), hmp(2.5, "loadvm one"), remove(4.0, "vcpu-5")]
    assert guestfirst.find(gone, [BOOTED], SMP) == []  # the guest never heard of it
    back = [add(1.0, "vcpu-5"), hmp(2.5, "savevm one"), hmp(3.5, "loadvm one"), remove(4.0, "vcpu-5")]
    assert len(guestfirst.find(back, [BOOTED, OFFLINE], SMP)) == 1  # it was taken offline after the snapshot
