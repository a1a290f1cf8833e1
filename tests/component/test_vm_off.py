# SPDX-License-Identifier: Apache-2.0
"""A VM that is off is not answering, which is another thing than a command that was written wrongly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import documents
from kit.component.cli import run, until
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


def test_a_vm_that_was_switched_off_is_unreachable_and_asks_whether_it_runs(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        assert run(vm, "list").status == 0
        vm.steer.call("quit")
        until(lambda: not vm.qmp.exists())
        for words in (("list",), ("plug",), ("plan", "scale", "2"), ("numa", "assign", "--policy", "pack")):
            ended = run(vm, *words)
            assert (ended.status, ended.outcome) == (5, "no-such-socket"), ended.stdout
            assert "is the VM running" in ended.json["error"]["hint"]
        (found,) = run(vm, "doctor").json["findings"]
        assert (found["level"], found["code"]) == ("problem", "no-such-socket")


def test_a_vm_that_died_and_left_its_socket_is_unreachable_too(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        vm.process.kill()
        vm.process.wait(10)
        ended = run(vm, "list")
        assert (ended.status, ended.outcome) == (5, "qemu-gone"), ended.stdout


def test_a_destination_that_is_not_there_yet_is_unreachable_and_cpr_is_named(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        ended = run(vm, "migrate", "check", "--to", str(folder / "destination"))
        assert (ended.status, ended.outcome) == (5, "no-such-socket"), ended.stdout
        assert "cpr-transfer" in ended.json["error"]["hint"]
        assert "vcpuctl export" in ended.json["error"]["hint"]


def test_the_environment_says_which_vm_is_meant_and_qemus_own_words_do_for_a_socket(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        for words in ({"VCPUCTL_QMP": f"unix:{vm.qmp},server=on,wait=off"}, {"VCPUCTL_QMP": str(vm.qmp)}):
            environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), **words}
            argv = [sys.executable, "-m", "vcpu_host.cli.main", "-o", "json", "list"]
            listed = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
            documents.check_output(listed.stdout)
            assert len(json.loads(listed.stdout)["slots"]) == 16
