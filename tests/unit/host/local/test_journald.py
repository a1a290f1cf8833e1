# SPDX-License-Identifier: Apache-2.0
"""journald's native protocol, against a socket of our own; tests/component/test_log.py has the real one."""

from __future__ import annotations

import array
import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from vcpu_host.core.log_entry import Caller
from vcpu_host.local import journald
from vcpu_host.local.journald import Told, encode, send, this_process


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.settimeout(30)
        yield made


@pytest.fixture(autouse=True)
def _no_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "_NAMES", {})


def test_a_value_is_a_line_and_one_with_a_line_break_has_its_length_before_it() -> None:
    assert encode([("MESSAGE", "ä=1"), ("X", "a\nb"), ("X", "")]) == (
        b"MESSAGE=\xc3\xa4=1\n" + b"X\n\x03\0\0\0\0\0\0\0a\nb\n" + b"X=\n"
    )


def test_a_text_that_is_no_utf_8_is_escaped() -> None:
    assert encode([("X", "\udcff")]) == b"X=\\udcff\n"


def test_an_entry_is_one_datagram(listener: socket.socket) -> None:
    assert send([("MESSAGE", "one"), ("X", "1")], listener.getsockname()) is Told.WRITTEN
    assert listener.recv(1000) == b"MESSAGE=one\nX=1\n"


def test_an_entry_that_is_too_large_comes_as_a_sealed_file_and_none_is_left_open(listener: socket.socket) -> None:
    before = os.listdir("/proc/self/fd")
    entry = [("MESSAGE", "x" * 5_000_000)]
    assert send(entry, listener.getsockname()) is Told.WRITTEN
    data, ancillary, _, _ = listener.recvmsg(100, socket.CMSG_SPACE(4))
    assert data == b""
    (file,) = array.array("i", ancillary[0][2])
    try:
        assert os.pread(file, 6_000_000, 0) == encode(entry)
        with pytest.raises(PermissionError):
            os.pwrite(file, b"y", 0)
    finally:
        os.close(file)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("there", ["nothing", "nobody", "no directory"])
def test_a_system_without_journald_is_no_error(there: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    if there == "nobody":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
            gone.bind(str(path))
    elif there == "no directory":
        path.write_text("")
        path = path / "socket"
    assert send([("MESSAGE", "x")], str(path)) is Told.NO_JOURNAL


def test_a_journal_that_takes_nothing_loses_the_entry_and_holds_nobody_up(listener: socket.socket) -> None:
    fill = [send([("MESSAGE", "x")], listener.getsockname(), patience=0.0) for _ in range(5000)]
    assert (fill[0], fill[-1]) == (Told.WRITTEN, Told.LOST)
    assert send([("MESSAGE", "y" * 5_000_000)], listener.getsockname(), patience=0.01) is Told.LOST


def test_a_journal_that_makes_room_gets_the_entry_that_had_to_wait(listener: socket.socket) -> None:
    while send([("MESSAGE", "x")], listener.getsockname(), patience=0.0) is Told.WRITTEN:
        pass
    listener.recv(100)
    assert send([("MESSAGE", "late")], listener.getsockname(), patience=30.0) is Told.WRITTEN


def test_a_socket_of_another_kind_loses_the_entry(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(tmp_path / "socket"))
        stream.listen()
        assert send([("MESSAGE", "x")], str(tmp_path / "socket")) is Told.LOST


def test_this_process_says_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    assert this_process("vcpuctl plug", 7) == Caller(uid, pwd.getpwuid(uid).pw_name, "vcpuctl plug", 7)

    def unknown(uid: int) -> None:
        asked.append(uid)
        raise KeyError(uid)

    asked: list[int] = []

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    journald._NAMES.clear()
    assert [this_process("vcpuctl plug").user for _ in range(3)] == ["", "", ""]
    assert asked == [uid]


def test_a_name_service_that_hangs_costs_the_name_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    answer = threading.Event()

    def slow(uid: int) -> pwd.struct_passwd:
        answer.wait(60)
        return pwd.getpwall()[0]

    monkeypatch.setattr(pwd, "getpwuid", slow)
    monkeypatch.setattr(journald, "_NAME_PATIENCE", 0.01)
    assert this_process("vcpuctl plug").user == ""
    answer.set()
