# SPDX-License-Identifier: Apache-2.0
"""An administrator's hooks on a real guest, in the service's own sandbox."""

from __future__ import annotations

import re

import pytest
from kit.e2e.machine import ROOT, Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HOOK = "/etc/vcpud/hooks.d/pre-offline.d/10-database"
#: Below the agent's runtime directory, one of the few places where its sandbox lets a hook write.
SEEN = "/run/vcpud/seen"


def put_hook(machine: Machine, script: str) -> None:
    machine.vm.put(f"#!/bin/sh\n{script}\n".encode(), HOOK)
    machine.vm.shell(f"chmod 755 {HOOK}")


def restart(machine: Machine) -> None:
    machine.vm.shell("systemctl daemon-reload; systemctl restart vcpud", timeout=120)


def test_a_hook_keeps_cpus_in_its_own_words_and_one_that_agrees_is_told_which_go(machine: Machine) -> None:
    before = machine.state()
    assert machine.vcpuctl("plug", "-n", "2").status == 0
    machine.vm.put(b"hooks = true\n", "/etc/vcpud/vcpud.conf")
    machine.vm.shell(f"mkdir -p {HOOK.rpartition('/')[0]}")
    put_hook(machine, "echo 'the database needs them'; exit 1")
    restart(machine)
    now = machine.state()
    ended = machine.vcpuctl("unplug", "--slot", "1", "2")
    assert (ended.status, ended.outcome, sorted(ended.slots)) == (3, "refused", [1, 2]), ended.stdout
    for part in ended.slots.values():
        assert (part["reason"]["code"], part["reason"]["who"]) == ("hook-refused", "guest")
        assert "10-database (status 1): the database needs them" in part["reason"]["text"]
    assert machine.device_dels() == 0
    assert machine.state() == now

    put_hook(machine, f'echo "$1 $2 $VCPUD_EVENT $VCPUD_CPUS" >{SEEN}')
    ended = machine.vcpuctl("unplug", "--slot", "1", "2")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
    assert machine.vm.shell(f"cat {SEEN}").splitlines() == ["pre-offline 1-2 pre-offline 1-2"]
    assert machine.state() == before


@pytest.mark.slow
def test_the_drop_in_of_the_man_page_lets_a_hook_write_where_it_could_not(machine: Machine) -> None:
    page = (ROOT / "packaging/man/vcpud.8").read_text()
    drop_in = re.search(r"^\[Service\]\n(?:\w+=.*\n)+", page, re.MULTILINE)
    assert drop_in is not None
    assert "ReadWritePaths=/srv/app" in drop_in[0]
    assert machine.vcpuctl("plug").status == 0
    machine.vm.put(b"hooks = true\n", "/etc/vcpud/vcpud.conf")
    machine.vm.shell(f"mkdir -p {HOOK.rpartition('/')[0]} /etc/systemd/system/vcpud.service.d /srv/app")
    put_hook(machine, "echo here >/srv/app/seen")
    restart(machine)
    ended = machine.vcpuctl("unplug")
    assert (ended.status, ended.slots[1]["reason"]["code"]) == (3, "hook-refused"), ended.stdout
    machine.vm.put(drop_in[0].encode(), "/etc/systemd/system/vcpud.service.d/override.conf")
    restart(machine)
    assert machine.vcpuctl("unplug").status == 0
    assert machine.vm.shell("cat /srv/app/seen") == "here\n"
