# SPDX-License-Identifier: Apache-2.0
"""Domains of several hosts by one ``vcpuctl apply``: each gets its vCPUs, and what cannot be had is told for each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import documents
from kit.e2e import domain_table
from kit.e2e.domains import DomainMachine, all_three
from kit.e2e.machine import Vcpuctl
from kit.ended import Ended
from kit.lab.virt.domain_xml import DomainSpec
from kit.lab.virt.libvirt_host import LibvirtHost

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

#: So many guests in all, on two hosts, and so many domains besides that are paused and so have no guest to ask.
GUESTS = int(os.environ.get("VCPU_E2E_DOMAINS") or 4)
PAUSED = 16


def apply(machine: DomainMachine, goals: dict[str, dict[str, object]], file: Path) -> tuple[Ended, float]:
    """Run ``vcpuctl apply`` on these, and return how it ended, and how long it took."""
    file.write_text(json.dumps({"vms": goals}))
    began = time.monotonic()
    ended = Vcpuctl.wait(machine.vcpuctl.start("apply", str(file), whole=True), 600)
    return ended, time.monotonic() - began


def test_domains_of_two_hosts_get_their_vcpus_at_once(
    domain_machines: Callable[..., DomainMachine], libvirt_hosts: Callable[..., LibvirtHost], tmp_path: Path
) -> None:
    hosts = [libvirt_hosts("sid", name=name) for name in ("hosta", "hostb")]
    machines = [domain_machines(host=hosts[number % 2], name=f"web{number}") for number in range(GUESTS)]
    paused = [f"off{number}" for number in range(PAUSED)]
    for number, name in enumerate(paused):
        hosts[number % 2].run(DomainSpec(name=name))
    alone = machines[0]

    def goal(host: LibvirtHost, name: str, vcpus: int) -> dict[str, object]:
        # one of them by another way, as hosts of others are
        uri = host.uri if host is hosts[0] else host.tcp_uri
        return {"vcpus": vcpus, "libvirt": uri, "domain": name}

    one: list[float] = []
    for vcpus in (2, 1, 2, 1):
        ended, took = apply(alone, {"web0": goal(hosts[0], "web0", vcpus)}, tmp_path / "one.json")
        assert ended.status == 0, ended.stdout + ended.stderr
        one.append(took)

    everyone = {machine.domain.name: goal(machine.domain.host, machine.domain.name, 2) for machine in machines}
    everyone |= {name: goal(hosts[number % 2], name, 2) for number, name in enumerate(paused)}
    ended, took = apply(alone, everyone, tmp_path / "all.json")
    members = {member["vm"]: member for member in ended.json["vms"]}
    assert list(members) == list(everyone)
    for machine in machines:
        assert members[machine.domain.name]["exit_status"] == 0, members[machine.domain.name]
        assert machine.sides() == all_three(0, 1)
    for name in paused:
        assert members[name]["exit_status"] == 3, members[name]
        assert members[name]["document"]["reason"]["code"] == "vm-not-running"
    assert ended.status == 3
    documents.check_output(ended.stdout)

    guests = {name: each for name, each in everyone.items() if name not in paused}
    down = {name: {**each, "vcpus": 1} for name, each in guests.items()}
    ended, removed = apply(alone, down, tmp_path / "down.json")
    assert ended.status == 0, ended.stdout + ended.stderr
    assert all(machine.sides() == all_three(0) for machine in machines)
    domain_table.note(
        "apply",
        f"one `vcpuctl apply` on two hosts, {GUESTS} domains with a guest and {PAUSED} that are paused (refused, each "
        f"by itself): one vCPU more in {took:.1f} s, {took / min(one[0::2]):.2f} times what one domain alone took "
        f"({min(one[0::2]):.1f} s); one less, without the paused ones, in {removed:.1f} s, "
        f"{removed / min(one[1::2]):.2f} times ({min(one[1::2]):.1f} s)",
    )
