# SPDX-License-Identifier: Apache-2.0
"""Whatever becomes of its standard streams, a command does what it was told, and ends with the status of that."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kit import documents
from kit.component.cli import SOON, Vcpuctl, done, run, stands, until
from kit.ended import Ended
from kit.fakes.qemu import FakeVm
from kit.until import DEADLINE

_CLI = (sys.executable, "-m", "vcpu_host.cli.main")
_PAGE = 4096
#: Sockets that asyncio itself has: the pair that wakes it up.
_OF_THE_LOOP = 2


@pytest.fixture
def vm() -> Iterator[FakeVm]:
    with tempfile.TemporaryDirectory(prefix="vs", dir="/tmp") as name, FakeVm(Path(name)) as fake:
        yield fake


def without(streams: str) -> tuple[str, ...]:
    """Words before a command that start it as a shell does with these redirections."""
    return ("sh", "-c", f'exec "$@" {streams}', "sh")


@contextmanager
def _process(vm: FakeVm, *words: str, stdout: int | None = subprocess.PIPE, stderr: int) -> Iterator[Vcpuctl]:
    """A command with these streams; the test's own copies of them are closed."""
    command = Vcpuctl.__new__(Vcpuctl)
    command.process = subprocess.Popen(
        [*_CLI, "--qmp", str(vm.qmp), *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(vm.folder), "TERM": "xterm"},
    )
    for number in {stdout, stderr} - {subprocess.PIPE, None}:
        assert number is not None
        os.close(number)
    with command:
        yield command


def _small_pipe() -> tuple[int, int]:
    """A pipe that is full when a page is in it."""
    reading, writing = os.pipe()
    assert fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PAGE) == _PAGE
    return reading, writing


def _unread(reading: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, b"\0" * 4))[0])


# --- a stream that takes nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verbosity", ["-v", "-vv"])
def test_a_stderr_on_a_full_disk_changes_neither_what_is_done_nor_its_answer(vm: FakeVm, verbosity: str) -> None:
    ended = run(vm, verbosity, "scale", "3", inside=without("2>/dev/full"))
    assert (ended.status, ended.outcome, ended.stderr) == (0, "done", "")
    stands(vm, {0, 1, 2})


def test_an_error_on_a_full_disk_keeps_its_status(vm: FakeVm) -> None:
    ended = run(vm, "--agent", "", "list", inside=without("2>/dev/full"))
    assert (ended.status, ended.json["exit_status"]) == (2, 2)


@pytest.mark.parametrize("log", ["text", "json"])
def test_a_reader_of_the_log_that_goes_in_the_middle_ends_nothing(vm: FakeVm, log: str) -> None:
    with Vcpuctl(vm, "-v", "--log-format", log, "scale", "3") as command:
        assert command.process.stderr is not None
        command.process.stderr.readline()
        command.process.stderr.close()
        command.process.stderr = None
        assert command.process.stdout is not None
        stdout = command.process.stdout.read()
        assert command.process.wait(SOON) == 0
    documents.check_output(stdout)
    assert Ended(0, stdout, "").outcome == "done"
    stands(vm, {0, 1, 2})


def test_a_terminal_that_is_closed_in_the_middle_ends_nothing(vm: FakeVm) -> None:
    rule = vm.steer.rule("guest:insert", "hold")
    ours, theirs = pty.openpty()
    with _process(vm, "-o", "json", "scale", "3", stderr=theirs) as command:
        vm.steer.wait(rule)
        assert os.read(ours, _PAGE), "progress"
        os.close(ours)
        vm.steer.release(rule)
        ended = command.ends()
    assert (ended.status, ended.outcome) == (0, "done")
    stands(vm, {0, 1, 2})


def test_a_log_that_nobody_reads_holds_up_neither_the_operation_nor_others(vm: FakeVm) -> None:
    reading, writing = _small_pipe()
    with _process(vm, "-vv", "-o", "json", "scale", "3", stderr=writing) as command:
        assert command.process.stdout is not None
        answer = command.process.stdout.readline()
        assert Ended(0, answer, "").outcome == "done"
        assert command.process.poll() is None, "there is more to read than the pipe holds"
        done(vm, {0, 1}, "scale", "2")
        log = b""
        while chunk := os.read(reading, 1 << 16):
            log += chunk
        os.close(reading)
        assert command.process.wait(SOON) == 0
    assert len(log) > _PAGE
    assert log.endswith(b"\n"), "all of it, as soon as somebody reads"


# --- a stream that is closed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_neither_what_is_done_nor_its_status(vm: FakeVm, streams: str, form: str) -> None:
    ended = run(vm, "-o", form, "-v", "scale", "2", inside=without(streams))
    assert ended.status == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    stands(vm, {0, 1})
    for words in (("list",), ("watch", "--timeout", "100ms"), ("doctor",)):
        looked = run(vm, "-o", form, *words, inside=without(streams))
        assert looked.status in (0, 1), looked.stderr
        assert "Traceback" not in looked.stderr
        assert bool(looked.stdout) is (">&-" not in streams.split())


def test_without_a_stderr_a_document_is_all_that_is_on_stdout(vm: FakeVm) -> None:
    ended = run(vm, "frob", inside=without("2>&-"))
    assert (ended.status, ended.outcome) == (2, "bad-usage")


def test_a_closed_stdin_is_an_empty_one(vm: FakeVm) -> None:
    ended = run(vm, "migrate", "check", "--from", "-", inside=without("<&-"))
    assert (ended.status, ended.outcome) == (2, "bad-export")


def test_no_socket_of_a_process_without_streams_has_the_number_of_one(vm: FakeVm) -> None:
    with Vcpuctl(vm, "watch", inside=without("<&- >&- 2>&-")) as command:
        descriptors = Path(f"/proc/{command.process.pid}/fd")
        until(lambda: sum("socket:" in each for each in _open(descriptors)) > _OF_THE_LOOP)
        assert {str((descriptors / number).readlink()) for number in "012"} == {os.devnull}
        command.interrupt()
        assert command.ends().status == 0


def _open(descriptors: Path) -> Iterator[str]:
    """What a process that goes on opening and closing has open: what it closes during the look counts as closed."""
    for each in descriptors.iterdir():
        with suppress(FileNotFoundError):
            yield str(each.readlink())


@pytest.mark.parametrize("streams", [">&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_vcpud_ends_with_its_own_status_whatever_its_streams_are(streams: str) -> None:
    command = [*without(streams), sys.executable, "-m", "vcpu_guest", "--config", "/nonexistent"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr


# --- readers that do not read, and writers (promise 8) ----------------------------------------------------------------


def test_a_watch_whose_reader_does_not_read_gives_the_vm_up_and_shows_the_newest_when_it_does(vm: FakeVm) -> None:
    reading, writing = _small_pipe()
    with _process(vm, "-o", "json", "watch", stdout=writing, stderr=subprocess.PIPE) as watch:
        until(lambda: _unread(reading) == _PAGE, what="a full pipe")
        done(vm, {0, 1}, "plug")
        assert run(vm, "list").json["vm"]["online_vcpus"] == 2
        with open(reading, encoding="utf-8") as views:
            assert any(Ended(0, view, "").json["vm"]["online_vcpus"] == 2 for view in views)
            watch.process.terminate()
            assert watch.process.wait(SOON) == 0


def test_a_watch_whose_reader_does_not_read_ends_when_it_is_told_to(vm: FakeVm) -> None:
    reading, writing = _small_pipe()
    with _process(vm, "-o", "json", "watch", stdout=writing, stderr=subprocess.PIPE) as watch:
        until(lambda: _unread(reading) == _PAGE, what="a full pipe")
        watch.interrupt()
        assert watch.process.wait(SOON) == 0
    os.close(reading)


def test_a_watch_on_a_terminal_that_stands_still_gives_the_vm_up_and_ends_when_it_is_told_to(vm: FakeVm) -> None:
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)  # as Ctrl-S
    with _process(vm, "watch", stdout=theirs, stderr=subprocess.PIPE) as watch:
        until(lambda: len(vm.steer.commands("query-hotpluggable-cpus")) > 0, what="a look")
        done(vm, {0, 1}, "plug")
        watch.interrupt()
        assert watch.process.wait(SOON) == 0
    os.close(ours)


# --- an answer that is not waited for ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("list",), ("doctor",), ("plan", "plug", "1"), ("export",)], ids=["list", "doctor", "plan", "export"]
)
def test_ctrl_c_ends_a_question_with_a_document_that_says_so(vm: FakeVm, words: tuple[str, ...]) -> None:
    rule = vm.steer.rule("before:query-hotpluggable-cpus", "hold", times=None)
    with Vcpuctl(vm, *words) as command:
        vm.steer.wait(rule)
        command.interrupt()
        ended = command.ends()
    assert (ended.status, ended.outcome, ended.json["exit_status"]) == (3, "interrupted", 3)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("step", "status"), [("check", 3), ("prepare", 4)])
def test_ctrl_c_says_that_nothing_was_changed_only_where_nothing_can_have_been(
    vm: FakeVm, step: str, status: int
) -> None:
    (vm.folder / "to").mkdir()
    rule = vm.steer.rule("before:query-hotpluggable-cpus", "hold", times=None)
    with (
        FakeVm(vm.folder / "to", "--incoming", "on", agent=False) as there,
        Vcpuctl(vm, "migrate", step, "--to", str(there.qmp)) as command,
    ):
        vm.steer.wait(rule)
        command.interrupt()
        ended = command.ends()
    assert (ended.status, ended.outcome) == (status, "interrupted")
    assert ("nothing was changed" in ended.json["error"]["text"]) is (step == "check")
