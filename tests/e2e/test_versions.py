# SPDX-License-Identifier: Apache-2.0
"""The guest's package (Debian 12's grpcio 1.51.1 and protobuf 3.21) against hosts on other versions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import documents
from kit.e2e.machine import ROOT, Machine
from kit.lab import Vm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_SHOW = "import grpc, google.protobuf, json; print(json.dumps([grpc.__version__, google.protobuf.__version__]))"


def runtime(python: str) -> list[list[int]]:
    """The versions of grpcio and protobuf that this interpreter has."""
    shown = subprocess.run([python, "-c", _SHOW], check=True, capture_output=True, text=True).stdout
    return [[int(part) for part in version.split(".")[:3]] for version in json.loads(shown)]


@pytest.fixture(scope="module", params=["oldest", "newest"])
def host(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A virtual environment with the oldest, or the newest, supported versions."""
    if request.param == "oldest":
        subprocess.run(["make", "-s", ".venv-oldest/.ready"], cwd=ROOT, check=True, timeout=600)
        yield ROOT / ".venv-oldest" / "bin"
    else:
        yield ROOT / ".venv" / "bin"


def vcpuctl(host: Path, vm: Vm, *words: str) -> dict[str, object]:
    argv = [str(host / "vcpuctl"), "--qmp", str(vm.qmp_socket), "-o", "json", *words]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    documents.check_output(ended.stdout)
    document: dict[str, object] = json.loads(ended.stdout)
    return document


def test_a_vm_is_resized_by_hosts_on_the_oldest_and_the_newest_versions(machine: Machine, host: Path) -> None:
    grpcio, protobuf = runtime(str(host / "python"))
    if host.parent.name == ".venv-oldest":
        assert (grpcio[:2], protobuf[1:]) == ([1, 51], [21, 12])  # protobuf 21.12 is 4.21.12 in Python
    else:
        assert grpcio > [1, 70, 0]
        assert protobuf > [5, 0, 0]
    debian = machine.vm.shell(f"python3 -c '{_SHOW}'", timeout=30)
    assert json.loads(debian) == ["1.51.1", "4.21.12"]

    assert vcpuctl(host, machine.vm, "list")["agent"]
    assert vcpuctl(host, machine.vm, "plug", "--slot", "3")["outcome"] == "done"
    assert vcpuctl(host, machine.vm, "scale", "4")["outcome"] == "done"
    assert set(machine.filled()) == machine.online() == {0, 1, 2, 3}
    assert vcpuctl(host, machine.vm, "unplug", "-n", "3")["outcome"] == "done"
    assert set(machine.filled()) == machine.online() == {0}
