# SPDX-License-Identifier: Apache-2.0
"""vcpuctl.service as its package installs it, under a real systemd: in its sandbox, by its socket, with its group.

The guest of the lab is the host here, and a fake QEMU is its VM.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from typing import Any

import pytest
from kit.e2e.machine import ROOT, Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: An emulated CPU takes some seconds to start Python.
LONG = 120.0
_OPERATOR = "setpriv --reuid 1000 --regid 1000 --groups vcpuctl"
_STRANGER = "setpriv --reuid 1001 --regid 1001 --clear-groups"
_SET_UP = """\
set -e
cd /root
mkdir -p kit && tar -C kit -xf kit.tar
dpkg -i --force-depends vcpu-host.deb >/dev/null 2>&1
mkdir /run/vm1
systemd-run --quiet --unit=vm1 --setenv=PYTHONPATH=/root/kit python3 -m kit.fakes.qemu --dir /run/vm1
until [ -S /run/vm1/qmp ]; do sleep 0.2; done
echo 'qmp = "/run/vm1/qmp"' >/etc/vcpuctl/vms.d/web1.toml
systemctl start vcpuctl.socket
"""


def _fakes() -> bytes:
    """The fakes, and what they need, as a tar file."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w:gz") as archive:
        kit = ROOT / "tests" / "kit"
        archive.add(kit / "fakes", "kit/fakes", filter=lambda each: None if "__pycache__" in each.name else each)
        archive.add(kit / "until.py", "kit/until.py")
    return found.getvalue()


def _shows(machine: Machine, *names: str) -> dict[str, str]:
    """What systemd knows of the service."""
    said = machine.vm.shell(f"systemctl show vcpuctl.service {' '.join(f'-p {name}' for name in names)}", LONG)
    return dict(line.split("=", 1) for line in said.strip().splitlines())


def _asks(machine: Machine, user: str, words: str) -> dict[str, Any]:
    """What a user's vcpuctl prints."""
    said = machine.vm.shell(f"{user} vcpuctl --vm web1 -o json {words} 2>&1 || true", LONG)
    # On a busy machine it may say besides for whom it waits.
    document: dict[str, Any] = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    return document


def test_the_service_serves_its_group_in_its_sandbox_and_comes_again_when_it_is_killed(machine: Machine) -> None:
    vm = machine.vm
    (deb,) = (ROOT / "build" / "deb").glob("vcpu-host_*.deb")
    vm.put(deb.read_bytes(), "/root/vcpu-host.deb")
    vm.put(_fakes(), "/root/kit.tar")
    vm.shell(_SET_UP, LONG)
    assert vm.shell("stat -c '%a %G' /run/vcpuctl.sock", LONG).split() == ["660", "vcpuctl"]
    assert _shows(machine, "ActiveState") == {"ActiveState": "inactive"}, "nobody has asked yet"

    assert _asks(machine, _OPERATOR, "list")["vm"]["plugged_vcpus"] == 1
    assert _shows(machine, "ActiveState", "Type") == {"ActiveState": "active", "Type": "notify"}
    assert _asks(machine, _OPERATOR, "plug --without-agent")["outcome"] == "done"
    (entry,) = vm.shell("journalctl -o json SYSLOG_IDENTIFIER=vcpuctl", LONG).strip().splitlines()
    said = json.loads(entry)
    assert (said["VCPUCTL_FOR_UID"], said["VCPUCTL_UID"], said["VCPUCTL_OUTCOME"]) == ("1000", "0", "done")

    refused = _asks(machine, _STRANGER, "list")
    assert refused["error"]["code"] == "not-permitted", refused

    before = _shows(machine, "MainPID")["MainPID"]
    vm.shell("systemctl kill -s KILL vcpuctl.service", LONG)
    assert _asks(machine, _OPERATOR, "list")["vm"]["plugged_vcpus"] == 2
    assert _shows(machine, "MainPID")["MainPID"] not in (before, "0")
    exposure = vm.shell("systemd-analyze security vcpuctl.service --no-pager | tail -1", LONG)
    level = re.search(r": (\d+\.\d) ", exposure)
    assert level is not None, exposure
    assert float(level[1]) <= 2.0, exposure
