# SPDX-License-Identifier: Apache-2.0
"""What somebody put where vcpuctl makes its files: it is said, and neither followed, nor destroyed, nor waited for."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.component.cli import until
from kit.component.hostile import Said, command, ended, run
from kit.fakes.qemu import FakeVm

PRECIOUS = "do not lose this\n"


@pytest.fixture(scope="module")
def vm() -> Iterator[FakeVm]:
    """A VM whose agent is the real one."""
    with tempfile.TemporaryDirectory(prefix="vh", dir="/tmp") as name, FakeVm(Path(name)) as vm:
        yield vm


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """Where the locks are to lie; nothing is there yet."""
    return tmp_path / "run" / "vcpuctl"


def lock_of(vm: FakeVm, locks: Path) -> Path:
    """The VM's lock, in a directory as vcpuctl makes it."""
    locks.mkdir(mode=0o700, parents=True)
    return locks / (hashlib.sha256(os.path.realpath(vm.qmp).encode()).hexdigest()[:32] + ".lock")


def refused(said: Said, *words: str) -> None:
    """Status 3 by its name, in words that name what is wrong."""
    said.clean()
    assert (said.status, said.codes) == (3, {"unsafe-directory"}), said.stdout + said.stderr
    for word in words:
        assert word in said.json["error"]["text"]
    assert said.json["error"]["hint"]


# --- the lock's directory ---------------------------------------------------------------------------------------------


def test_a_link_in_the_place_of_the_locks_directory_is_not_followed(vm: FakeVm, locks: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    locks.parent.mkdir()
    for aim in (target, tmp_path / "nowhere"):
        locks.symlink_to(aim)
        refused(run(vm, "list", LOCKS=str(locks)), str(locks))
        locks.unlink()
    assert list(target.iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_text(PRECIOUS)], ids=["fifo", "file"])
def test_what_is_no_directory_in_its_place_is_left_as_it_is(
    vm: FakeVm, locks: Path, make: Callable[[Path], object]
) -> None:
    locks.parent.mkdir()
    make(locks)
    before = locks.lstat()
    refused(run(vm, "list", LOCKS=str(locks)), str(locks))
    assert (locks.lstat().st_mode, locks.lstat().st_size) == (before.st_mode, before.st_size)


def test_a_directory_that_others_may_write_to_is_no_place_for_a_lock(vm: FakeVm, locks: Path) -> None:
    locks.mkdir(parents=True)
    locks.chmod(0o777)
    refused(run(vm, "list", LOCKS=str(locks)), str(locks))
    assert list(locks.iterdir()) == []


def test_a_directory_of_somebody_else_is_no_place_for_a_lock(vm: FakeVm, locks: Path) -> None:
    locks.mkdir(mode=0o755, parents=True)
    refused(run(vm, "list", LOCKS=str(locks), USER_ID=str(os.geteuid() + 1)), str(locks))
    assert list(locks.iterdir()) == []


# --- the lock itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_lock_that_is_another_name_of_a_file_does_not_cost_that_file_its_contents(
    vm: FakeVm, locks: Path, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    precious = tmp_path / "precious"
    precious.write_text(PRECIOUS)
    link(precious, lock_of(vm, locks))
    refused(run(vm, "list", LOCKS=str(locks)), ".lock")
    assert precious.read_text() == PRECIOUS


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_a_lock_that_is_no_file_is_said_and_not_waited_for(
    vm: FakeVm, locks: Path, make: Callable[[Path], None]
) -> None:
    lock = lock_of(vm, locks)
    make(lock)
    before = lock.lstat().st_mode
    refused(run(vm, "list", LOCKS=str(locks)), ".lock")
    assert lock.lstat().st_mode == before


def test_a_lock_that_may_not_be_opened_is_said(vm: FakeVm, locks: Path) -> None:
    # Root may open what it likes; what stops root, too, is a path through something that is no directory.
    lock_of(vm, locks)
    locks.chmod(0o000)
    said = run(vm, "list", LOCKS=str(locks))
    locks.chmod(0o700)
    if os.geteuid() == 0:
        assert said.status == 0
    else:
        refused(said, ".lock")
    file = locks.parent / "file"
    file.touch()
    refused(run(vm, "list", LOCKS=str(file / "vcpuctl")), str(file))


def test_the_lock_that_a_dead_process_left_stands_in_nobodys_way(vm: FakeVm, locks: Path) -> None:
    lock = lock_of(vm, locks)
    lock.write_text(f"{os.getpid()} vcpuctl \x1b[31mof old\n" * 1000)
    said = run(vm, "list", LOCKS=str(locks))
    said.clean()
    assert said.status == 0
    assert not lock.exists()


# --- the proxy's socket -----------------------------------------------------------------------------------------------


def bad_socket(said: Said, path: Path) -> None:
    said.clean()
    assert (said.status, said.codes) == (2, {"bad-socket"}), said.stdout + said.stderr
    assert str(path) in said.json["error"]["text"]


def test_a_proxy_makes_way_for_itself_through_nothing_but_a_socket_that_nobody_has(vm: FakeVm, tmp_path: Path) -> None:
    precious, place = tmp_path / "precious", tmp_path / "sock"
    precious.write_text(PRECIOUS)
    for make in (
        lambda: place.write_text(PRECIOUS),
        lambda: place.symlink_to(precious),
        lambda: place.symlink_to(tmp_path / "nowhere"),
        lambda: os.mkfifo(place),
    ):
        make()
        before = place.lstat()
        bad_socket(run(vm, "agent-proxy", "--listen", str(place)), place)
        assert (place.lstat().st_ino, place.lstat().st_size) == (before.st_ino, before.st_size)
        place.unlink()
    assert precious.read_text() == PRECIOUS
    assert not (tmp_path / "nowhere").exists()
    for path in (tmp_path, tmp_path / "no" / "sock", precious / "sock", tmp_path / ("x" * 200)):
        bad_socket(run(vm, "agent-proxy", "--listen", str(path)), path)


def test_a_proxy_takes_no_socket_from_a_program_that_listens_on_it(vm: FakeVm) -> None:
    place = vm.folder / "taken"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place))
        other.listen(1)
        bad_socket(run(vm, "agent-proxy", "--listen", str(place)), place)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
    with command(vm, "agent-proxy", "--listen", str(place)) as proxy:
        # What the dead left is taken away, and what comes is the user's alone.
        until(lambda: answers(place))
        assert place.stat().st_mode & 0o777 == 0o600
        proxy.send_signal(signal.SIGTERM)
        assert ended(vm, proxy).status == 0
    assert not place.exists()


def answers(place: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(place))
        except OSError:
            return False
        return True
