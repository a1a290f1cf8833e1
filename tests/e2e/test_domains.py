# SPDX-License-Identifier: Apache-2.0
"""vCPUs of domains: what vcpuctl did through libvirt, seen in the guest, in QEMU and in libvirt's record."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.domains import DomainMachine, all_three

pytestmark = [pytest.mark.e2e, pytest.mark.long]


#: What is done, by which of the host's URIs, and the slots that have a vCPU after it: plugged out of order.
OPERATIONS = (
    ("uri", ("plug", "--slot", "5"), (0, 5)),
    ("tcp_uri", ("plug", "--slot", "3"), (0, 3, 5)),
    ("ssh_uri", ("unplug", "--slot", "5"), (0, 3)),
)


def test_guest_qemu_and_libvirt_agree_after_each_operation(domain_machines: Callable[..., DomainMachine]) -> None:
    machine = domain_machines("sid")
    for uri, words, slots in OPERATIONS:
        ended = machine.by(getattr(machine.domain.host, uri))(*words)
        assert ended.status == 0, ended.stderr
        assert machine.sides() == all_three(*slots)


@pytest.mark.slow
def test_where_libvirt_misses_the_end_of_an_unplug_its_restart_brings_all_three_together(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines("bookworm")
    host = machine.domain.host
    for uri, words, slots in OPERATIONS:
        ended = machine.by(getattr(host, uri))(*words)
        assert ended.status == 0, ended.stderr
        if words[0] == "unplug":
            assert machine.sides() == {**all_three(*slots), "libvirt": [0, 3, 5]}
            host.restart_daemon()
        assert machine.sides() == all_three(*slots)
