# SPDX-License-Identifier: Apache-2.0
"""No agent, and the user says to go on all the same: QEMU is resized, and the result says what nobody has seen."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import filled, run
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


def test_plug_and_unplug_without_any_agent_are_done_but_not_verified(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        refused = run(vm, "--timeout", "1", "plug")
        assert (refused.status, filled(vm)) == (5, {0}), refused.stdout
        plugged = run(vm, "plug", "--without-agent", "-n", "2")
        assert (plugged.status, plugged.outcome, plugged.code(1)) == (0, "done", "not-verified"), plugged.stdout
        assert plugged.json["requested"]["without_agent"] is True
        assert filled(vm) == {0, 1, 2}
        assert vm.guest_cpus() == {0: True, 1: False, 2: False}, "nobody brought them online, and nobody said so"
        gone = run(vm, "unplug", "--without-agent", "--slot", "1")
        assert (gone.status, gone.code(1), filled(vm)) == (0, "not-verified", {0, 2}), gone.stdout


def test_a_stopped_agent_is_not_waited_for(folder: Path) -> None:
    with FakeVm(folder) as vm:
        assert vm.vcpud is not None
        vm.vcpud.send_signal(signal.SIGSTOP)
        ended = run(vm, "--timeout", "10", "plug", "--without-agent")
        assert (ended.status, ended.code(1)) == (0, "not-verified"), ended.stdout
        vm.vcpud.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("words", "others", "outcome", "left"),
    [
        ((), "what else was done stays", "partial", {0, 1}),
        (("--atomic",), "what else was done goes back", "failed", {0}),
    ],
)
def test_what_the_plan_says_of_a_failure_is_what_the_run_leaves(
    folder: Path, words: tuple[str, ...], others: str, outcome: str, left: set[int]
) -> None:
    with FakeVm(folder, agent=False) as vm:
        asked = ("plug", "--without-agent", "-n", "2", *words)
        steps = run(vm, "plan", *asked).json["steps"]
        assert [others in step["on_failure"] for step in steps] == [True, True]
        vm.steer.rule("before:device_add", "delay", seconds=0)  # the first one's; the second fails
        vm.steer.rule("before:device_add", "fail", **{"class": "GenericError", "desc": "no room"})
        ended = run(vm, *asked)
        assert (ended.outcome, filled(vm)) == (outcome, left), ended.stdout
