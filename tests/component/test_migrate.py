# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl export`` and ``migrate`` as processes, on a QEMU that has the VM and one that waits for it."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import Vcpuctl, filled, run
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vm", dir="/tmp") as name:
        Path(name, "a").mkdir()
        Path(name, "b").mkdir()
        yield Path(name)


#: What vcpuctl -o json export wrote at commit e13c246.
EARLIEST = Path(__file__).parents[1] / "fixtures" / "export-e13c246.json"
_MACHINE = ("--maxcpus", "8", "--sockets", "2", "--cores", "4")


@pytest.fixture
def source(folder: Path) -> Iterator[FakeVm]:
    with FakeVm(folder / "a", *_MACHINE, "--smp", "2") as vm:
        yield vm


@pytest.fixture
def destination(folder: Path) -> Iterator[FakeVm]:
    with FakeVm(folder / "b", *_MACHINE, "--smp", "1", "--queues", "2", "--incoming", "on", agent=False) as vm:
        yield vm


def test_export_says_what_starts_a_qemu_with_these_vcpus(source: FakeVm) -> None:
    assert run(source, "plug", "--slot", "5").status == 0
    document = run(source, "export").json
    assert document["arguments"] == [
        "-smp",
        "cpus=2,sockets=2,cores=4,threads=1,maxcpus=8",
        "-device",
        "qemu64-x86_64-cpu,id=vcpu-5,socket-id=1,core-id=1,thread-id=0",
    ]
    assert document["device_add"][0]["id"] == "vcpu-5"
    assert [slot["slot"] for slot in document["slots"] if slot["filled"]] == [0, 1, 5]


def test_a_boot_cpu_behind_a_slot_that_was_emptied_gets_the_id_that_it_would_be_plugged_with(folder: Path) -> None:
    with FakeVm(folder / "a", *_MACHINE, "--smp", "3") as vm:
        assert run(vm, "unplug", "--slot", "1").status == 0
        arguments = run(vm, "export").json["arguments"]
    assert arguments[1].startswith("cpus=1,")
    assert arguments[2:4] == ["-device", "qemu64-x86_64-cpu,id=vcpu-2,socket-id=0,core-id=2,thread-id=0"]


def test_export_for_people_is_a_command_line_or_commands_for_a_monitor(source: FakeVm) -> None:
    assert run(source, "plug", "--slot", "5").status == 0
    with Vcpuctl(source, "-o", "table", "export") as command:
        words = command.ends().stdout.split()
    assert words[0] == "-smp"
    assert words[2] == "-device"
    with Vcpuctl(source, "-o", "table", "export", "--form", "qmp") as command:
        ended = command.ends()
    (line,) = ended.stdout.splitlines()
    assert json.loads(line)["execute"] == "device_add"
    assert "-smp cpus=2,sockets=2,cores=4,threads=1,maxcpus=8" in ended.stderr.splitlines()
    assert "-device" not in ended.stderr


def test_check_finds_what_is_missing_and_prepare_plugs_it_with_the_same_id(source: FakeVm, destination: FakeVm) -> None:
    assert run(source, "plug", "--slot", "5").status == 0
    checked = run(source, "migrate", "check", "--to", str(destination.qmp))
    assert (checked.status, checked.outcome) == (3, "refused"), checked.stderr
    problems = [d for d in checked.json["differences"] if d["level"] == "problem"]
    assert [(d["code"], d["slot"], d["curable"]) for d in problems] == [
        ("cpu-missing", 1, True),
        ("cpu-missing", 5, True),
    ]
    assert filled(destination) == {0}, "checking changes nothing"
    prepared = run(source, "migrate", "prepare", "--to", str(destination.qmp))
    assert (prepared.status, prepared.outcome) == (0, "done"), prepared.stdout
    assert prepared.json["plugged"] == [{"slot": 1, "id": "vcpu-1"}, {"slot": 5, "id": "vcpu-5"}]
    assert filled(destination) == {0, 1, 5}
    again = run(source, "migrate", "prepare", "--to", str(destination.qmp))
    assert (again.status, again.json["plugged"]) == (0, [])
    assert run(source, "migrate", "check", "--to", str(destination.qmp)).status == 0


def test_an_export_stands_for_a_source_that_cannot_be_reached(
    source: FakeVm, destination: FakeVm, folder: Path
) -> None:
    assert run(source, "plug", "--slot", "6").status == 0
    exported = folder / "export.json"
    exported.write_text(run(source, "export").stdout)
    prepared = run(destination, "migrate", "prepare", "--from", str(exported))
    assert (prepared.status, prepared.outcome) == (0, "done"), prepared.stdout
    assert filled(destination) == {0, 1, 6}


def test_an_export_of_the_first_version_that_wrote_any_is_read(source: FakeVm, destination: FakeVm) -> None:
    """Commit e13c246 wrote it: of a VM like the source, with a CPU plugged into slot 5."""
    assert run(source, "plug", "--slot", "5").status == 0
    checked = run(destination, "migrate", "check", "--from", str(EARLIEST))
    assert (
        checked.json["differences"] == run(source, "migrate", "check", "--to", str(destination.qmp)).json["differences"]
    )
    assert {(d["code"], d["slot"]) for d in checked.json["differences"] if d["level"] == "problem"} == {
        ("cpu-missing", 1),
        ("cpu-missing", 5),
    }
    prepared = run(destination, "migrate", "prepare", "--from", str(EARLIEST))
    assert (prepared.status, prepared.outcome) == (0, "done"), prepared.stdout
    assert filled(destination) == {0, 1, 5}


def test_an_export_of_another_schema_is_not_guessed_at(source: FakeVm, destination: FakeVm, folder: Path) -> None:
    exported = folder / "export.json"
    exported.write_text(json.dumps({**run(source, "export").json, "schema_version": 99}))
    ended = run(destination, "migrate", "prepare", "--from", str(exported))
    assert (ended.status, ended.outcome) == (2, "bad-export"), ended.stdout
    assert "schema_version is 99" in ended.json["error"]["text"]
    assert filled(destination) == {0}


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"vm": 1}', '{"schema_version": 1, "slots": []}'])
def test_a_file_that_is_no_export_is_a_usage_error_and_plugs_nothing(
    destination: FakeVm, folder: Path, text: str
) -> None:
    wrong = folder / "wrong.json"
    wrong.write_text(text)
    ended = run(destination, "migrate", "prepare", "--from", str(wrong))
    assert (ended.status, ended.outcome) == (2, "bad-export"), ended.stdout
    assert filled(destination) == {0}


def test_a_destination_that_has_a_cpu_too_many_is_left_as_it_is(source: FakeVm, folder: Path) -> None:
    assert run(source, "plug", "--slot", "6").status == 0
    with FakeVm(folder / "b", *_MACHINE, "--smp", "4", "--queues", "2", "--incoming", "on", agent=False) as other:
        prepared = run(source, "migrate", "prepare", "--to", str(other.qmp))
        assert (prepared.status, prepared.outcome, prepared.json["plugged"]) == (3, "refused", []), prepared.stdout
        problems = {(d["code"], d["slot"]) for d in prepared.json["differences"] if d["level"] == "problem"}
        assert problems == {("cpu-too-many", 2), ("cpu-too-many", 3), ("cpu-missing", 6)}
        assert filled(other) == {0, 1, 2, 3}, "slot 6 was not plugged: it would not have helped"


def test_a_disk_that_gets_its_queues_by_smp_is_in_the_export_and_in_the_check(source: FakeVm, folder: Path) -> None:
    assert run(source, "unplug", "--slot", "1").status == 0
    assert run(source, "export").json["arguments"][-2:] == ["-global", "virtio-blk-device.num-queues=2"]
    with FakeVm(folder / "b", *_MACHINE, "--smp", "1", "--incoming", "on", agent=False) as other:
        checked = run(source, "migrate", "check", "--to", str(other.qmp))
    assert [(d["code"], d["source"], d["destination"]) for d in checked.json["differences"]] == [("queues", "2", "1")]


def test_a_destination_that_runs_a_vm_of_its_own_is_not_touched(source: FakeVm, folder: Path) -> None:
    assert run(source, "plug", "--slot", "6").status == 0
    with FakeVm(folder / "b", *_MACHINE, "--smp", "2") as other:
        prepared = run(source, "migrate", "prepare", "--to", str(other.qmp))
        assert (prepared.status, filled(other)) == (3, {0, 1}), prepared.stdout
        assert "not-incoming" in {d["code"] for d in prepared.json["differences"]}


def test_a_vm_that_is_named_as_its_own_destination_is_a_usage_error(source: FakeVm, folder: Path) -> None:
    other_name = folder / "also"
    other_name.symlink_to(source.qmp)
    for name in (source.qmp, other_name):
        ended = run(source, "migrate", "check", "--to", str(name))
        assert (ended.status, ended.outcome) == (2, "same-vm"), ended.stdout


def test_while_a_migration_runs_every_operation_is_refused_with_the_reason(source: FakeVm) -> None:
    source.steer.call("x-fake-migrating", on=True)
    for words in (("plug",), ("unplug", "--slot", "1"), ("scale", "3"), ("offline", "1")):
        ended = run(source, *words)
        assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
        assert ended.json["reason"]["code"] == "migrating"
    assert filled(source) == {0, 1}
    assert run(source, "list").json["vm"]["migration"] == "active"
    source.steer.call("x-fake-migrating", on=False)
    assert run(source, "plug").status == 0


def test_a_qemu_that_waits_for_its_vm_says_so_and_plugs_nothing(destination: FakeVm) -> None:
    ended = run(destination, "plug")
    assert (ended.status, ended.json["reason"]["code"]) == (3, "vm-awaited"), ended.stdout


def test_a_cpu_that_came_along_and_does_not_start_there_is_told_with_the_kernels_errno(source: FakeVm) -> None:
    # as after a move: the CPU is plugged, offline in the guest, and the kernel cannot start it any more
    assert run(source, "plug", "--slot", "5").status == 0
    assert run(source, "offline", "5").status == 0
    source.steer.call("x-fake-kernel-refuse", slot=5, errno=errno.EIO, online=True)
    for words in (("scale", "3"), ("online", "5")):
        ended = run(source, *words)
        assert ended.status != 0, ended.stdout
        reason = ended.slots[5]["reason"]
        assert (reason["code"], reason["who"], reason["errno"]) == ("bring-up-failed", "guest", "EIO"), ended.stdout
        assert "dmesg" in reason["text"]
    assert run(source, "list").slots[5]["state"] == "offline"
