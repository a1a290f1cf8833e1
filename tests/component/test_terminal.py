# SPDX-License-Identifier: Apache-2.0
"""What is read on a real terminal, narrow or wide: no word of a reason is missing, and no column of a table."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.component.cli import run
from kit.fakes.hostile import Hostile, Script
from kit.fakes.qemu import FakeVm
from kit.fakes.terminal import Screen, Shown, run_on_terminal
from kit.until import DEADLINE
from vcpu_proto.v1 import agent_pb2 as pb

_CLI = (sys.executable, "-m", "vcpu_host.cli.main")
WIDTHS = pytest.mark.parametrize("width", [60, 80, 100, 140])
_RESULT = ["SLOT", "ID", "OUTCOME", "GUEST", "CPU", "PHASES"]
_LIST = ["SLOT", "STATE", "GUEST", "CPU", "ID", "PROPS", "NODE", "HOST", "TID"]
#: What a guest may say at most; every word of it is another one.
LONG = " ".join(f"because-{number}" for number in range(30))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vt", dir="/tmp") as name:
        for part in "abc":
            Path(name, part).mkdir()
        yield Path(name)


@pytest.fixture(scope="module")
def vm(folder: Path) -> Iterator[FakeVm]:
    """Two CPUs from boot on, and no agent yet."""
    with FakeVm(folder / "a", "--maxcpus", "6", "--smp", "2", agent=False) as vm:
        yield vm


@pytest.fixture(scope="module")
def waiting(folder: Path) -> Iterator[FakeVm]:
    """A QEMU that waits for another VM than that."""
    with FakeVm(folder / "b", "--maxcpus", "8", "--smp", "1", "--incoming", "on", agent=False) as vm:
        yield vm


def shown(vm: FakeVm, width: int, *words: str, height: int = 60) -> Shown:
    """The command on a terminal."""
    command = [*_CLI, "--qmp", str(vm.qmp), *words]
    return run_on_terminal(command, width, height=height, environment={"XDG_RUNTIME_DIR": str(vm.folder)})


def document(vm: FakeVm, *words: str) -> dict[str, Any]:
    """The same as a document."""
    found: dict[str, Any] = run(vm, *words).json
    return found


def is_whole(screen: Screen, *texts: str) -> None:
    """Every word of each text is there, in order and in one place, and no line was too long for the terminal."""
    assert screen.broken == set()
    for text in texts:
        words = text.split()
        found = any(screen.words[at : at + len(words)] == words for at in range(len(screen.words)))
        assert found, f"{text!r} is not in\n" + "\n".join(screen.rows)


class Refuses(Script):
    """Does nothing, and says at length why."""

    async def switch(self, name: str, request: pb.SetOnlineRequest) -> pb.CpuResult:
        seen = pb.Cpu(number=1, firmware_id=name, online=not request.online)
        reason = pb.Reason(code="hook-refused", text=LONG, errno=16, errno_name="EBUSY")
        return pb.CpuResult(firmware_id=name, status=pb.CpuResult.STATUS_REFUSED, reason=reason, observed=seen)


@WIDTHS
def test_an_operations_result_has_every_column_and_the_whole_reason(vm: FakeVm, width: int) -> None:
    with Hostile(vm, Refuses(vm.folder)):
        done = shown(vm, width, "offline", "1")
    assert done.status == 3
    is_whole(done.screen, " ".join(_RESULT), LONG + " (EBUSY)", "offline: refused in")
    row = next(row for row in done.screen.rows if row.startswith("1 "))
    assert row.split()[:3] == ["1", "-", "refused"]


@WIDTHS
def test_a_plan_says_the_whole_why_or_the_whole_refusal(vm: FakeVm, width: int) -> None:
    with Hostile(vm, Script(vm.folder)):
        refused, planned = (
            shown(vm, width, "plan", "unplug", "--slot", "0"),
            shown(vm, width, "plan", "plug", "-n", "2"),
        )
        reason = document(vm, "plan", "unplug", "--slot", "0")["refusals"][0]["reason"]
        steps = document(vm, "plan", "plug", "-n", "2")["steps"]
    assert (refused.status, planned.status) == (3, 0)
    is_whole(refused.screen, f"{reason['text']}; {reason['hint']}")
    assert planned.screen.broken == set()
    for word in " ".join([*(f"{step['why']} {step['on_failure']}" for step in steps), "STEP SLOT ID WHY IF"]).split():
        assert word in planned.screen.words


@WIDTHS
def test_a_list_has_every_column_and_says_all_of_why_the_agent_is_silent(vm: FakeVm, width: int) -> None:
    done = shown(vm, width, "list")
    trouble = document(vm, "list")["agent_trouble"]
    assert done.status == 0
    assert trouble["hint"]
    is_whole(done.screen, f"{trouble['text']}; {trouble['hint']}", " ".join(_LIST))
    for slot in ("0", "1"):
        row = next(row for row in done.screen.rows if row.startswith(f"{slot} "))
        assert row.split()[:4] == [slot, "unknown", "-", "(boot)"]


@WIDTHS
def test_doctor_says_every_finding_and_fix_to_its_end(vm: FakeVm, width: int) -> None:
    findings = document(vm, "doctor")["findings"]
    assert any(finding["fix"] for finding in findings)
    done = shown(vm, width, "doctor")
    is_whole(done.screen, *(f"{finding['level']} {finding['text']}" for finding in findings))
    is_whole(done.screen, *(f"fix: {finding['fix']}" for finding in findings if finding["fix"]))


@WIDTHS
def test_a_comparison_for_a_migration_says_every_difference_to_its_end(vm: FakeVm, waiting: FakeVm, width: int) -> None:
    words = ("migrate", "check", "--to", str(waiting.qmp))
    differences = document(vm, *words)["differences"]
    done = shown(vm, width, *words)
    assert done.status == 3
    assert len(differences) > 1
    is_whole(done.screen, *(d["text"] for d in differences), *(d["fix"] for d in differences if d["fix"]))


@WIDTHS
@pytest.mark.parametrize("height", [40, 4], ids=["a map that fits", "a map that is longer than the terminal"])
def test_a_watch_redraws_the_whole_map(vm: FakeVm, width: int, height: int) -> None:
    with Hostile(vm, Script(vm.folder)):
        done = shown(vm, width, "watch", "--timeout", "1", height=height)
    assert done.status == 0
    is_whole(done.screen, " ".join(_LIST), "vCPUs: 2 online, 2 plugged, 6 possible")
    assert not {"...", "…"} & set(done.written.split()), "it left out what does not fit"
    # The last that it drew is whole, from its first line to its last.
    first = max(number for number, row in enumerate(done.screen.rows) if "QEMU" in row)
    slots = [row.split()[0] for row in done.screen.rows[first:] if row[:1].isdigit()]
    assert [slot for slot in slots if slot in ("0", "1", "2-5")] == ["0", "1", "2-5"]


@WIDTHS
def test_a_list_on_a_terminal_has_one_row_for_empty_slots_in_a_row_unless_it_is_to_be_wide(
    vm: FakeVm, width: int
) -> None:
    short, wide = shown(vm, width, "list"), shown(vm, width, "list", "-o", "wide")
    first = [row.split()[0] for row in short.screen.rows if row[:1].isdigit()]
    assert [slot for slot in first if slot in ["0", "1", "2-5", "3", "4", "5"]] == ["0", "1", "2-5"]
    is_whole(short.screen, " ".join(_LIST), "socket=0,core=2,thread=0 to" if width > 80 else "to")
    assert wide.screen.broken == set()
    text = " ".join(wide.screen.words)
    assert all(f"SLOT {slot};" in text for slot in range(6)), "a table that is too wide is written as records"
    for column in ("VCPUS", "TYPE", "REMOVABLE", "FIRMWARE ID", "QOM PATH"):
        assert text.count(f"{column} ") >= 6


def test_a_list_that_is_piped_has_a_row_for_each_slot(vm: FakeVm) -> None:
    command = [*_CLI, "--qmp", str(vm.qmp), "list"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(vm.folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert [row.split()[0] for row in done.stdout.splitlines() if row[:1].isdigit()] == list("012345")


def test_what_is_for_copying_is_one_line_to_the_terminal(folder: Path) -> None:
    options = ("--maxcpus", "2", "--sockets", "2", "--cores", "1", "--nodes", "2", "--preconfig", "on")
    (folder / "c/map.toml").write_text("0 = ['socket-id=0']\n5 = ['socket-id=1']")
    with FakeVm(folder / "c", *options, agent=False) as vm:
        done = shown(vm, 30, "numa", "assign", "--map", str(folder / "c/map.toml"))
    assert done.status == 3
    assert "-numa cpu,node-id=5,socket-id=1,core-id=0,thread-id=0" in "".join(done.screen.rows)
    assert done.screen.broken


def test_without_a_terminal_every_text_is_one_line(vm: FakeVm) -> None:
    with Hostile(vm, Refuses(vm.folder)):
        written = subprocess.run(
            [*_CLI, "--qmp", str(vm.qmp), "offline", "1"],
            env={**os.environ, "XDG_RUNTIME_DIR": str(vm.folder), "COLUMNS": "60"},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        ).stdout
    assert any(LONG in line for line in written.splitlines())
    assert not any(line != line.rstrip() for line in written.splitlines())


def _written_to_a_full_disk(vm: FakeVm, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with open("/dev/full", "w") as full:
        return subprocess.run(
            [*_CLI, "--qmp", str(vm.qmp), *words],
            env={**os.environ, "XDG_RUNTIME_DIR": str(vm.folder), **environment},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )


@pytest.mark.parametrize("draws", ["", "1"])
@pytest.mark.parametrize("form", ["table", "json"])
def test_an_answer_that_cannot_be_written_is_told_in_words_and_as_an_outcome_that_the_caller_does_not_know(
    vm: FakeVm, form: str, draws: str
) -> None:
    done = _written_to_a_full_disk(vm, "list", "-o", form, FORCE_COLOR=draws)
    assert done.returncode == 4
    first, second = done.stderr.splitlines()[-2:]
    assert first == "vcpuctl: the answer cannot be written to stdout: No space left on device"
    assert "vcpuctl log" in second
    assert "Traceback" not in done.stderr


def test_an_error_keeps_its_status_although_its_document_cannot_be_written(vm: FakeVm) -> None:
    done = _written_to_a_full_disk(vm, "plug", "-n", "1", "-o", "json")
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert "\nvcpuctl: no program in the guest has the agent's port open" in done.stderr


def test_a_command_whose_reader_has_gone_does_not_say_that_it_failed(vm: FakeVm) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        done = subprocess.run(
            [*_CLI, "--qmp", str(vm.qmp), "list", "-o", "json"],
            env={**os.environ, "XDG_RUNTIME_DIR": str(vm.folder)},
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
