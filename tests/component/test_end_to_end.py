# SPDX-License-Identifier: Apache-2.0
"""The whole way without a machine: real ``vcpuctl`` and ``vcpud``, joined by a fake QEMU and a fake kernel."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import Vcpuctl, done, filled, online, run, stands, until
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


def test_plug_scale_offline_online_and_unplug_end_with_both_sides_as_they_say(folder: Path) -> None:
    with FakeVm(folder) as vm:
        ended = done(vm, {0, 1}, "plug")
        assert ended.slots[1]["id"] == "vcpu-1"
        assert set(ended.slots[1]["phases"]) >= {"device_add", "online"}
        done(vm, {0, 1, 5}, "plug", "--slot", "5")
        done(vm, {0, 1, 2, 3, 5}, "scale", "5")
        assert run(vm, "offline", "5").status == 0
        assert (filled(vm), online(vm)) == ({0, 1, 2, 3, 5}, {0, 1, 2, 3})
        assert run(vm, "online", "5").status == 0
        stands(vm, {0, 1, 2, 3, 5})
        done(vm, {0, 1, 2, 5}, "unplug", "--slot", "vcpu-3")
        done(vm, {0}, "scale", "1")


def test_the_map_names_the_guests_cpu_behind_each_slot_when_plugged_out_of_order(folder: Path) -> None:
    with FakeVm(folder, "--smp", "1") as vm:
        for slot in ("7", "2", "5"):
            assert run(vm, "plug", "--slot", slot).status == 0
        listed = run(vm, "list").json
        shown = {slot["slot"]: slot for slot in listed["slots"]}
        assert {s: shown[s]["threads"][0]["guest_cpu"] for s in (0, 2, 5, 7)} == {0: 0, 7: 1, 2: 2, 5: 3}
        assert all(shown[s]["state"] == "online" and shown[s]["id"] == f"vcpu-{s}" for s in (2, 5, 7))
        assert listed["vm"]["online_vcpus"] == listed["vm"]["plugged_vcpus"] == 4
        assert listed["agent"]["connected"]


def test_the_guests_name_of_a_cpu_names_the_slot_that_shows_it(folder: Path) -> None:
    with FakeVm(folder, "--smp", "1") as vm:
        done(vm, {0, 6}, "plug", "--slot", "6")
        done(vm, {0, 6}, "plug", "--slot", "cpu1")
        for command in (("unplug", "--slot"), ("offline",), ("offline", "--slot")):
            planned = run(vm, *command, "cpu1", "--dry-run")
            assert (planned.status, [step["slot"] for step in planned.json["steps"]]) == (0, [6])
            ended = run(vm, *command, "cpu2")
            assert (ended.status, ended.json["error"]["code"]) == (2, "bad-slot")
        done(vm, {0}, "unplug", "--slot", "cpu1")
        done(vm, {0, 6}, "plug", "--slot", "6")
        done(vm, {0}, "unplug", "--slot", "socket=0,core=6,thread=0")


def test_the_guests_name_of_a_cpu_is_refused_where_nobody_can_be_asked(folder: Path) -> None:
    with FakeVm(folder, "--smp", "2", agent=False) as vm:
        ended = run(vm, "plan", "unplug", "--slot", "cpu1")
        assert (ended.status, ended.json["refusals"][0]["reason"]["code"]) == (5, "agent-absent")
        ended = run(vm, "unplug", "--slot", "cpu1", "--without-agent")
        assert (ended.status, ended.json["error"]["code"]) == (2, "bad-slot")


def test_repeating_a_command_that_states_a_goal_changes_nothing(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2, 3}, "scale", "4")
        sent = len(vm.steer.commands("device_add")), len(vm.steer.commands("device_del")), len(vm.writes())
        done(vm, {0, 1, 2, 3}, "scale", "4")
        done(vm, {0, 1, 2, 3}, "plug", "--slot", "2", "3")
        done(vm, {0, 1, 2, 3}, "unplug", "--slot", "9")
        assert (len(vm.steer.commands("device_add")), len(vm.steer.commands("device_del")), len(vm.writes())) == sent


def test_a_plan_changes_nothing_and_says_what_the_operation_then_does(folder: Path) -> None:
    with FakeVm(folder) as vm:
        planned = run(vm, "plan", "plug", "-n", "3")
        assert [step["slot"] for step in planned.json["steps"]] == [1, 2, 3]
        stands(vm, {0})
        done(vm, {0, 1, 2, 3}, "plug", "-n", "3")


def test_a_dry_run_is_the_plan_and_changes_nothing(folder: Path) -> None:
    with FakeVm(folder) as vm:
        for words in (("plug", "-n", "3"), ("plug", "--slot", "2", "--slot", "3"), ("scale", "5"), ("unplug",)):
            dry, planned = run(vm, *words, "--dry-run"), run(vm, "plan", *words)
            assert (dry.status, dry.json) == (planned.status, planned.json)
        stands(vm, {0})
        assert vm.steer.commands("device_add") == []


def test_quiet_says_nothing_of_what_went_as_asked_and_all_of_what_did_not(folder: Path) -> None:
    def said(*words: str) -> tuple[int, str]:
        with Vcpuctl(vm, "-o", "table", "-q", *words) as command:
            ended = command.ends()
        return ended.status, ended.stdout

    with FakeVm(folder) as vm:
        assert said("plug", "--slot", "2") == (0, "")
        assert said("plug", "--slot", "2") == (0, "")
        assert said("scale", "1") == (0, "")
        status, words = said("offline", "0")
        assert status == 3
        assert "refused" in words
        status, words = said("plug", "--slot", "3", "--without-agent")
        assert (status, "not checked" in words) == (0, True)
        assert "SLOT" in said("list")[1]
        assert "ok " not in said("doctor")[1]
        assert run(vm, "-q", "unplug", "--slot", "3").outcome == "done", "a document that was asked for is given"


def test_no_cpu_is_asked_back_before_the_guest_has_taken_it_offline(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2, 3}, "scale", "4")
        vm.steer.call("x-fake-kernel-hold", on=True)
        with Vcpuctl(vm, "scale", "1") as command:
            assert vm.steer.call("x-fake-kernel-holding")
            assert vm.steer.commands("device_del") == []
            vm.steer.call("x-fake-kernel-hold", on=False)
            assert command.ends().status == 0
        stands(vm, {0})
        assert len(vm.steer.commands("device_del")) == 3


def test_two_hundred_and_forty_vcpus_come_and_go(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "240") as vm:
        done(vm, set(range(240)), "scale", "240")
        done(vm, {0}, "scale", "1")


def test_a_guest_that_brings_cpus_online_by_itself_is_not_fought(folder: Path) -> None:
    with FakeVm(folder) as vm:
        rule = vm.steer.rule("after:device_add", "hold")
        with Vcpuctl(vm, "plug", "--slot", "4") as command:
            vm.steer.wait(rule)
            until(lambda: 4 in vm.guest_cpus())
            vm.steer.call("x-fake-kernel-switch", slot=4, online=True)
            vm.steer.release(rule)
            assert command.ends().status == 0
        stands(vm, {0, 4})


def test_a_second_coordinator_is_told_who_is_at_work_and_changes_nothing(folder: Path) -> None:
    with FakeVm(folder) as vm:
        vm.steer.call("x-fake-kernel-hold", on=True)
        with Vcpuctl(vm, "plug") as first:
            assert vm.steer.call("x-fake-kernel-holding")
            second = run(vm, "plug")
            assert (second.status, second.outcome) == (3, "vm-busy")
            assert str(first.process.pid) in second.json["error"]["text"]
            vm.steer.call("x-fake-kernel-hold", on=False)
            assert first.ends().status == 0
        stands(vm, {0, 1})


def connected(vm: FakeVm) -> list[dict[str, str]]:
    """The chardevs that somebody is connected to."""
    return [item for item in vm.steer.call("query-chardev") if not item["filename"].startswith("disconnected:")]


def test_another_client_on_the_monitor_or_on_the_port_is_said_and_not_waited_for(folder: Path) -> None:
    with FakeVm(folder) as vm:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(vm.qmp))
            assert monitor.recv(1) == b"{"
            ended = run(vm, "plug")
            assert (ended.status, ended.outcome) == (3, "monitor-busy")
        with socket.socket(socket.AF_UNIX) as port:
            port.connect(str(vm.agent))
            until(lambda: any(f"unix:{vm.agent}" in c["filename"] for c in connected(vm)))
            ended = run(vm, "plug")
            assert (ended.status, ended.outcome) == (3, "port-busy"), ended.stdout
        stands(vm, {0})
        done(vm, {0, 1}, "plug")
