# SPDX-License-Identifier: Apache-2.0
"""What the lab's hosts of libvirt promise, on real libvirtds, QEMUs and guests."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from kit.e2e import domains
from kit.e2e.machine import SPEC
from kit.lab import LabError
from kit.lab.virt import guests
from kit.lab.virt.domain_xml import DomainSpec, Vcpu
from kit.lab.virt.libvirt_host import LibvirtHost
from kit.lab.virt.pair import two_hosts
from kit.lab.virt.root import SUITES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

LIBVIRT_PORT = 16509
TESTS = Path(__file__).parents[1]

#: A client of libvirt: prints the names of the running domains, and what QEMU says of the first one's status.
CLIENT = """
import sys, libvirt, libvirt_qemu
connection = libvirt.open(sys.argv[1])
domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
print(*(domain.name() for domain in domains))
print(libvirt_qemu.qemuMonitorCommand(domains[0], '{"execute": "query-status"}', 0))
"""

#: Starts a host and a domain, says the ids of libvirtd and QEMU, and waits to be killed.
OWNER = """
import sys
from kit.lab.virt.domain_xml import DomainSpec
from kit.lab.virt.libvirt_host import LibvirtHost
with LibvirtHost("sid") as host:
    host.run(DomainSpec())
    print(host.daemon.pid, host.pid("d1"), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=[name if name == "sid" else pytest.param(name, marks=pytest.mark.slow) for name in SUITES])
def host(request: pytest.FixtureRequest) -> Iterator[LibvirtHost]:
    with LibvirtHost(request.param, progress=print) as running:
        yield running


def test_a_paused_domain_takes_vcpus_in_any_order_and_libvirt_and_qemu_agree(host: LibvirtHost) -> None:
    host.run(DomainSpec(name="d1"))
    for vcpu in ("5", "3"):
        host.ask("setvcpu", "d1", vcpu, "--enable", "--live")
    assert host.record("d1") == host.slots("d1") == [0, 3, 5]
    assert host.record("d1", inactive=True) == [0]
    assert [call.rpartition("vcpumap=")[2] for call in host.calls("virDomainSetVcpu")] == [
        "'5' state=1 flags=0x1",
        "'3' state=1 flags=0x1",
    ]


def test_topologies_numa_cells_and_fixed_vcpus_are_as_described(host: LibvirtHost) -> None:
    fixed = (Vcpu(0, hotpluggable=False), Vcpu(5), Vcpu(3))
    host.run(DomainSpec(name="cells", vcpus=fixed, cells=("0-7", "8-15"), topology=(2, 2, 2, 2), agent=False))
    assert host.record("cells") == host.slots("cells") == [0, 3, 5]
    slots = list(reversed(host.qmp("cells", "query-hotpluggable-cpus")))
    assert [slot["props"]["node-id"] for slot in slots] == [0] * 8 + [1] * 8
    assert slots[5]["props"] == {"node-id": 0, "socket-id": 0, "die-id": 1, "core-id": 0, "thread-id": 1} | {
        name: value for name, value in slots[5]["props"].items() if name == "module-id"
    }
    assert slots[5]["qom-path"] == "/machine/peripheral/vcpu5"
    assert host.xml("cells").find("devices/channel") is None


def test_clients_reach_a_host_by_unix_tcp_and_ssh_and_only_their_monitor_commands_are_told(
    host: LibvirtHost, libvirt_module: Mapping[str, str]
) -> None:
    host.run(DomainSpec(name="d1"))
    host.qmp("d1", "query-cpus-fast")
    assert host.monitor_commands() == []
    uris = [host.uri, host.tcp_uri, host.ssh_uri]
    for uri in uris:
        said = subprocess.run(
            [sys.executable, "-c", CLIENT, uri],
            env={**os.environ, **libvirt_module},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        name, status = said.splitlines()
        assert name == "d1"
        assert '"running":false' in status
    assert host.monitor_commands() == [{"execute": "query-status"}] * len(uris)


def test_a_link_that_is_cut_loses_packets_in_silence_until_it_is_mended(host: LibvirtHost) -> None:
    host.ground.cut()
    with pytest.raises(TimeoutError):
        socket.create_connection((host.address, LIBVIRT_PORT), timeout=0.5)
    host.ground.cut(False)
    socket.create_connection((host.address, LIBVIRT_PORT), timeout=60.0).close()


def test_ssh_connections_are_ended_by_the_host_and_new_ones_are_taken(host: LibvirtHost) -> None:
    with subprocess.Popen(host.ssh("echo up; sleep 600"), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        host.end_ssh()
        assert client.wait(60.0) == 255
    assert subprocess.run(host.ssh("hostname"), stdout=subprocess.PIPE, text=True, check=True).stdout == "hosta\n"


def test_a_domain_goes_on_when_its_libvirtd_is_killed_and_is_found_again(host: LibvirtHost) -> None:
    host.run(DomainSpec(name="d1"))
    host.ask("setvcpu", "d1", "5", "--enable", "--live")
    qemu, daemon = host.pid("d1"), host.daemon.pid
    host.kill_daemon()
    assert host.virsh("list").returncode != 0
    host.start_daemon()
    assert host.record("d1") == host.slots("d1") == [0, 5]
    host.restart_daemon()
    assert host.record("d1") == host.slots("d1") == [0, 5]
    assert host.pid("d1") == qemu
    assert host.daemon.pid != daemon


def test_two_hosts_are_two_to_libvirt_and_a_domain_moves_with_its_vcpus_between_them() -> None:
    with two_hosts(progress=print) as (one, other):
        one.run(DomainSpec(name="d1"))
        for vcpu in ("5", "3"):
            one.ask("setvcpu", "d1", vcpu, "--enable", "--live")
        one.migrate("d1", other)
        assert other.record("d1") == other.slots("d1") == [0, 3, 5]
        assert "d1" not in one.ask("list", "--name")
        other.migrate("d1", one)
        assert one.slots("d1") == [0, 3, 5]


def test_what_a_client_does_behind_libvirt_is_found_and_what_libvirt_does_itself_is_not(host: LibvirtHost) -> None:
    host.run(DomainSpec(name="d1"))
    host.ask("setvcpu", "d1", "5", "--enable", "--live")
    domains.check_host(host)
    slot = host.qmp("d1", "query-hotpluggable-cpus")[-1 - 3]
    arguments = {"driver": slot["type"], "id": "vcpu3", **slot["props"]}
    host.ask("qemu-monitor-command", "d1", json.dumps({"execute": "device_add", "arguments": arguments}))
    assert host.slots("d1") == [0, 3, 5]
    assert host.record("d1") == [0, 5]
    with pytest.raises(domains.BehindLibvirtError, match="device_add"):
        domains.check_host(host)


@pytest.mark.long
@pytest.mark.parametrize("suite", ["sid", pytest.param("bookworm", marks=pytest.mark.slow)])
def test_restored_guests_have_vcpud_on_its_channel_and_are_seen_from_three_sides(suite: str) -> None:
    assert SPEC.debs is not None
    with LibvirtHost(suite, progress=print) as host:
        for name in ("web1", "another-name"):
            spec = DomainSpec(name=name, guest="debian12-amd64", record=True)
            with guests.restored(host, spec, SPEC.debs, progress=print) as domain:
                assert domain.shell("systemctl is-active vcpud").strip() == "active"
                assert guests.channel_state(domain) == "connected"
                host.ask("setvcpu", name, "5", "--enable", "--live")
                domain.wait_kernel("CPU1 has been hot-added", 60.0)
                domain.shell("echo 1 >/sys/devices/system/cpu/cpu1/online", 60.0)
                assert domain.online() == domain.slots() == domain.record() == [0, 5]
                assert host.xml(name).findtext("uuid") == host.xml(name, inactive=True).findtext("uuid") == spec.id
                added = [command for _, command in domain.qmp_commands() if command.get("execute") == "device_add"]
                assert [command["arguments"]["id"] for command in added] == ["vcpu5"]


@pytest.mark.long
def test_lives_of_a_domain_begin_anew_and_one_without_a_record_needs_no_state_of_its_own() -> None:
    assert SPEC.debs is not None
    spec = DomainSpec(name="web1", guest="debian12-amd64", record=True)
    with LibvirtHost(progress=print) as host:
        for _ in range(2):
            with guests.restored(host, spec, SPEC.debs, progress=print) as domain:
                assert domain.kernel_log == []
                domain.shell("echo a word to the kernel >/dev/kmsg")
                domain.wait_kernel("a word to the kernel")
                assert "custom configuration parameters" in host.ask("dominfo", "web1")
        said: list[str] = []
        with guests.restored(host, replace(spec, record=False), SPEC.debs, progress=said.append) as domain:
            assert domain.slots() == domain.record() == domain.online() == [0]
            assert "custom configuration parameters" not in host.ask("dominfo", "web1")
            with pytest.raises(LabError):
                domain.qmp_commands()
        assert said == []


@pytest.mark.slow
def test_a_guest_moves_between_hosts_and_its_vcpud_is_there() -> None:
    assert SPEC.debs is not None
    spec = DomainSpec(name="web1", guest="debian12-amd64", record=True)
    with two_hosts(progress=print) as (one, other), guests.restored(one, spec, SPEC.debs, progress=print) as domain:
        boot = domain.shell("cat /proc/sys/kernel/random/boot_id")
        one.ask("setvcpu", "web1", "5", "--enable", "--live")
        domain.wait_kernel("CPU1 has been hot-added", 60.0)
        one.migrate("web1", other)
        domain.moved(other)
        assert domain.shell("cat /proc/sys/kernel/random/boot_id", 60.0) == boot
        assert domain.slots() == domain.record() == [0, 5]
        guests.wait_channel(domain)


def test_all_of_a_host_ends_with_the_process_that_made_it_even_if_that_is_killed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    with owner.stdin, owner.stdout:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        ends = [os.pidfd_open(pid) for pid in pids]
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    for end in ends:
        ended, _, _ = select.select([end], [], [], 60.0)
        assert ended
        os.close(end)
