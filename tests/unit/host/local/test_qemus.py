# SPDX-License-Identifier: Apache-2.0
"""What /proc says of processes, where it hides some, or changes meanwhile. The component tests have real ones."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from kit.fakes.lookalike import Lookalike
from vcpu_host.core.vms import Process
from vcpu_host.local import processes, qemus

_QMP = ("/usr/bin/qemu-system-x86_64", "-qmp", "unix:/nowhere,server=on")


class _Table:
    """A table of processes: their command lines, None for those that may not be read; who is whose parent."""

    def __init__(self, lines: Mapping[int, tuple[str, ...] | None], parents: dict[int, int] | None = None) -> None:
        self.lines = lines
        self.parents = parents or {}


def _seen(monkeypatch: pytest.MonkeyPatch, table: _Table) -> tuple[list[Process], str]:
    """The processes that are found, and the words about those that are not seen."""
    monkeypatch.setattr(processes, "pids", lambda: sorted(table.lines))
    monkeypatch.setattr(processes, "arguments", table.lines.__getitem__)
    monkeypatch.setattr(processes, "started", lambda pid: pid)
    monkeypatch.setattr(processes, "user", lambda _pid: 4_000_000)
    monkeypatch.setattr(processes, "parent", table.parents.get)
    found, unseen = qemus.seen()
    return found, "" if unseen is None else unseen.text


def test_where_everything_is_seen_nothing_is_told_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    found, unseen = _seen(monkeypatch, _Table({1: ("init",), 2: (), 3_000_000: _QMP}))
    assert [(process.pid, process.user) for process in found] == [(3_000_000, "4000000")]
    assert unseen == ""


def test_processes_that_may_not_be_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc with hidepid=1."""
    found, unseen = _seen(monkeypatch, _Table({1: None, 2: None, 3_000_000: _QMP}))
    assert len(found) == 1
    assert unseen.startswith("2 processes of other users cannot be read")


def test_processes_that_are_hidden_are_told_by_the_first_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc with hidepid=2."""
    found, unseen = _seen(monkeypatch, _Table({3_000_000: _QMP}))
    assert len(found) == 1
    assert unseen.startswith("processes of other users cannot be seen")


def test_a_child_with_its_parents_words_is_no_second_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU's -run-with async-teardown=on (system/async-teardown.c), which shares its memory, and so its words."""
    lines = {1: ("init",), 3_000_000: _QMP, 3_000_001: _QMP, 3_000_002: _QMP}
    found, _ = _seen(monkeypatch, _Table(lines, {3_000_000: 1, 3_000_001: 3_000_000, 3_000_002: 1}))
    assert [process.pid for process in found] == [3_000_000, 3_000_002]


def test_a_process_that_ends_meanwhile_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "pids", lambda: [1, 3_000_000])
    monkeypatch.setattr(processes, "arguments", {1: ("init",), 3_000_000: _QMP}.__getitem__)
    assert qemus.seen() == ([], None)


def test_a_process_says_of_itself_what_proc_has() -> None:
    pid = os.getpid()
    assert pid in processes.pids()
    assert processes.user(pid) == os.getuid()
    assert processes.parent(pid) == os.getppid()
    assert processes.arguments(pid) == tuple(sys.orig_argv)


@pytest.mark.parametrize("ask", [processes.user, processes.parent, processes.started])
def test_of_a_process_that_is_no_more_nothing_is_known(ask: Callable[[int], int | None]) -> None:
    assert ask(4_200_000) is None
    assert processes.arguments(4_200_000) == ()


def test_names_of_one_socket_have_one_key() -> None:
    assert qemus.key_of("/etc/passwd") == qemus.key_of("/etc/../etc/passwd")
    assert qemus.key_of("@abstract") == "@abstract"
    assert qemus.key_of("/nowhere/at/all") is None
    assert qemus.key_of("a\0b") is None


def test_a_qemu_that_alone_listens_at_two_sockets_is_seen_and_one_whose_sockets_others_have_is_not(
    tmp_path: Path,
) -> None:
    with ExitStack() as ends:
        sockets = {}
        for name in ("one", "two", "three"):
            listener = ends.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(tmp_path / name))
            listener.listen()
            sockets[name] = listener
        handed = [sockets[name].fileno() for name in ("one", "two")]
        names = [str(tmp_path / name) for name in sockets]
        assert qemus.listening(names) == {}  # this process has them, and is no QEMU
        qemu = ends.enter_context(Lookalike(tmp_path, handed=handed))
        assert qemus.listening(names) == dict.fromkeys(names[:2], qemu.pid)
        (tmp_path / "link").symlink_to(tmp_path / "one")
        assert qemus.listening([str(tmp_path / "link"), names[1]]) == {
            str(tmp_path / "link"): qemu.pid,
            names[1]: qemu.pid,
        }
        (tmp_path / "hard").hardlink_to(tmp_path / "one")
        both = [names[0], str(tmp_path / "hard")]
        assert qemus.listening(both) == dict.fromkeys(both, qemu.pid)
        ends.enter_context(Lookalike(tmp_path, handed=handed[:1]))
        assert qemus.listening(names) == {names[1]: qemu.pid}
