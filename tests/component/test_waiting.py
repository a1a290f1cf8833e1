# SPDX-License-Identifier: Apache-2.0
"""An operation's time is the user's: who may answer yet is waited for, and it is said; who only looks is quick."""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import Vcpuctl, run, stands, until
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


def looks_again(vm: FakeVm, times: int = 2) -> None:
    """Wait until it has looked for the agent so many times more."""
    seen = len(vm.steer.commands("query-chardev"))
    until(lambda: len(vm.steer.commands("query-chardev")) >= seen + times, within=90)


def test_a_guest_that_is_frozen_for_a_while_is_waited_for(folder: Path) -> None:
    with FakeVm(folder) as vm:
        assert vm.vcpud is not None
        vm.vcpud.send_signal(signal.SIGSTOP)
        with Vcpuctl(vm, "--timeout", "60", "plug") as command:
            looks_again(vm, 3)  # it had given up after one attempt, which takes 5 s
            vm.vcpud.send_signal(signal.SIGCONT)
            ended = command.ends(40)
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        assert re.match(r"vcpuctl: waiting for the guest agent, at most [0-9]+ s", ended.stderr)
        stands(vm, {0, 1})


def test_a_plug_in_the_boot_window_waits_for_the_boot_and_for_the_agent(folder: Path) -> None:
    with FakeVm(folder, "--boots", "off", agent=False) as vm:
        with Vcpuctl(vm, "--timeout", "60", "plug") as command:
            looks_again(vm)
            vm.steer.call("x-fake-boot")
            looks_again(vm)
            vm.start_agent()
            ended = command.ends()
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        booting, absent = ended.stderr.splitlines()
        assert "it is still booting" in booting
        assert "no program in the guest has the agent's port open" in absent
        stands(vm, {0, 1})


def test_an_agent_that_is_started_anew_is_waited_for(folder: Path) -> None:
    with FakeVm(folder) as vm:
        vm.kill_agent()
        with Vcpuctl(vm, "scale", "2") as command:
            looks_again(vm)
            vm.start_agent()
            ended = command.ends()
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        stands(vm, {0, 1})


def test_a_guest_without_an_agent_is_told_after_a_while_and_with_how_long_that_was(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        ended = run(vm, "--timeout", "600", "plug")
        assert (ended.status, ended.outcome) == (5, "agent-absent"), ended.stdout
        # How many they are depends on the machine; test_patience.py has that with a clock of its own.
        assert re.search(r"\(waited [0-9]+ s for it\)", ended.json["error"]["text"])
        assert "install vcpu-guest" in ended.json["error"]["hint"]
        ended = run(vm, "--timeout", "1", "-q", "plug")
        assert (ended.status, ended.outcome) == (5, "agent-absent"), ended.stdout
        assert "waiting for" not in ended.stderr
        assert vm.steer.commands("device_add") == []


def test_who_only_looks_is_not_made_to_wait(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        assert run(vm, "list").json["agent_trouble"]["code"] == "agent-absent"
        planned = run(vm, "plan", "plug")
        assert (planned.status, planned.json["refusals"][0]["reason"]["code"]) == (5, "agent-absent")
        assert run(vm, "plug", "--dry-run").status == 5
        assert run(vm, "doctor").status == 1
        # One look each: nobody went to look again.
        assert len(vm.steer.commands("query-chardev")) == 4


def test_what_is_certain_is_refused_at_once_beside_an_agent_that_is_missing(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        for words, code in ((("scale", "99"), "over-max"), (("plug", "--slot", "0"), "slot-occupied")):
            ended = run(vm, *words)
            assert (ended.status, ended.json["reason"]["code"]) == (3, code), ended.stdout
        assert len(vm.steer.commands("query-chardev")) == 2


def test_ctrl_c_ends_the_waiting(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm, Vcpuctl(vm, "--timeout", "600", "plug") as command:
        looks_again(vm)
        command.interrupt()
        ended = command.ends()
        assert (ended.status, ended.outcome) == (5, "agent-absent"), ended.stdout
