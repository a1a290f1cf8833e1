# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.until import DEADLINE
from vcpu_host.errors import RefusedError
from vcpu_host.local import directory as runtime
from vcpu_host.local.lock import VmLock
from vcpu_host.local.unix_sockets import bound, place

_HOLD = """
import asyncio, sys
from pathlib import Path
from vcpu_host.local.unix_sockets import place
from vcpu_host.local.lock import VmLock
lock = VmLock(sys.argv[1], "vcpuctl plug -n 2", directory=Path(sys.argv[2]))
asyncio.run(lock.acquire(0))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def _holder(monitor: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, monitor, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


async def _refusal(lock: VmLock, patience: float = 0.0) -> RefusedError:
    with pytest.raises(RefusedError) as error:
        await lock.acquire(patience)
    return error.value


async def test_two_on_one_vm_exclude_each_other_and_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    with _holder("/run/qmp", tmp_path) as process:
        error = await _refusal(VmLock("/run/qmp", "me", directory=tmp_path))
    assert error.reason.code == "vm-busy"
    assert f"{process.pid} vcpuctl plug -n 2" in error.reason.text


async def test_a_holder_that_is_killed_holds_no_longer(tmp_path: Path) -> None:
    with _holder("/run/qmp", tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        async with VmLock("/run/qmp", "me", directory=tmp_path) as lock:
            await lock.acquire(0)


async def test_the_lock_comes_when_its_holder_ends_within_the_patience(tmp_path: Path) -> None:
    first, second = (VmLock("/run/qmp", name, directory=tmp_path) for name in ("a", "b"))
    await first.acquire(0)
    waiting = asyncio.ensure_future(second.acquire(10))
    asyncio.get_running_loop().call_later(0.1, first.release)
    await asyncio.wait_for(waiting, DEADLINE)
    second.release()


async def test_the_patience_has_an_end(tmp_path: Path) -> None:
    async with VmLock("/run/qmp", "a", directory=tmp_path) as first:
        await first.acquire(0)
        began = asyncio.get_running_loop().time()
        await _refusal(VmLock("/run/qmp", "b", directory=tmp_path), patience=0.2)
        assert asyncio.get_running_loop().time() - began >= 0.2


async def test_two_vms_do_not_meet(tmp_path: Path) -> None:
    async with VmLock("/run/one", "a", directory=tmp_path) as one, VmLock("/run/two", "b", directory=tmp_path) as two:
        await one.acquire(0)
        await two.acquire(0)


async def test_one_vm_by_two_paths_is_one_vm(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "socket")
    locks = tmp_path / "locks"
    async with VmLock(place(str(tmp_path / "socket")), "a", directory=locks) as one:
        await one.acquire(0)
        await _refusal(VmLock(place(str(tmp_path / "link")), "b", directory=locks))
        await _refusal(VmLock(place(str(tmp_path / "x" / ".." / "socket")), "b", directory=locks))


async def test_releasing_twice_or_without_holding_does_nothing(tmp_path: Path) -> None:
    lock = VmLock("/run/qmp", "a", directory=tmp_path)
    lock.release()
    await lock.acquire(0)
    lock.release()
    lock.release()
    async with VmLock("/run/qmp", "b", directory=tmp_path) as other:
        await other.acquire(0)


async def test_a_full_disk_costs_the_holders_name_and_the_lock_counts_and_ends_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = (VmLock("/run/qmp", name, directory=tmp_path) for name in ("a", "b"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert first.try_take()
    assert not second.try_take()
    assert second.holder == "unknown"
    first.release()
    assert second.try_take()
    second.release()


async def test_a_holder_whose_command_is_no_utf_8_holds_and_is_named(tmp_path: Path) -> None:
    async with VmLock("/run/qmp", "vcpuctl --qmp na\udce9ve.sock \ud800 list", directory=tmp_path) as first:
        await first.acquire(0)
        assert "vcpuctl --qmp na" in (await _refusal(VmLock("/run/qmp", "b", directory=tmp_path))).reason.text


async def test_what_is_released_leaves_no_file(tmp_path: Path) -> None:
    async with VmLock("/run/qmp", "a", directory=tmp_path) as lock:
        await lock.acquire(0)
        bound(lock.address).close()
    assert os.listdir(tmp_path) == []


async def test_who_opened_the_lock_before_its_holder_removed_it_takes_the_one_that_is_there_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (VmLock("/run/qmp", name, directory=tmp_path) for name in "abc")
    assert first.try_take()
    opens = os.open

    def slowly(path: Path, *words: int) -> int:
        fd = opens(path, *words)
        monkeypatch.setattr(os, "open", opens)
        first.release()  # what was opened has no name any more
        assert third.try_take()
        return fd

    monkeypatch.setattr(os, "open", slowly)
    assert not second.try_take()
    third.release()
    assert second.try_take()
    second.release()


@pytest.mark.parametrize("after", ["the inspection", "the lock"])
async def test_a_lock_that_is_removed_at_any_moment_of_the_taking_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    lock, other = (VmLock("/run/qmp", name, directory=tmp_path) for name in "ab")
    call = fcntl.flock

    def flock(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", call)
        if after == "the lock":
            call(fd, how)
        lock._path.unlink()
        assert other.try_take()
        if after != "the lock":
            call(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert not lock.try_take()
    other.release()


async def test_the_holders_words_reach_no_terminal_unescaped(tmp_path: Path) -> None:
    async with VmLock("/run/qmp", "\x1b[2J\nfake", directory=tmp_path) as first:
        await first.acquire(0)
        text = (await _refusal(VmLock("/run/qmp", "b", directory=tmp_path))).reason.text
    assert text.isprintable()
    assert "\\x1b[2J" in text


async def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    error = await _refusal(VmLock("/run/qmp", "a", directory=tmp_path / "link"))
    assert error.reason.code == "unsafe-directory"
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
async def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "locks"
    place.mkdir()
    place.chmod(mode)
    assert (await _refusal(VmLock("/run/qmp", "a", directory=place))).reason.code == "unsafe-directory"


async def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: here + 1)
    assert (await _refusal(VmLock("/run/qmp", "a", directory=tmp_path))).reason.code == "unsafe-directory"


async def test_a_file_in_the_directorys_place_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("")
    assert (await _refusal(VmLock("/run/qmp", "a", directory=tmp_path / "locks"))).reason.code == "unsafe-directory"


async def test_a_planted_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    async with VmLock("/run/qmp", "a", directory=tmp_path) as first:
        await first.acquire(0)
    path = first._path
    victim = tmp_path.parent / f"{tmp_path.name}-victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    assert (await _refusal(VmLock("/run/qmp", "a", directory=tmp_path))).reason.code == "unsafe-directory"
    assert victim.read_text() == "precious"


async def test_the_lock_is_its_owners_alone(tmp_path: Path) -> None:
    place = tmp_path / "new" / "locks"
    async with VmLock("/run/qmp", "a", directory=place) as lock:
        await lock.acquire(0)
        (path,) = place.iterdir()
        assert place.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600


def test_locks_lie_where_the_user_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime.directory() == Path("/run/vcpuctl")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert runtime.directory() == Path("/run/user/1000/vcpuctl")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(runtime, "_USERS", Path("/nowhere"))
    assert runtime.directory() == Path("/tmp/vcpuctl-1000")


def test_a_user_has_one_directory_whether_or_not_the_environment_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.geteuid() or 1000
    place = tmp_path / str(here)
    place.mkdir(mode=0o700)
    os.chown(place, here, -1)
    monkeypatch.setattr(os, "geteuid", lambda: here)
    monkeypatch.setattr(runtime, "_USERS", tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    named = runtime.directory()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime.directory() == named == place / "vcpuctl"


@pytest.mark.parametrize("wrong", ["another owner", "others may write", "a link"])
def test_a_users_usual_directory_that_is_not_safe_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    here = os.geteuid() or 1000
    place = tmp_path / str(here)
    place.mkdir(mode=0o700)
    os.chown(place, here, -1)
    if wrong == "others may write":
        place.chmod(0o777)
    if wrong == "a link":
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
    if wrong == "another owner":
        here += 1
        place.rename(tmp_path / str(here))
    monkeypatch.setattr(os, "geteuid", lambda: here)
    monkeypatch.setattr(runtime, "_USERS", tmp_path)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime.directory() == Path(f"/tmp/vcpuctl-{here}")


async def test_an_abstract_socket_is_one_vm_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with VmLock("@qmp", "a", directory=tmp_path) as one:
        await one.acquire(0)
        monkeypatch.chdir(tmp_path)
        await _refusal(VmLock("@qmp", "b", directory=tmp_path))
