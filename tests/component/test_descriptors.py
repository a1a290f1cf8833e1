# SPDX-License-Identifier: Apache-2.0
"""A QEMU whose file descriptors run out, as they do under KVM: told early, and refused before it is lost.

The fake is a process like any other: what it has open is real, and its limit is lowered under it.
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import done, run
from kit.fakes.qemu import FakeVm
from vcpu_host.core.descriptors import PER_VCPU, RESERVE

_KVM = ("--accel", "kvm", "--deleted", "kvm")
#: The monitor's and the agent's connections, which a command has open while it looks.
_OURS = 8


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vf", dir="/tmp") as name:
        yield Path(name)


def _opened(vm: FakeVm) -> int:
    return len(os.listdir(f"/proc/{vm.process.pid}/fd"))


def _limit(vm: FakeVm, left: int) -> int:
    """Leave the fake so many descriptors; its new limit."""
    limit = _opened(vm) + left
    hard = resource.prlimit(vm.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(vm.process.pid, resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def _finding(vm: FakeVm, code: str) -> dict[str, str]:
    (found,) = (each for each in run(vm, "doctor").json["findings"] if each["code"] == code)
    return dict(found)


def test_list_and_doctor_tell_what_is_open_and_what_it_is_enough_for(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "4", *_KVM) as vm:
        before = _opened(vm)
        limit = _limit(vm, RESERVE + 1000 * PER_VCPU)
        told = run(vm, "list").json["vm"]["descriptors"]
        assert told["limit"] == limit
        assert before <= told["open"] <= before + _OURS
        assert told["vcpus_left"] == (limit - told["open"] - RESERVE) // PER_VCPU
        assert _finding(vm, "descriptors")["level"] == "ok"


def test_a_plug_that_comes_too_near_the_limit_is_refused_and_an_unplug_is_not(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "8", *_KVM) as vm:
        done(vm, {0, 1, 2}, "plug", "-n", "2")
        limit = _limit(vm, RESERVE + 2)
        for words in (("plug",), ("scale", "5"), ("plug", "--slot", "7"), ("plug", "--without-agent")):
            ended = run(vm, *words)
            reason = ended.json["reason"]
            assert (ended.status, ended.outcome, reason["code"]) == (3, "refused", "few-descriptors"), ended.stdout
            assert f"of {limit} file descriptors" in reason["text"]
            assert f"prlimit --pid {vm.process.pid} " in reason["hint"]
        assert len(vm.steer.commands("device_add")) == 2
        found = _finding(vm, "few-descriptors")
        assert (found["level"], f"of {limit}" in found["text"]) == ("problem", True)
        assert "no more vCPUs" in run(vm, "list", "-o", "table").stdout
        done(vm, {0}, "scale", "1")
        _limit(vm, 1000)
        done(vm, {0, 1}, "plug")


def test_under_tcg_nobody_is_refused_for_descriptors(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "4") as vm:
        _limit(vm, 20)
        assert run(vm, "list").json["vm"]["descriptors"]["vcpus_left"] is None
        assert _finding(vm, "few-descriptors")["level"] == "warning"
        done(vm, {0, 1}, "plug")


def test_where_qemus_process_cannot_be_seen_nothing_is_claimed_and_nothing_refused(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "4", *_KVM) as vm:
        _limit(vm, RESERVE)
        assert run(vm, "list", apart=True).json["vm"]["descriptors"] is None
        (found,) = (each for each in run(vm, "doctor", apart=True).json["findings"] if "descriptors" in each["code"])
        assert (found["level"], found["code"]) == ("note", "descriptors")
        assert "cannot be seen" in found["text"]
        assert run(vm, "plug", apart=True).outcome == "done"


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
def test_a_monitor_that_does_not_greet_for_want_of_descriptors_says_so(folder: Path, accel: str) -> None:
    with FakeVm(folder, "--maxcpus", "4", "--accel", accel) as vm:
        limit = _limit(vm, 0)
        # The queue of those who have given up is full from the third one on: then nobody even connects.
        for _ in range(4):
            ended = run(vm, "list")
            error = ended.json["error"]
            assert (ended.status, error["code"]) == (3, "few-descriptors"), ended.stdout
            assert f"has {limit} of {limit} file descriptors open" in error["text"]
            assert "prlimit" in error["hint"]
        _limit(vm, 1000)
