# SPDX-License-Identifier: Apache-2.0
"""The way to the agent's port, whatever its chardev is and wherever QEMU lives."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kit.component.cli import done, run, stands, until
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def inside() -> Iterator[Path]:
    """What a QEMU in a container has its folder as. Here it is empty."""
    with tempfile.TemporaryDirectory(prefix="vi", dir="/tmp") as name:
        yield Path(name)


# --- the chardev's kind -----------------------------------------------------------------------------------------------


def test_an_agent_behind_an_abstract_socket_is_reached(folder: Path) -> None:
    with FakeVm(folder, "--chardev", "abstract") as vm:
        done(vm, {0, 1}, "plug")
        name = f"@{vm.agent}"
        assert run(vm, "--agent", name, "list").json["agent"]["connected"] is True
        done(vm, {0}, "--agent", name, "unplug")
        ended = run(vm, "--agent", f"{name}x", "plug")
        assert (ended.status, ended.outcome) == (2, "not-our-port")


def test_an_abstract_socket_that_another_program_holds_is_busy(folder: Path) -> None:
    with FakeVm(folder, "--chardev", "abstract") as vm, closing(socket.socket(socket.AF_UNIX)) as other:
        other.connect(f"\0{vm.agent}")
        until(lambda: "unix:,server=on" in [chardev["filename"] for chardev in vm.steer.call("query-chardev")])
        ended = run(vm, "plug")
        assert (ended.status, ended.outcome) == (3, "port-busy"), ended.stdout


@pytest.mark.parametrize(
    ("kind", "word"), [("pty", "pty:/dev/pts/7"), ("client", "QEMU is the client"), ("tcp", "tcp:127.0.0.1:7")]
)
def test_a_chardev_that_cannot_be_connected_to_is_told_with_the_one_that_can(
    folder: Path, kind: str, word: str
) -> None:
    with FakeVm(folder, "--chardev", kind) as vm:
        for words in ((), ("--agent", str(folder / "agent"))):
            ended = run(vm, *words, "plug")
            assert (ended.status, ended.outcome) == (5, "no-socket"), ended.stdout
            assert word in ended.json["error"]["text"]
            assert "server=on,wait=off" in ended.json["error"]["hint"]
            assert "--agent" not in ended.json["error"]["hint"]
        (found,) = [each for each in run(vm, "doctor").json["findings"] if each["code"] == "no-socket"]
        assert "server=on,wait=off" in found["fix"]
        stands(vm, {0})


# --- QEMU in a container ----------------------------------------------------------------------------------------------


def test_a_qemu_in_a_container_is_reached_by_the_path_that_is_here(folder: Path, inside: Path) -> None:
    with FakeVm(folder, inside=inside) as vm:
        done(vm, {0, 1}, "--agent", str(vm.agent), "plug")
        # With the right to look into QEMU's root, which root has, nothing has to be named.
        done(vm, {0, 1, 2}, "plug")
        ended = run(vm, "--agent", str(folder / "qmp2"), "unplug")
        assert (ended.status, ended.outcome) == (2, "not-our-port")
        stands(vm, {0, 1, 2})


def test_another_vms_agent_that_has_the_same_path_here_is_left_alone(folder: Path, inside: Path) -> None:
    with FakeVm(folder, inside=inside) as vm, FakeVm(inside) as other:
        # Somebody else's: the path that our QEMU has for its own leads there from here.
        ended = run(vm, "--agent", str(other.agent), "plug")
        assert (ended.status, ended.outcome) == (2, "not-our-port"), ended.stdout
        assert f"process {other.process.pid} (" in ended.json["error"]["text"]
        done(vm, {0, 1}, "plug")
        stands(other, {0})


def test_another_vm_that_took_the_path_for_itself_is_left_alone(folder: Path) -> None:
    (folder / "other").mkdir()
    with FakeVm(folder) as vm, FakeVm(folder / "other") as other:
        vm.agent.unlink()
        vm.agent.symlink_to(other.agent)
        ended = run(vm, "plug")
        assert (ended.status, ended.outcome) == (5, "not-our-port"), ended.stdout
        assert "taken this one's socket away" in ended.json["error"]["hint"]
        stands(other, {0})
