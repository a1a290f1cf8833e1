# SPDX-License-Identifier: Apache-2.0
"""Guests whose firmware has other names for CPUs than today's machine types give (F1)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import done, filled, online, run
from kit.fakes.qemu import FakeVm

OLD = ("--machine", "pc-i440fx-2.6", "--acpi-names", "old")
#: A type that vcpuctl takes for today's, whose guest has the old names.
FOREIGN = ("--acpi-names", "old")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


def test_on_an_old_machine_type_what_works_works_and_the_rest_is_refused_up_front(folder: Path) -> None:
    with FakeVm(folder, "--smp", "2", *OLD) as vm:
        assert run(vm, "doctor").status == 0
        done(vm, {0, 1, 5}, "plug", "--slot", "5")
        listed = run(vm, "list").json
        assert [slot["state"] for slot in listed["slots"] if slot["id"] or slot["slot"] < 2] == ["online"] * 3
        assert listed["vm"]["online_vcpus"] == 3
        assert run(vm, "offline", "5").status == 0
        assert online(vm) == {0, 1}
        assert run(vm, "online", "5").status == 0
        for command in (("unplug", "--slot", "5"), ("unplug", "-n", "1"), ("scale", "1")):
            refused = run(vm, *command)
            assert refused.status == 3
            assert "2.7" in refused.stdout
        assert (filled(vm), online(vm)) == ({0, 1, 5}, {0, 1, 5})
        assert vm.steer.commands("device_del") == []


def test_on_an_old_type_a_missing_agent_is_told_as_that_and_waited_for_no_longer_than_one_that_may_start(
    folder: Path,
) -> None:
    with FakeVm(folder, "--smp", "2", *OLD, agent=False) as vm:
        assert run(vm, "list").json["agent_trouble"]["code"] == "agent-absent"
        ended = run(vm, "--timeout", "600", "plug")
        assert (ended.status, ended.outcome) == (5, "agent-absent"), ended.stdout
        assert "waited 2" in ended.json["error"]["text"]


@pytest.mark.parametrize(
    "command",
    [
        ("offline", "1"),
        ("online", "1"),
        ("plug", "-n", "1"),
        ("plug", "--slot", "5"),
        ("unplug", "--slot", "1"),
        ("scale", "1"),
        ("scale", "--in-guest", "1"),
    ],
)
def test_where_no_slot_explains_the_guests_cpus_nothing_is_done_and_that_is_said_at_once(
    folder: Path, command: tuple[str, ...]
) -> None:
    with FakeVm(folder, "--smp", "2", *FOREIGN) as vm:
        refused = run(vm, *command)
        assert (refused.status, refused.json["reason"]["code"]) == (3, "unexplained-cpus")
        assert "\\_SB_.CP01" in refused.json["reason"]["text"]
        assert (filled(vm), online(vm)) == ({0, 1}, {0, 1})


def test_what_is_looked_at_there_has_no_wrong_word(folder: Path) -> None:
    with FakeVm(folder, "--smp", "2", *FOREIGN) as vm:
        listed = run(vm, "list").json
        assert listed["vm"]["online_vcpus"] is None
        assert {slot["state"] for slot in listed["slots"][:2]} == {"unknown"}
        assert listed["unexplained_guest_cpus"] == [0, 1]
        found = run(vm, "doctor")
        assert found.status == 1
        problems = {finding["code"] for finding in found.json["findings"] if finding["level"] == "problem"}
        assert "unexplained-cpus" in problems
