# SPDX-License-Identifier: Apache-2.0
"""One VM is one VM, by whichever of its monitors it is reached and wherever its QEMU lives (promise 8)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import Vcpuctl, done, run
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


APART = pytest.mark.parametrize("apart", [False, True], ids=["beside", "apart"])


@APART
def test_two_that_come_by_two_monitors_of_one_vm_exclude_each_other(folder: Path, apart: bool) -> None:
    with FakeVm(folder, apart=apart) as vm:
        rule = vm.steer.rule("before:device_add", "hold")
        with Vcpuctl(vm, "plug") as first:
            vm.steer.wait(rule)
            # Not by the agent's port, which takes one of them, too: the second one does without the agent.
            second = run(vm, "plug", "--without-agent", monitor="qmp2")
            assert (second.status, second.outcome) == (3, "vm-busy"), second.stdout
            assert f"{first.process.pid} vcpuctl" in second.json["error"]["text"]
            vm.steer.release(rule)
            assert first.ends().status == 0
        done(vm, {0, 1, 2}, "plug")


@APART
def test_what_one_monitor_left_pending_shows_by_the_other(folder: Path, apart: bool) -> None:
    with FakeVm(folder, apart=apart) as vm:
        done(vm, {0, 1}, "plug")
        rule = vm.steer.rule("guest:eject", "hold")
        assert run(vm, "--timeout", "10", "unplug").code(1) == "removal-pending"
        assert run(vm, "list", monitor="qmp2").slots[1]["pending"]["operation"] == "unplug"
        vm.steer.release(rule)


@APART
def test_nodes_are_not_given_by_two_monitors_at_once(folder: Path, apart: bool) -> None:
    with FakeVm(folder, "--preconfig", "on", "--nodes", "2", "--sockets", "2", agent=False, apart=apart) as vm:
        rule = vm.steer.rule("before:set-numa-node", "hold")
        with Vcpuctl(vm, "numa", "assign", "--policy", "pack") as first:
            vm.steer.wait(rule)
            second = run(vm, "numa", "assign", "--policy", "spread", monitor="qmp2")
            assert (second.status, second.outcome) == (3, "vm-busy"), second.stdout
            vm.steer.release(rule)
            assert first.ends().status == 0


def test_a_qemu_that_cannot_be_seen_from_here_is_told_by_doctor(folder: Path) -> None:
    with FakeVm(folder) as vm:
        found = {finding["code"] for finding in run(vm, "doctor").json["findings"]}
        assert "process-unseen" not in found
        # We are in the namespace then, and QEMU is outside.
        found = {finding["code"] for finding in run(vm, "doctor", apart=True).json["findings"]}
        assert "process-unseen" in found
