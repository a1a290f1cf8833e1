# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pty
import socket
import subprocess
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from kit.lab import relay
from kit.lab.emulated import HOSTS, drives, host_for
from kit.lab.errors import LabError, ShellError
from kit.lab.nested import KvmHost
from kit.lab.spec import VmSpec
from kit.lab.vm import Vm

#: Seconds that end a test which hangs.
_WITHIN = 30.0


class StubVm:
    """A host whose shell gives one answer, or ends with a status."""

    def __init__(self, answer: str | None) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def shell(self, command: str, _timeout: float = 10.0) -> str:
        self.asked.append(command)
        if self.answer is None:
            raise ShellError(command, 137, "")
        return self.answer


def _host(answer: str | None) -> tuple[KvmHost, StubVm]:
    stub = StubVm(answer)
    return KvmHost(cast("Vm", stub)), stub


def test_what_a_program_in_the_host_said_is_told_apart_in_bytes() -> None:
    host, stub = _host("3 5 6\nä->bésay\n")
    ended = host.run(["vcpuctl", "a b"])
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "ä->b", "ésay\n")
    assert "vcpuctl 'a b' >" in stub.asked[0]


def test_a_program_in_the_host_that_does_not_end_is_told_as_one_here() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        _host(None)[0].run(["vcpuctl"], 1.0)


@pytest.mark.parametrize("arch", HOSTS)
def test_the_drives_of_a_host_are_the_same_devices_whatever_is_on_them(arch: str) -> None:
    filled = drives("driver=raw,file.driver=file,file.filename=a", "driver=raw,file.driver=file,file.filename=b")
    of_both = (filled, HOSTS[arch].spec.extra_args)
    devices = [[word for word in argv if word.startswith("virtio-blk")] for argv in of_both]
    assert devices[0] == devices[1]
    assert len(devices[0]) == 2


@pytest.mark.parametrize("arch", HOSTS)
def test_a_host_is_of_its_vms_architecture_and_has_the_qemu_that_prepares_the_vms_disk(arch: str) -> None:
    host = HOSTS[arch]
    assert host.spec.arch.name == arch
    assert VmSpec(**host.plain).qemu in host.qemus
    assert host_for(VmSpec(guest=f"debian12-{arch}")) is host


def test_a_vm_whose_host_nobody_can_emulate_is_refused() -> None:
    with pytest.raises(LabError, match=r"debian12-s390x.*amd64, ppc64el"):
        host_for(VmSpec(guest="debian12-s390x"))


@pytest.fixture
def port() -> Iterator[tuple[int, int]]:
    """The lab's end and the host's. A terminal hangs up as a port does."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    yield ours, theirs
    os.close(theirs)


def _serve(device: int, file: Path) -> threading.Thread:
    thread = threading.Thread(target=relay._one_client, args=(device, file), daemon=True)
    thread.start()
    return thread


def _read(ours: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(ours, size - len(data))
    return data


def test_a_port_is_joined_to_a_socket_until_the_lab_lets_go(port: tuple[int, int], tmp_path: Path) -> None:
    ours, theirs = port
    path = tmp_path / "sock"
    thread = _serve(theirs, path)  # the socket may come later
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(_WITHIN)
        peer, _ = listener.accept()
        with peer:
            os.write(ours, b"question")
            assert peer.recv(100) == b"question"
            peer.sendall(b"answer")
            assert _read(ours, 6) == b"answer"
            os.close(ours)
            assert peer.recv(100) == b""
    thread.join(_WITHIN)
    assert not thread.is_alive()


def test_a_port_is_given_a_text_from_its_start_and_as_it_grows(port: tuple[int, int], tmp_path: Path) -> None:
    ours, theirs = port
    path = tmp_path / "record"
    path.write_text("first\n")
    thread = _serve(theirs, path)
    assert _read(ours, 6) == b"first\n"
    with path.open("a") as text:
        text.write("second\n")
    assert _read(ours, 7) == b"second\n"
    os.close(ours)
    thread.join(_WITHIN)
    assert not thread.is_alive()
