# SPDX-License-Identifier: Apache-2.0
"""Tests that must fail, by what is checked at their end: run by ``test_domain_guard.py`` alone."""

from __future__ import annotations

import json
from collections.abc import Callable

from kit.lab.virt.domain_xml import DomainSpec
from kit.lab.virt.libvirt_host import LibvirtHost

pytest_plugins = ["kit.e2e.libvirt_fixtures"]


def test_a_cpu_is_plugged_behind_libvirt(libvirt_hosts: Callable[..., LibvirtHost]) -> None:
    host = libvirt_hosts("sid")
    host.run(DomainSpec(name="d1"))
    slot = host.qmp("d1", "query-hotpluggable-cpus")[-1 - 3]
    arguments = {"driver": slot["type"], "id": "vcpu3", **slot["props"]}
    host.ask("qemu-monitor-command", "d1", json.dumps({"execute": "device_add", "arguments": arguments}))


def test_a_cpu_is_plugged_by_libvirt(libvirt_hosts: Callable[..., LibvirtHost]) -> None:
    host = libvirt_hosts("sid")
    host.run(DomainSpec(name="d1"))
    host.ask("setvcpu", "d1", "3", "--enable", "--live")
