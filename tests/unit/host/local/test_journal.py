# SPDX-License-Identifier: Apache-2.0
"""The record on disk: whole or not there, ours alone, and gone with the QEMU that it is about."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from vcpu_host.core.identity import ProcessId, SocketId, VmIdentity
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.model import Ost
from vcpu_host.errors import RefusedError
from vcpu_host.local import directory as runtime
from vcpu_host.local import names, processes
from vcpu_host.local.journal import FileJournal
from vcpu_host.local.lock import VmLock

_INTENT = Intent(IntentKind.UNPLUG, 3, "vcpu-3", 1000.5, (77,))


#: A process of a namespace that is not ours: nothing that is about it is swept.
_UNSEEN = ProcessId(1, 1, 1)
_OTHER = ProcessId(2, 2, 2)


def own() -> ProcessId:
    process = processes.process_id(os.getpid())
    assert process is not None
    return process


def ended() -> ProcessId:
    """A process that is no more."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = processes.process_id(process.pid)
    assert found is not None
    return found


def journal(by: ProcessId | SocketId, directory: Path) -> FileJournal:
    return FileJournal(VmIdentity(by), directory=directory)


def load(record: FileJournal) -> tuple[Intent, ...]:
    return asyncio.run(record.load())


def save(record: FileJournal, intents: Sequence[Intent]) -> None:
    asyncio.run(record.save(intents))


def test_what_was_saved_is_there_for_the_next_one_and_for_nobody_else(tmp_path: Path) -> None:
    save(journal(own(), tmp_path), [_INTENT])
    assert load(journal(own(), tmp_path)) == (_INTENT,)
    assert load(journal(_UNSEEN, tmp_path / "other")) == ()
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_record_of_e13c246_is_read_under_the_name_that_it_had(tmp_path: Path) -> None:
    written = (
        b'{"schema_version": 1, "intents": [{"kind": "unplug", "slot": 3, "id": "vcpu-3", "since": 1764330957.25, '
        b'"threads": [4711], "ost": [3, 128]}, {"kind": "plug", "slot": 4, "id": "vcpu-4", "since": 1764330958, '
        b'"threads": [], "ost": null}]}'
    )
    expected = (
        Intent(IntentKind.UNPLUG, 3, "vcpu-3", 1764330957.25, (4711,), Ost(3, 128)),
        Intent(IntentKind.PLUG, 4, "vcpu-4", 1764330958),
    )
    here = own()
    # e13c246 knew a VM by the thread of its first vCPU, later versions by its process.
    thread = here._replace(started=here.started + 1, namespace=here.namespace + 1)
    by_thread = tmp_path / f"{thread.pid}-{thread.started}-{thread.namespace}.pending"
    by_process = tmp_path / f"{here.pid}-{here.started}-{here.namespace}.pending"
    record = FileJournal(VmIdentity(here, first_thread=thread), directory=tmp_path)
    by_thread.write_bytes(written)
    assert load(record) == expected
    save(record, expected[:1])
    assert (load(record), by_thread.exists(), by_process.exists()) == (expected[:1], False, True)
    by_process.unlink()
    by_thread.write_bytes(written)
    save(record, [])
    assert (load(record), list(tmp_path.iterdir())) == ((), [])
    by_process.write_bytes(written)
    assert load(journal(here, tmp_path)) == expected
    (tmp_path / "s3f2f860d8b28372a134523c4-77.pending").write_bytes(written)
    assert load(journal(SocketId("/run/vms/web1/qmp.sock", 77), tmp_path)) == expected


def test_when_all_is_settled_nothing_is_left(tmp_path: Path) -> None:
    record = journal(own(), tmp_path)
    save(record, [])
    save(record, [_INTENT])
    save(record, [])
    assert list(tmp_path.iterdir()) == []
    assert load(record) == ()


def test_a_write_that_breaks_off_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = journal(own(), tmp_path)
    save(record, [_INTENT])

    def full(new: Path, path: Path) -> None:
        del new, path
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RefusedError) as error:
        save(record, [_INTENT, Intent(IntentKind.PLUG, 4, "vcpu-4", 1.0)])
    assert error.value.reason.code == "no-record"
    assert load(record) == (_INTENT,)


@pytest.mark.parametrize(
    ("by", "steps"),
    [
        pytest.param(SocketId("/run/far/qmp", 7), ["{}.new", "replace", "{}"], id="a QEMU that may be another host's"),
        pytest.param(_UNSEEN, ["replace"], id="a process of this host's"),
    ],
)
def test_a_record_outlives_the_kernel_where_its_qemu_may(
    by: ProcessId | SocketId, steps: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    replace = os.replace

    def replaced(source: str, target: str) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(os.readlink(f"/proc/self/fd/{fd}")))
    monkeypatch.setattr(os, "replace", replaced)
    save(journal(by, tmp_path), [_INTENT])
    file, folder = f"{tmp_path / names.of_vm(VmIdentity(by))}.new", str(tmp_path)
    assert calls == [{"{}.new": file, "{}": folder}.get(step, step) for step in steps]


def test_what_was_left_for_a_qemu_that_has_ended_is_swept_and_that_of_a_living_one_kept(tmp_path: Path) -> None:
    dead = ended()
    unseen = dead._replace(namespace=dead.namespace + 1)
    for process in (dead, own(), unseen):
        save(journal(process, tmp_path), [_INTENT])
        name = names.of_vm(VmIdentity(process))
        (tmp_path / f"{name}.lock").touch()
        (tmp_path / f"{name}.new").touch()  # of one that died while it wrote
    (tmp_path / "0123456789abcdef.lock").touch()  # of a monitor's socket; its holder was killed
    (tmp_path / "other.txt").touch()
    load(journal(own(), tmp_path))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        f"{names.of_vm(VmIdentity(process))}.{kind}"
        for process in (own(), unseen)
        for kind in ("pending", "lock", "new")
    } | {"other.txt"}


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(prefix="vj", dir="/tmp") as folder:
        yield Path(folder)


async def test_a_socket_whose_holder_was_killed_is_swept_and_that_of_a_living_one_kept(short: Path) -> None:
    async with VmLock("/run/held", "a", directory=short) as held:
        await held.acquire(0)
        killed = VmLock("/run/killed", "b", directory=short)
        await killed.acquire(0)
        assert killed._fd is not None
        os.close(killed._fd)
        listeners = [await asyncio.start_unix_server(print, lock.address) for lock in (held, killed)]
        elsewhere = short / "serve.sock"  # of no lock
        listeners.append(await asyncio.start_unix_server(print, elsewhere))
        killed.address.with_name(f"{'0' * 32}.lock").touch()
        killed.address.with_name(f"{'0' * 32}.sock").touch()  # no socket: nothing of ours
        await FileJournal(VmIdentity(own()), directory=short).load()
        left = {name for name in os.listdir(short) if name.endswith(".sock")}
        assert left == {held.address.name, "serve.sock", f"{'0' * 32}.sock"}
        assert {name for name in os.listdir(short) if name.endswith(".lock")} == {held._path.name}
        for listener in listeners:
            listener.close()


@pytest.mark.parametrize("kind", runtime.SERVERS)
def test_sockets_of_servers_that_were_killed_are_swept_once_they_are_old(short: Path, kind: str) -> None:
    with ExitStack() as ends:
        for name, listens, age in (("new", False, 0), ("old", False, 3600), ("alive", True, 3600)):
            server = ends.enter_context(socket.socket(socket.AF_UNIX))
            path = short / f"{kind}{name}.sock"
            server.bind(str(path))
            if listens:
                server.listen()
            os.utime(path, (time.time() - age,) * 2)
        load(journal(own(), short))
    assert {path.name for path in short.iterdir()} == {f"{kind}new.sock", f"{kind}alive.sock"}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"schema_version": 2, "intents": []}', b'{"schema_version": 1}', b"[" * 20000]
)
def test_a_record_that_cannot_be_understood_is_said_and_left(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "1-1-1.pending"
    path.write_bytes(data)
    with pytest.raises(RefusedError) as error:
        load(journal(_UNSEEN, tmp_path))
    assert error.value.reason.code == "bad-record"
    assert str(path) in error.value.reason.text
    assert path.read_bytes() == data


def test_a_link_or_a_directory_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "1-1-1.pending").symlink_to(tmp_path / "secret")
    (tmp_path / "2-2-2.pending").mkdir()
    for process in (_UNSEEN, _OTHER):
        with pytest.raises(RefusedError) as error:
            load(journal(process, tmp_path))
        assert error.value.reason.code == "bad-record"


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_directory_that_others_may_write_to_is_not_used(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(RefusedError) as error:
        save(journal(_UNSEEN, place), [_INTENT])
    assert error.value.reason.code == "unsafe-directory"
    assert list(place.iterdir()) == []
