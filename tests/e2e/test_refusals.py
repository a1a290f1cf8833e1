# SPDX-License-Identifier: Apache-2.0
"""Guests that say no, made for real: the errno, the reason in words, the CPU as it was, and the next command works."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine
from kit.ended import Ended

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: Nine tenths of a CPU: two of them are admitted on two CPUs and do not fit on one (dl_bw_check_overflow).
HOG = (
    "systemd-run --quiet --unit={name} "
    "chrt -d --sched-runtime 900000000 --sched-deadline 1000000000 --sched-period 1000000000 0 sleep 900"
)
EJECT = "/sys/firmware/acpi/hotplug/processor/enabled"
#: The boot CPU is isolated, so cpu1 is the only one that is not (housekeeping_setup, cpu_down_maps_locked); and the
#: kernel takes three CPUs, whatever the machine has. Two guests in one, for each needs a boot of its own.
NARROW = {
    "smp": "2,maxcpus=16,sockets=2,cores=4,threads=2",
    "kernel_args": "isolcpus=0,2 nohz_full=2 nr_cpus=3",
}


def only_part(ended: Ended) -> dict[str, str]:
    """The reason of the only slot of a result."""
    (part,) = ended.json["slots"]
    assert part["outcome"] == ended.outcome
    reason: dict[str, str] = part["reason"]
    assert reason["text"]
    return reason


def test_reserved_deadline_bandwidth_keeps_a_cpu_and_is_named(machine: Machine) -> None:
    before = machine.state()
    assert machine.vcpuctl("plug", "--slot", "1").status == 0
    for name in ("hog1", "hog2"):
        machine.vm.shell(HOG.format(name=name))
    # systemd-run returns before chrt has made itself a deadline task
    for name in ("hog1", "hog2"):
        machine.vm.shell(
            f"until chrt -p $(systemctl show -P MainPID {name}) | grep -q DEADLINE; do :; done", timeout=20
        )
    now = machine.state()
    for words in (("unplug", "--slot", "1"), ("offline", "1"), ("scale", "1"), ("unplug", "--slot", "1")):
        ended = machine.vcpuctl(*words)
        assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
        reason = only_part(ended)
        assert (reason["code"], reason["who"], reason["errno"]) == ("deadline-bandwidth", "guest", "EBUSY")
        assert "SCHED_DEADLINE" in reason["text"]
        assert "sleep (pid " in reason["text"]  # whose bandwidth it is
        assert machine.state() == now
    assert machine.device_dels() == 0
    # what is allowed works meanwhile
    assert machine.vcpuctl("plug", "--slot", "2").status == 0
    assert machine.vcpuctl("unplug", "--slot", "2").status == 0
    machine.vm.shell("systemctl stop hog1 hog2")
    assert machine.vcpuctl("unplug", "--slot", "1").status == 0
    assert machine.state() == before


@pytest.mark.long
def test_the_last_housekeeping_cpu_stays(machines: Callable[..., Machine]) -> None:
    machine = machines(**NARROW)
    before = machine.state()
    assert machine.vm.shell("cat /sys/devices/system/cpu/isolated").strip() == "0,2"
    assert machine.vcpuctl("plug", "--slot", "4").status == 0  # isolated too, so no way out
    now = machine.state()
    for words in (("unplug", "--slot", "1"), ("offline", "1")):
        ended = machine.vcpuctl(*words)
        assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
        reason = only_part(ended)
        assert (reason["code"], reason["who"], reason["errno"]) == ("last-housekeeping", "guest", "EBUSY")
        assert "0,2" in reason["text"]
        assert machine.state() == now
    assert machine.device_dels() == 0
    findings = {finding["code"]: finding for finding in machine.vcpuctl("doctor").json["findings"]}
    assert findings["isolcpus"]["level"] == "note"
    assert "0,2" in findings["isolcpus"]["text"]

    # One that may go beside one that may not: all or nothing only if asked for.
    undone = machine.vcpuctl("unplug", "--slot", "1", "4", "--atomic")
    assert (undone.status, undone.outcome) == (1, "failed"), undone.stdout
    assert {slot: part["reason"]["code"] for slot, part in undone.slots.items()} == {
        1: "last-housekeeping",
        4: "atomic",
    }
    assert machine.online() == {0, 1, 4}
    some = machine.vcpuctl("unplug", "--slot", "1", "4")
    assert (some.status, some.outcome) == (6, "partial"), some.stdout
    assert {slot: part["outcome"] for slot, part in some.slots.items()} == {1: "refused", 4: "done"}
    assert machine.state() == before


def test_a_guest_that_will_not_eject_gets_its_cpu_back_online(machine: Machine) -> None:
    before = machine.state()
    assert machine.vcpuctl("plug", "--slot", "1").status == 0
    machine.vm.shell(f"echo 0 > {EJECT}")
    now = machine.state()
    for times in (1, 2):
        ended = machine.vcpuctl("unplug", "--slot", "1")
        assert (ended.status, ended.outcome) == (1, "failed"), ended.stdout
        reason = only_part(ended)
        assert (reason["code"], reason["who"]) == ("eject-disabled", "guest")
        assert "3/128" in reason["text"]
        assert machine.device_dels() == times
        assert machine.state() == now  # online again
        machine.vm.wait_kernel("Eject disabled")
    sick = machine.vcpuctl("doctor")
    findings = [finding for finding in sick.json["findings"] if finding["code"] == "eject-disabled"]
    assert sick.status == 1
    assert {finding["level"] for finding in findings} == {"problem", "warning"}
    machine.vm.shell(f"echo 1 > {EJECT}")
    assert machine.vcpuctl("unplug", "--slot", "1").status == 0
    assert machine.state() == before


@pytest.mark.long
def test_cpus_that_the_kernel_has_no_room_for_are_not_plugged(machines: Callable[..., Machine]) -> None:
    machine = machines(**NARROW)
    before = machine.state()
    for words in (("plug", "-n", "2"), ("plug", "-n", "2", "--atomic"), ("plug", "--slot", "5", "6"), ("scale", "4")):
        refused = machine.vcpuctl(*words)
        assert (refused.status, refused.outcome) == (3, "refused"), refused.stdout
        reason = refused.json["reason"]
        assert reason["code"] == "guest-possible"
        assert "1 at most" in reason["text"]
        assert "nr_cpus=3" in reason["hint"]
        assert machine.state() == before

    assert machine.vcpuctl("plug").status == 0
    assert machine.online() == {0, 1, 2}
    assert machine.vcpuctl("plug").status == 3
    assert machine.vcpuctl("scale", "2").status == 0
    assert machine.state() == before

    findings = {finding["code"]: finding for finding in machine.vcpuctl("doctor").json["findings"]}
    assert findings["guest-possible"]["level"] == "problem"
    assert "nr_cpus=3" in findings["guest-possible"]["fix"]


def test_the_boot_cpu_stays_and_qemu_is_not_even_asked(machine: Machine) -> None:
    assert machine.vcpuctl("plug").status == 0
    now = machine.state()
    for words, code in (
        (("unplug", "--slot", "0"), "boot-cpu"),
        (("unplug", "--slot", "1", "0"), "boot-cpu"),  # all or nothing, where it is known beforehand
        (("unplug", "-n", "2"), "not-enough"),
        (("offline", "0"), "cpu0"),
    ):
        ended = machine.vcpuctl(*words)
        assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
        assert ended.json["reason"]["code"] == code
        assert machine.state() == now
    assert machine.device_dels() == 0
    assert machine.vcpuctl("unplug", "--slot", "1").status == 0
