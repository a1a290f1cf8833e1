# SPDX-License-Identifier: Apache-2.0
"""Faults of libvirt, of the way to it and of its channel: the promised outcome, and the same command ends right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.domain_faults import again, channel_taken, from_elsewhere, held, unknown
from kit.e2e.domains import DomainMachine, all_three

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PLUG, UNPLUG = ("plug", "--slot", "5"), ("unplug", "--slot", "5")
#: What is under way, the command of QEMU's at which it is met, and the slots that have a CPU when it is done.
BOTH = (("device_add", PLUG, (0, 5)), ("device_del", UNPLUG, (0,)))


def test_libvirtd_restarts_in_the_middle_and_whoever_then_finds_the_channel_taken_hears_who_has_something_pending(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    for at, words, slots in BOTH:
        with held(machine, at, *words) as vcpuctl:
            machine.domain.host.restart_daemon()
            unknown(vcpuctl.ends(), "libvirt-gone")
        with channel_taken(machine):
            refused = machine.vcpuctl(*words)
            assert refused.status == 3, refused.stdout
            error = refused.json["error"]
            assert (error["code"], error["who"]) == ("port-busy", "libvirt")
            assert f"process {vcpuctl.process.pid}" in error["text"], error
            seen = machine.vcpuctl("list")
            assert (seen.status, seen.json["agent"]) == (0, None), seen.stdout
            assert seen.json["agent_trouble"] == error, "whoever looks is told the same, and not refused"
        again(machine, words, *slots)


def test_two_vcpuctl_on_two_hosts_exclude_each_other_and_the_second_is_told_of_the_first(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    with held(machine, "device_add", *PLUG) as vcpuctl:
        for words in (UNPLUG, ("plug", "--slot", "3"), ("scale", "1")):
            refused = from_elsewhere(machine, *words)
            assert (refused.status, refused.outcome) == (3, "port-busy"), refused.stdout + refused.stderr
            assert f"process {vcpuctl.process.pid}" in refused.json["error"]["text"]
        assert vcpuctl.ends().outcome == "done"
    assert machine.sides() == all_three(0, 5)
    assert from_elsewhere(machine, *UNPLUG).outcome == "done"
    assert machine.sides() == all_three(0)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ssh_uri", "tcp_uri"])
def test_the_way_to_libvirt_is_cut_in_the_middle(domain_machines: Callable[..., DomainMachine], way: str) -> None:
    machine = domain_machines()
    host = machine.domain.host
    uri = getattr(host, way)
    for at, words, slots in BOTH:
        with held(machine, at, *words, uri=uri) as vcpuctl:
            if way == "ssh_uri":
                host.end_ssh()
            else:
                host.ground.cut()  # and nothing tells either end: only silence does
            unknown(vcpuctl.ends(), "libvirt-gone", "libvirt-silent")
        host.ground.cut(False)
        again(machine, words, *slots)
        assert machine.by(uri)(*words).status == 0


def test_a_channel_that_another_client_takes_by_force_is_waited_for_no_longer_than_was_said(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    with held(machine, "device_add", "--timeout", "8", *PLUG) as vcpuctl, channel_taken(machine, "force"):
        ended = vcpuctl.ends()
        unknown(ended, "agent-lost")
        assert "another client has the domain's channel" in ended.slots[5]["reason"]["text"]
        assert "process" not in ended.slots[5]["reason"]["text"]  # the record is its own
    again(machine, PLUG, 0, 5)
    # taken and given back: what was under way takes the channel up again
    with held(machine, "device_add", "plug", "--slot", "3") as vcpuctl:
        with channel_taken(machine, "force"):
            pass
        assert vcpuctl.ends().outcome == "done"
    assert machine.sides() == all_three(0, 3, 5)
    # once device_del is sent, the guest has let the CPU go: QEMU's and libvirt's word of its end is enough
    with held(machine, "device_del", *UNPLUG) as vcpuctl, channel_taken(machine, "force"):
        assert vcpuctl.ends().outcome == "done"
    again(machine, UNPLUG, 0, 3)


def test_a_domain_that_is_destroyed_in_the_middle_is_told_as_off(domain_machines: Callable[..., DomainMachine]) -> None:
    machine = domain_machines()
    assert machine.vcpuctl("plug", "--slot", "3").status == 0
    with held(machine, "device_add", *PLUG) as vcpuctl:
        machine.domain.host.destroy("web1")
        ended = vcpuctl.ends()
        unknown(ended, "domain-off")
    for words in (PLUG, ("list",)):
        ended = machine.vcpuctl(*words)
        assert (ended.status, ended.json["error"]["code"]) == (5, "domain-off"), ended.stdout
        assert "virsh start" in ended.json["error"]["hint"]


@pytest.mark.slow
def test_a_guest_that_restarts_in_the_middle(domain_machines: Callable[..., DomainMachine]) -> None:
    machine = domain_machines()
    with held(machine, "device_add", "--timeout", "300", *PLUG) as vcpuctl:
        machine.domain.shell("(busybox usleep 1000; reboot -ff) >/dev/null 2>&1 </dev/null &", 60)
        machine.domain.qmp.wait_event("RESET", 60.0)
        ended = vcpuctl.ends(360)
        assert (ended.status, ended.outcome) in {(0, "done"), (4, "unknown")}, ended.stdout
    machine.domain.wait_shell(600)
    machine.domain.shell("until systemctl is-active --quiet vcpud; do busybox usleep 200000; done", 600)
    again(machine, PLUG, 0, 5)
    again(machine, UNPLUG, 0)
