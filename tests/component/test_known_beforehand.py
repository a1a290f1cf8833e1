# SPDX-License-Identifier: Apache-2.0
"""What cannot work, or would end the VM, is refused before anything is sent, by the real command (promise 9)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import done, online, run, stands, until
from kit.ended import Ended
from kit.fakes.qemu import FakeVm, QmpError


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vk", dir="/tmp") as name:
        yield Path(name)


def _refused(ended: Ended, code: str) -> None:
    assert (ended.status, ended.outcome, ended.json["reason"]["code"]) == (3, "refused", code), ended.stdout
    assert ended.json["reason"]["hint"]


def _sent(vm: FakeVm) -> list[object]:
    return [*vm.steer.commands("device_add"), *vm.steer.commands("device_del")]


@pytest.mark.parametrize("options", [(), ("--without-agent",)])
@pytest.mark.parametrize("version", ["10.0.13", "11.1.3"])
def test_no_plug_is_sent_that_the_cpu_model_cannot_have(folder: Path, version: str, options: tuple[str, ...]) -> None:
    """Twenty sockets of nine cores: slot 143 has APIC id 248, slot 144 has 256."""
    with FakeVm(folder, "--maxcpus", "180", "--sockets", "20", "--version", version) as vm:
        _refused(run(vm, "plug", "--slot", "144", *options), "apic-id-too-large")
        assert _sent(vm) == []
        found = {f["code"]: f for f in run(vm, "doctor").json["findings"]}
        assert found["apic-id-too-large"]["level"] == "problem"
        stands(vm, {0})
        if not options:
            done(vm, {0, 143}, "plug", "--slot", "143")


def test_no_plug_is_sent_after_an_unplug_that_such_a_qemu_dies_of(folder: Path) -> None:
    options = ("--version", "7.2.22", "--dies-on-replug", "on", "--maxcpus", "16")
    with FakeVm(folder, *options) as vm:
        done(vm, {0, 1, 2}, "plug", "-n", "2")
        done(vm, {0, 1}, "unplug", "--slot", "2")
        for words in (("plug",), ("plug", "--slot", "5"), ("scale", "3"), ("plug", "--without-agent")):
            _refused(run(vm, *words), "tcg-replug")
        done(vm, {0}, "scale", "1")


def test_no_plug_is_sent_for_which_a_tcg_qemu_has_no_context_left(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "3", "--smp", "3", "--plug-budget", "on") as vm:
        done(vm, {0, 1}, "scale", "2")
        for words in (("plug",), ("plug", "--slot", "2"), ("scale", "3"), ("plug", "--without-agent")):
            _refused(run(vm, *words), "tcg-plug-budget")
        done(vm, {0}, "scale", "1")


def test_a_slot_whose_id_another_device_has_is_gone_past_or_refused_with_what_has_it(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "3", "--devices", "vcpu-1:virtio-rng-pci") as vm:
        named = run(vm, "plug", "--slot", "1")
        _refused(named, "id-taken")
        assert "virtio-rng-pci" in named.json["reason"]["text"]
        done(vm, {0, 2}, "plug")
        _refused(run(vm, "plug"), "id-taken")
        _refused(run(vm, "scale", "3"), "id-taken")
        assert [entry["arguments"]["id"] for entry in vm.steer.commands("device_add")] == ["vcpu-2"]


def test_a_guest_that_may_have_no_acpi_is_not_said_to_be_booting_for_certain(folder: Path) -> None:
    with FakeVm(folder, "--guest-acpi", "off", agent=False) as vm:
        trouble = run(vm, "list").json["agent_trouble"]
        assert trouble["code"] == "guest-booting"
        for words in ("has the agent's port open", "still booting", "or its kernel runs without ACPI (acpi=off)"):
            assert words in trouble["text"]
        assert "install vcpu-guest" in trouble["hint"]


def test_a_machine_without_acpi_tells_nothing_of_its_guests_boot(folder: Path) -> None:
    with FakeVm(folder, "--acpi", "off", agent=False) as vm:
        assert run(vm, "list").json["agent_trouble"]["code"] == "agent-absent"


def test_no_cpu_is_plugged_that_the_guests_kernel_has_no_room_for(folder: Path) -> None:
    """As a stranger has it: TCG, a newest kernel, one CPU at start, sixteen slots."""
    with FakeVm(folder, "--guest-possible", "1") as vm:
        for words in (("plug",), ("plug", "--slot", "5"), ("scale", "2")):
            _refused(run(vm, *words), "guest-possible")
        assert _sent(vm) == []
        found = {f["code"]: f for f in run(vm, "doctor").json["findings"]}
        assert found["guest-possible"]["level"] == "problem"
        assert "nr_cpus" not in found["guest-possible"]["text"] + found["guest-possible"]["fix"]
        done(vm, {0}, "scale", "1")


def test_with_smt_off_in_the_guest_numbers_take_first_threads_and_names_of_others_are_refused(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "8", "--threads", "2", agent=False) as vm:
        control = folder / "sys/devices/system/cpu/smt/control"
        control.parent.mkdir(exist_ok=True)
        control.write_text("forceoff\n")
        vm.start_agent()
        done(vm, {0, 2, 4}, "plug", "-n", "2")
        _refused(run(vm, "plug", "--slot", "3"), "smt-off")
        assert "echo on" not in run(vm, "plug", "--slot", "3").json["reason"]["hint"]
        done(vm, {0, 2}, "scale", "2")


@pytest.mark.parametrize(("machine", "version"), [("pc-q35", "11.1.3"), ("pc-i440fx", "10.0.13")])
def test_without_acpi_nothing_is_plugged_or_unplugged_and_the_guests_side_goes_on(
    folder: Path, machine: str, version: str
) -> None:
    with FakeVm(folder, "--acpi", "off", "--smp", "2", "--machine", machine, "--version", version) as vm:
        for words in (("plug",), ("plug", "--slot", "5"), ("scale", "3"), ("unplug", "--slot", "1"), ("unplug",)):
            _refused(run(vm, *words), "no-acpi")
        _refused(run(vm, "plug", "--without-agent"), "no-acpi")
        assert _sent(vm) == []
        assert run(vm, "offline", "1").status == 0
        assert vm.guest_cpus() == {0: True, 1: False}
        assert run(vm, "online", "1").status == 0
        stands(vm, {0, 1})
        listed = run(vm, "list").json
        assert listed["vm"]["online_vcpus"] == 2
        problems = [f for f in run(vm, "doctor").json["findings"] if f["level"] == "problem"]
        assert problems
        assert all("ACPI" in f["text"] for f in problems), problems


def test_a_guest_whose_kernel_runs_without_acpi_is_refused_as_one_and_sent_nothing(folder: Path) -> None:
    with FakeVm(folder, "--guest-acpi", "off", "--smp", "2") as vm:
        for words in (("plug",), ("scale", "3"), ("unplug", "--slot", "1"), ("offline", "1")):
            _refused(run(vm, *words), "guest-no-acpi")
        assert _sent(vm) == []
        assert run(vm, "list").json["vm"]["online_vcpus"] is None
        problems = {f["code"] for f in run(vm, "doctor").json["findings"] if f["level"] == "problem"}
        assert problems == {"guest-no-acpi"}
        stands(vm, {0, 1})


def test_a_guest_that_hears_of_no_cpu_is_refused_what_it_has_to_hear_of_until_it_is_restarted(folder: Path) -> None:
    """As q35 with SeaBIOS is after a wake from S3."""
    with FakeVm(folder, "--maxcpus", "4", "--smp", "2") as vm:
        done(vm, {0, 1, 2}, "plug")
        sent = _sent(vm)
        vm.steer.call("x-fake-kernel-deaf")
        for words in (("plug",), ("plug", "--slot", "3"), ("unplug", "--slot", "1"), ("scale", "4"), ("scale", "1")):
            refused = run(vm, *words)
            _refused(refused, "acpi-deaf")
            assert refused.json["reason"]["who"] == "guest"
            assert "GPE 02" in refused.json["reason"]["text"]
        assert run(vm, "plan", "plug").json["refusals"][0]["reason"]["code"] == "acpi-deaf"
        assert run(vm, "offline", "2").status == 0
        assert vm.guest_cpus() == {0: True, 1: True, 2: False}
        assert run(vm, "online", "2").status == 0
        assert _sent(vm) == sent
        problems = {f["code"] for f in run(vm, "doctor").json["findings"] if f["level"] == "problem"}
        assert problems == {"acpi-deaf"}
        assert run(vm, "list").json["guest_trouble"]["code"] == "acpi-deaf"
        blind = run(vm, "--timeout", "15", "plug", "--without-agent", "--slot", "3")
        assert (blind.status, blind.code(3)) == (4, "arrival-pending"), "nobody was asked, and nobody has heard"
        vm.reboot()
        assert run(vm, "list").json["guest_trouble"] is None
        done(vm, {0, 1, 2, 3}, "scale", "4")
        done(vm, {0, 1, 2}, "unplug", "--slot", "3")


def test_a_vcpu_that_a_failed_plug_of_somebody_else_has_left_is_told_as_what_it_is(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "256", "--version", "11.1.3") as vm:
        with pytest.raises(QmpError, match="requires x2APIC"):
            vm.steer.call("device_add", driver="qemu64-x86_64-cpu", id="x", socket_id=0, core_id=255, thread_id=0)
        _refused(run(vm, "plug", "--slot", "255"), "phantom-vcpu")
        found = {f["code"]: f for f in run(vm, "doctor").json["findings"]}
        assert found["phantom-vcpu"]["level"] == "problem"
        assert "removal-stuck" not in found
        slot = run(vm, "list").slots[255]
        assert slot["state"] == "empty"
        done(vm, {0, 1}, "plug")
        done(vm, {0}, "unplug")


def test_a_cpu_that_is_still_on_its_way_into_the_guest_is_not_called_offline(folder: Path) -> None:
    with FakeVm(folder) as vm:
        rule = vm.steer.rule("guest:insert", "hold")
        slot = vm.steer.call("query-hotpluggable-cpus")[-2]
        vm.steer.call("device_add", driver=slot["type"], id="by-hand", **slot["props"])
        vm.steer.wait(rule)
        _refused(run(vm, "offline", "1"), "guest-unaware")
        vm.steer.release(rule)
        until(lambda: 1 in vm.guest_cpus())
        ended = run(vm, "offline", "1")
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
        assert online(vm) == {0}
