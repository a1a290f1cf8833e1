# SPDX-License-Identifier: Apache-2.0
"""Whatever is refused, lost or killed on the way: the outcome's name is right, and the next run ends right."""

from __future__ import annotations

import errno
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.component.cli import Vcpuctl, done, filled, online, run, stands, until
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


# --- the guest refuses ------------------------------------------------------------------------------------------------


def test_a_refused_offline_is_refused_with_its_errno_and_qemu_is_asked_nothing(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1}, "plug")
        for code, name, reason in (
            (errno.EBUSY, "EBUSY", "hotplug-disabled"),
            (errno.EPERM, "EPERM", "offline-forbidden"),
            (errno.EOPNOTSUPP, "EOPNOTSUPP", "platform-forbids"),
            (errno.ENOSPC, "ENOSPC", "irq-vectors"),
            (errno.EIO, "EIO", "kernel-error"),
        ):
            vm.steer.call("x-fake-kernel-refuse", slot=1, errno=code, online=False)
            ended = run(vm, "unplug")
            assert (ended.status, ended.outcome, ended.code(1)) == (3, "refused", reason), ended.stdout
            assert ended.slots[1]["reason"]["errno"] == name
            assert ended.slots[1]["reason"]["who"] == "guest"
            stands(vm, {0, 1})
        assert vm.steer.commands("device_del") == []

        vm.steer.call("x-fake-kernel-refuse", slot=1, errno=0, online=False)
        done(vm, {0}, "unplug")


def test_one_refused_among_many_is_partial_and_atomic_brings_all_back(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2, 3}, "scale", "4")
        vm.steer.call("x-fake-kernel-refuse", slot=2, errno=errno.ENOSPC, online=False)
        ended = run(vm, "unplug", "--atomic", "--slot", "1", "2")
        assert (ended.status, ended.code(2)) == (1, "irq-vectors"), ended.stdout
        stands(vm, {0, 1, 2, 3})
        ended = run(vm, "scale", "1")
        assert (ended.status, ended.outcome) == (6, "partial")
        assert {slot: s["outcome"] for slot, s in ended.slots.items()} == {1: "done", 2: "refused", 3: "done"}
        stands(vm, {0, 2})


@pytest.mark.parametrize(("code", "reason"), [(errno.EPERM, "online-forbidden"), (errno.EIO, "bring-up-failed")])
def test_a_cpu_that_does_not_come_online_is_unplugged_again(folder: Path, code: int, reason: str) -> None:
    with FakeVm(folder) as vm:
        # The guest's next CPU gets number 1: the rule is for whoever has it.
        done(vm, {0, 1}, "plug")
        vm.steer.call("x-fake-kernel-refuse", slot=1, errno=code, online=True)
        done(vm, {0}, "unplug")
        ended = run(vm, "plug", "--slot", "5")
        assert (ended.status, ended.outcome, ended.code(5)) == (1, "failed", reason), ended.stdout
        stands(vm, {0})


def test_an_eject_that_the_guest_refuses_brings_the_cpu_back_online(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1}, "plug")
        for status in (1, 128, 130):
            vm.steer.rule("guest:eject", "refuse", status=status)
            ended = run(vm, "unplug")
            assert (ended.status, ended.outcome) == (1, "failed"), ended.stdout
            assert ended.slots[1]["reason"]["who"] == "guest"
            stands(vm, {0, 1})
        done(vm, {0}, "unplug")


def test_a_plug_whose_acknowledgement_says_no_ends_as_the_kernel_shows_it(folder: Path) -> None:
    with FakeVm(folder) as vm:
        # The word is bad and the CPU is there: what is there counts.
        for slot, status in ((1, 1), (2, 128)):
            vm.steer.rule("guest:insert", "refuse", status=status)
            done(vm, set(range(slot + 1)), "plug", "--slot", str(slot))


# --- QEMU refuses -----------------------------------------------------------------------------------------------------


def test_a_refused_device_add_is_refused_in_qemus_words_and_leaves_nothing(folder: Path) -> None:
    with FakeVm(folder) as vm:
        vm.steer.rule("before:device_add", "fail", **{"class": "GenericError", "desc": "no room \x1b[31mtoday"})
        ended = run(vm, "plug")
        assert (ended.status, ended.outcome) == (3, "refused")
        reason = ended.slots[1]["reason"]
        assert reason["who"] == "qemu"
        assert "no room" in reason["text"]
        assert "\x1b" not in reason["text"]
        stands(vm, {0})
        done(vm, {0, 1}, "plug")


def test_a_refused_device_del_brings_the_cpu_back_online(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2}, "scale", "3")
        vm.steer.rule("before:device_del", "fail", slot=None, **{"class": "GenericError", "desc": "not now"})
        ended = run(vm, "unplug", "--slot", "2")
        assert (ended.status, ended.outcome) == (1, "failed"), ended.stdout
        assert "not now" in ended.slots[2]["reason"]["text"]
        stands(vm, {0, 1, 2})
        done(vm, {0, 1}, "unplug", "--slot", "2")


def test_an_unplug_is_done_only_when_the_vcpu_has_left_qemu_as_well(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2}, "scale", "3")
        rule = vm.steer.rule("guest:eject", "linger")
        with Vcpuctl(vm, "unplug", "--slot", "2") as command:
            vm.steer.wait(rule)
            vm.steer.call("x-fake-idle")
            looked = len(vm.steer.commands("query-cpus-fast"))
            until(lambda: len(vm.steer.commands("query-cpus-fast")) > looked + 6)  # it has seen the slot empty
            assert command.process.poll() is None
            vm.steer.release(rule)
            ended = command.ends()
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
        stands(vm, {0, 1})


def test_a_vcpu_that_never_leaves_qemu_is_unknown_and_its_slot_is_not_filled_again(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2}, "scale", "3")
        vm.steer.rule("guest:eject", "linger")
        ended = run(vm, "unplug", "--slot", "2", "--timeout", "10")
        assert (ended.status, ended.outcome, ended.code(2)) == (4, "unknown", "removal-stuck"), ended.stdout
        assert ended.slots[2]["reason"]["who"] == "qemu"
        assert "cpu-index 2" in ended.slots[2]["reason"]["text"]
        slot = run(vm, "list").slots[2]
        assert slot["state"] == "unplugging"
        for again in ("plug", "unplug"):
            ended = run(vm, again, "--slot", "2")
            assert (ended.status, ended.outcome, ended.json["reason"]["code"]) == (3, "refused", "removal-stuck")
        found = {finding["code"]: finding["level"] for finding in run(vm, "doctor").json["findings"]}
        assert found["removal-stuck"] == "problem"
        assert len(vm.steer.commands("device_del")) == 1
        done(vm, {0, 1, 3}, "plug")


# --- somebody is gone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["after:device_add", "guest:insert"])
def test_a_qemu_that_dies_in_the_middle_of_a_plug_is_unreachable(folder: Path, place: str) -> None:
    with FakeVm(folder) as vm:
        rule = vm.steer.rule(place, "hold")
        with Vcpuctl(vm, "plug") as command:
            vm.steer.wait(rule)
            vm.process.kill()
            ended = command.ends()
        assert (ended.status, ended.outcome) == (5, "unknown")
        assert ended.json["reason"]["code"] == "qemu-gone"


@pytest.mark.parametrize("place", ["before:device_del", "guest:eject"])
def test_a_qemu_that_dies_in_the_middle_of_an_unplug_is_unreachable(folder: Path, place: str) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1}, "plug")
        rule = vm.steer.rule(place, "hold")
        with Vcpuctl(vm, "unplug") as command:
            vm.steer.wait(rule)
            vm.process.kill()
            ended = command.ends()
        assert (ended.status, ended.outcome) == (5, "unknown")
        assert ended.json["reason"]["code"] == "qemu-gone"


@pytest.mark.parametrize("place", ["before:device_add", "after:device_add"])
def test_a_monitor_closed_in_the_middle_is_unknown_and_the_next_run_ends_right(folder: Path, place: str) -> None:
    with FakeVm(folder) as vm:
        vm.steer.rule(place, "close")
        ended = run(vm, "scale", "4")
        assert (ended.status, ended.outcome) == (5, "unknown"), ended.stdout
        done(vm, {0, 1, 2, 3}, "scale", "4")
        vm.steer.rule(place.replace("_add", "_del"), "close")
        ended = run(vm, "scale", "1")
        assert (ended.status, ended.outcome) == (5, "unknown"), ended.stdout
        done(vm, {0}, "scale", "1")


def test_a_qemu_that_never_answers_is_bounded_by_the_timeout(folder: Path) -> None:
    with FakeVm(folder) as vm:
        vm.steer.rule("before:device_add", "mute")
        ended = run(vm, "--timeout", "10", "plug")
        assert (ended.status, ended.outcome) == (4, "unknown")
        assert ended.code(1) == "add-pending"
        done(vm, {0, 1}, "plug", "--slot", "1")


def hold_write(vm: FakeVm) -> Callable[[], None]:
    """The agent is inside a write: wait for that. The way on lets the write go."""
    assert vm.steer.call("x-fake-kernel-holding")
    return lambda: vm.steer.call("x-fake-kernel-hold", on=False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_agent_that_ends_inside_a_write_and_comes_back_is_gone_on_with(folder: Path, number: int) -> None:
    with FakeVm(folder) as vm:
        for goal, words in (({0, 1, 2, 3}, ("scale", "4")), ({0}, ("scale", "1"))):
            vm.steer.call("x-fake-kernel-hold", on=True)
            with Vcpuctl(vm, *words) as command:
                let_go = hold_write(vm)
                if number == signal.SIGKILL:
                    vm.kill_agent(number)
                    let_go()
                else:
                    assert vm.vcpud is not None
                    vm.vcpud.send_signal(number)
                    let_go()
                    vm.kill_agent(number)
                vm.start_agent()
                ended = command.ends()
            assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
            stands(vm, goal)


def test_an_agent_that_ends_before_and_after_qemus_answer_is_gone_on_with(folder: Path) -> None:
    with FakeVm(folder) as vm:
        for place, words, goal in (
            ("before:device_add", ("plug", "--slot", "3"), {0, 3}),
            ("after:device_add", ("plug", "--slot", "4"), {0, 3, 4}),
            ("guest:insert", ("plug", "--slot", "5"), {0, 3, 4, 5}),
            ("before:device_del", ("unplug", "--slot", "5"), {0, 3, 4}),
            ("after:device_del", ("unplug", "--slot", "4"), {0, 3}),
            ("guest:eject", ("unplug", "--slot", "3"), {0}),
        ):
            rule = vm.steer.rule(place, "hold")
            with Vcpuctl(vm, *words) as command:
                vm.steer.wait(rule)
                vm.kill_agent()
                vm.steer.release(rule)
                vm.start_agent()
                ended = command.ends()
            assert (ended.status, ended.outcome) == (0, "done"), f"{place}: {ended.stdout}"
            stands(vm, goal)


def test_an_agent_that_stays_away_is_unknown_at_the_timeout_and_no_cpu_is_taken_for_offline(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2}, "scale", "3")
        vm.steer.call("x-fake-kernel-hold", on=True)
        with Vcpuctl(vm, "--timeout", "10", "scale", "1") as command:
            let_go = hold_write(vm)
            vm.kill_agent()
            let_go()
            ended = command.ends()
        assert (ended.status, ended.outcome) == (4, "unknown")
        assert "agent-lost" in {ended.code(slot) for slot in ended.slots}
        # What the lost session saw offline counts for nothing.
        assert vm.steer.commands("device_del") == []
        assert filled(vm) == {0, 1, 2}

        again = run(vm, "--timeout", "1", "scale", "1")
        assert (again.status, again.outcome) == (5, "agent-absent")
        vm.start_agent()
        done(vm, {0}, "scale", "1")


def test_a_guest_that_restarts_in_the_middle_is_asked_anew(folder: Path) -> None:
    with FakeVm(folder) as vm:
        vm.steer.call("x-fake-kernel-hold", on=True)
        with Vcpuctl(vm, "scale", "3") as command:
            let_go = hold_write(vm)
            vm.kill_agent()
            let_go()
            vm.reboot()
            ended = command.ends()
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
        stands(vm, {0, 1, 2})


def test_a_vcpuctl_killed_anywhere_is_followed_by_one_that_ends_right(folder: Path) -> None:
    with FakeVm(folder) as vm:
        for place, words, goal in (
            ("before:device_add", ("scale", "3"), {0, 1, 2}),
            ("before:device_del", ("scale", "1"), {0}),
            ("after:device_add", ("scale", "3"), {0, 1, 2}),
            ("after:device_del", ("scale", "1"), {0}),
            ("guest:insert", ("scale", "3"), {0, 1, 2}),
            ("guest:eject", ("scale", "1"), {0}),
        ):
            rule = vm.steer.rule(place, "hold")
            with Vcpuctl(vm, *words) as command:
                vm.steer.wait(rule)
                command.process.kill()
            vm.steer.release(rule)
            done(vm, goal, *words)


def test_ctrl_c_says_what_is_unknown(folder: Path) -> None:
    with FakeVm(folder) as vm:
        vm.steer.call("x-fake-kernel-hold", on=True)
        with Vcpuctl(vm, "scale", "3") as command:
            let_go = hold_write(vm)
            command.interrupt()
            ended = command.ends()
            let_go()
        assert (ended.status, ended.outcome) == (4, "unknown")
        assert ended.code(1) == "interrupted"
        done(vm, {0, 1, 2}, "scale", "3")


def test_with_no_time_at_all_nothing_is_sent_and_nothing_is_said_to_be_open(folder: Path) -> None:
    with FakeVm(folder) as vm:
        ended = run(vm, "--timeout", "0.001", "plug", "-n", "3")
        assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
        assert [ended.code(slot) for slot in (1, 2, 3)] == ["not-begun"] * 3
        assert vm.steer.commands("device_add") == []
        stands(vm, {0})
        done(vm, {0, 1, 2, 3}, "plug", "-n", "3")


def test_a_pause_in_the_middle_is_waited_for(folder: Path) -> None:
    with FakeVm(folder) as vm:
        refused = None
        rule = vm.steer.rule("guest:insert", "hold")
        with Vcpuctl(vm, "plug") as command:
            vm.steer.wait(rule)
            vm.steer.call("stop")
            vm.steer.release(rule)
            refused = command.process.poll()
            vm.steer.call("cont")
            assert command.ends().status == 0
        assert refused is None
        stands(vm, {0, 1})
        vm.steer.call("stop")
        ended = run(vm, "plug")
        assert (ended.status, ended.json["reason"]["code"]) == (3, "vm-not-running")
        assert online(vm) == filled(vm) == {0, 1}
