# SPDX-License-Identifier: Apache-2.0
"""Guests of libvirt that refuse, flood or do not read; and what was done, or may not be done, at libvirt's side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from kit.e2e.domain_faults import again, channel_taken, gives_up, run, wait_slots
from kit.e2e.domains import DomainMachine, all_three
from kit.e2e.operation import PID
from kit.ended import Ended
from kit.lab.virt.domain_xml import DomainSpec
from kit.lab.virt.libvirt_host import LibvirtHost

from .test_refusals import HOG

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PLUG, UNPLUG = ("plug", "--slot", "5"), ("unplug", "--slot", "5")
MOST_MEMORY = 150 << 20
FLOOD = "systemd-run --quiet --unit=flood dd if=/dev/zero of=/dev/virtio-ports/org.vcpuctl.agent.0 bs=64k"
#: Seconds in which a call has to give up that was given 5.
GIVEN = 40.0


def reason(ended: Ended) -> dict[str, str]:
    """Why the whole, or its only slot, ended so."""
    document = ended.json
    found: dict[str, str] = document.get("error") or document["reason"] or document["slots"][0]["reason"]
    return found


def test_a_guest_that_refuses_is_told_at_once_and_libvirt_is_asked_for_nothing(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    domain = machine.domain
    assert machine.vcpuctl(*PLUG).status == 0
    for name in ("hog1", "hog2"):
        domain.shell(HOG.format(name=name))
    for name in ("hog1", "hog2"):
        domain.shell(f"until chrt -p $(systemctl show -P MainPID {name}) | grep -q DEADLINE; do :; done", 30)
    calls = len(domain.host.calls("virDomainSetVcpu"))
    ended = machine.vcpuctl(*UNPLUG)
    assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
    assert (reason(ended)["code"], reason(ended)["errno"]) == ("deadline-bandwidth", "EBUSY")
    assert machine.sides() == all_three(0, 5)
    assert len(domain.host.calls("virDomainSetVcpu")) == calls
    domain.shell("systemctl stop hog1 hog2", 30)
    again(machine, UNPLUG, 0)


def test_a_guest_that_floods_or_does_not_read_costs_neither_memory_nor_more_time_than_was_given(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    domain = machine.domain
    domain.shell("systemctl stop vcpud", 60)
    domain.shell(FLOOD)
    for words, status in ((PLUG, 5), (("list",), 0)):
        ended, memory = run(machine, "--timeout", "5", *words, within=GIVEN)
        assert ended.status == status, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        assert memory < MOST_MEMORY, memory
        with channel_taken(machine):
            pass  # it is free for others
    domain.shell("systemctl stop flood; systemctl start vcpud", 120)
    again(machine, PLUG, 0, 5)

    domain.shell(f"kill -STOP {PID}")
    ended, _ = run(machine, "--timeout", "5", *UNPLUG, within=GIVEN)
    assert (ended.status, reason(ended)["code"]) == (5, "no-answer"), ended.stdout
    with channel_taken(machine):
        pass
    domain.shell(f"kill -CONT {PID}")
    again(machine, UNPLUG, 0)


@pytest.mark.parametrize("suite", ["sid", pytest.param("bookworm", marks=pytest.mark.slow)])
def test_a_write_that_libvirt_leaves_hanging_is_ended_and_the_channel_is_free(
    libvirt_hosts: Callable[..., LibvirtHost], libvirt_module: Mapping[str, str], suite: str
) -> None:
    host = libvirt_hosts(suite)
    host.run(DomainSpec(name="deaf"))
    for _ in range(2):  # the second one finds the channel free
        assert gives_up(host.uri, "deaf", libvirt_module) < GIVEN


def test_a_cpu_that_was_plugged_behind_libvirt_is_shown_refused_and_can_be_got_rid_of(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    domain, host = machine.domain, machine.domain.host
    slot = domain.qmp.execute("query-hotpluggable-cpus")[-1 - 6]
    host.qmp("web1", "device_add", driver=slot["type"], id="vcpu6", **slot["props"])
    domain.wait_kernel("CPU1 has been hot-added", 60.0)
    assert machine.sides() == {"guest": [0], "qemu": [0, 6], "libvirt": [0]}

    assert machine.vcpuctl("list").slots[6]["state"] == "offline"
    doctor = machine.vcpuctl("doctor")
    problems = {each["code"]: each for each in doctor.json["findings"] if each["level"] == "problem"}
    assert (doctor.status, set(problems)) == (1, {"behind-libvirt"})
    for words in (("unplug", "--slot", "6"), ("plug", "--slot", "6")):
        ended = machine.vcpuctl(*words)
        assert (ended.status, reason(ended)["code"]) == (3, "behind-libvirt"), ended.stdout
        assert "device_del vcpu6" in reason(ended)["hint"]
    assert machine.vcpuctl(*PLUG).outcome == "done"  # another slot is none of that
    assert machine.sides() == {"guest": [0, 5], "qemu": [0, 5, 6], "libvirt": [0, 5]}

    assert machine.vcpuctl("offline", "6").outcome == "done"
    host.qmp("web1", "device_del", id="vcpu6")
    wait_slots(machine, 0, 5)
    assert machine.vcpuctl("doctor").status == 0
    again(machine, ("plug", "--slot", "6"), 0, 5, 6)


def test_a_read_only_connection_shows_the_record_and_changes_nothing(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    looks = machine.by(machine.domain.host.uri.replace("/libvirt-sock", "/libvirt-sock-ro"))
    listed = looks("--no-monitor", "list")
    assert (listed.status, listed.json["agent"]) == (0, None), listed.stderr
    assert [slot for slot, each in listed.slots.items() if each["state"] != "empty"] == [0]
    assert "read only access prevents virDomainOpenChannel" in looks.text("--no-monitor", "list").stdout
    for words in (("list",), PLUG, UNPLUG, ("scale", "3")):
        ended = looks(*words)
        assert (ended.status, reason(ended)["code"]) == (3, "libvirt-denied"), ended.stdout
        assert "--no-monitor list" in reason(ended)["hint"]
    ended = looks("--no-monitor", *PLUG)
    assert (ended.status, reason(ended)["code"]) == (5, "libvirt-denied"), ended.stdout
    assert machine.sides() == all_three(0)


def test_without_the_monitor_a_domain_gets_no_mark_and_the_result_says_what_was_not_looked_at(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    host = machine.domain.host
    for words, slots in ((PLUG, (0, 5)), (("offline", "5"), (0,)), (("online", "5"), (0, 5)), (UNPLUG, (0,))):
        ended = machine.vcpuctl("--no-monitor", *words)
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
        assert reason(ended)["code"] == "record-alone"
        assert machine.sides()["guest"] == list(slots)
    assert machine.vcpuctl("--no-monitor", "list").json["vm"]["owner"]["record_alone"]
    assert host.monitor_commands() == []
    assert "custom monitor" not in host.ask("dominfo", "web1")
    assert machine.sides() == all_three(0)
    assert machine.vcpuctl("list").status == 0
    assert "custom monitor" in host.ask("dominfo", "web1")  # so the mark would have been seen
