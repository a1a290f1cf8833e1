# SPDX-License-Identifier: Apache-2.0
"""Which process QEMU is: by who listens and which threads it has, never by a number alone."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kit.fakes.qemu.process import UNSHARE
from vcpu_host.core.identity import DomainId, ProcessId, SocketId, VmIdentity
from vcpu_host.local import processes

#: It listens on a socket, says which thread of its own is another one than its first, and waits for its end.
_LISTEN = """
import socket, sys, threading
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen(8)
    other = threading.Thread(target=sys.stdin.read)
    other.start()
    print(other.native_id, flush=True)
    other.join()
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short, for sockets."""
    return tmp_path_factory.mktemp("p")


@contextmanager
def listening(path: Path, *prefix: str, words: str = "") -> Iterator[tuple[int, int]]:
    """A process that listens at ``path``: the id that the kernel gives for it, and a thread's, as itself has it."""
    # A command line in which nothing is but what is meant: the name of a folder might hold "qemu".
    argv = [*prefix, sys.executable if prefix else "python3", "-c", _LISTEN, path.name, words]
    program = None if prefix else sys.executable
    with subprocess.Popen(
        argv, executable=program, cwd=path.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        thread_id = int(process.stdout.readline())
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.connect(str(path))
            yield processes.peer(sock), thread_id
        process.stdin.close()
        process.wait(10)


def own() -> ProcessId:
    process = processes.process_id(os.getpid())
    assert process is not None
    return process


def test_a_process_is_told_from_every_later_one_that_gets_its_number() -> None:
    assert not processes.ended(own())
    assert processes.process_id(os.getpid()) == own()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        other = processes.process_id(process.pid)
        assert other is not None
        assert not processes.ended(other)
    assert processes.ended(other)
    assert processes.ended(own()._replace(started=own().started + 1)), "another one that got its number"
    assert not processes.ended(own()._replace(started=1, namespace=own().namespace + 1)), "one of another namespace"
    assert processes.process_id(999_999_999) is None
    assert processes.process_id(0) is None


def test_all_sockets_of_one_process_name_that_process(folder: Path) -> None:
    with listening(folder / "s") as (pid, thread_id):
        found = processes.identify(pid, thread_id, str(folder / "s"))
        assert (found.pid, found.listens) == (pid, True)
        assert found.by == processes.process_id(pid)
        assert processes.identify(pid, thread_id, str(folder / "another")) == found


def test_the_thread_of_the_first_vcpu_is_known_where_it_has_the_same_number_here(folder: Path) -> None:
    with listening(folder / "s") as (pid, thread_id):
        found = processes.identify(pid, thread_id, str(folder / "s"))
        assert found.first_thread == processes.process_id(thread_id) != found.by
    with listening(folder / "t", *UNSHARE) as (pid, thread_id):
        assert processes.identify(pid, thread_id, str(folder / "t")).first_thread is None


def test_a_process_in_another_pid_namespace_is_named_as_it_is_seen_from_here(folder: Path) -> None:
    with listening(folder / "s", *UNSHARE) as (pid, thread_id):
        assert not Path(f"/proc/{pid}/task/{thread_id}").exists(), "its numbers are its own"
        assert processes.has_thread(pid, thread_id)
        assert not processes.has_thread(pid, thread_id + 50)
        found = processes.identify(pid, thread_id, str(folder / "s"))
        assert isinstance(found.by, ProcessId)
        assert (found.by, found.pid) == (processes.process_id(pid), pid)
        assert not processes.ended(found.by)
    assert processes.ended(found.by)


def test_who_passes_bytes_on_is_not_taken_for_qemu_but_the_qemu_behind_is_found(folder: Path) -> None:
    with listening(folder / "proxy") as (proxy, _), listening(folder / "vm", words="qemu") as (qemu, thread_id):
        found = processes.identify(proxy, thread_id, str(folder / "proxy"))
        assert (found.pid, found.listens) == (qemu, False)
        assert found.by == processes.process_id(qemu)
    with listening(folder / "proxy2") as (proxy, _), listening(folder / "other") as (_, thread_id):
        assert processes.identify(proxy, thread_id, str(folder / "proxy2")).pid is None


def test_a_listener_that_cannot_be_seen_is_named_by_its_socket_and_so_are_its_threads_numbers(folder: Path) -> None:
    (folder / "qmp").touch()
    (folder / "link").symlink_to("qmp")
    with listening(folder / "vm", words="qemu") as (_, thread_id):
        found = processes.identify(0, thread_id, str(folder / "qmp"))
        assert (found.pid, found.listens) == (None, False)
        assert processes.identify(0, thread_id, str(folder / "link")) == found
    assert found.by == SocketId(os.path.realpath(folder / "qmp"), (folder / "qmp").stat().st_ino)
    (folder / "other").touch()
    (folder / "other").replace(folder / "qmp")
    again = processes.identify(0, 1, str(folder / "qmp"))
    assert again != found, "what listens there now is another one"
    (folder / "qmp").unlink()
    assert processes.identify(0, 1, str(folder / "qmp")) not in (found, again)


def test_before_there_is_a_vcpu_the_command_line_has_to_do(folder: Path) -> None:
    with listening(folder / "s", words="qemu") as (pid, _):
        assert processes.identify(pid, None, str(folder / "s")).by == processes.process_id(pid)
    with listening(folder / "t") as (pid, _):
        assert processes.identify(pid, None, str(folder / "t")).pid is None


def test_a_domains_qemu_is_the_process_of_its_first_vcpus_thread_as_long_as_that_is_there(folder: Path) -> None:
    domain = DomainId("uuid", "host")
    with listening(folder / "s", words="qemu") as (pid, thread_id):
        identity = VmIdentity(domain, first_thread=processes.qemus_thread(thread_id))
        assert identity.first_thread is not None
        assert identity.first_thread.pid == thread_id != pid
        assert processes.qemu_of(identity) == pid
        seen = processes.process_id(pid)
        assert seen is not None
        assert processes.qemu_of(VmIdentity(seen)) == pid
    assert processes.qemu_of(identity) is None
    assert processes.qemu_of(VmIdentity(domain)) is None
    assert processes.qemu_of(VmIdentity(SocketId("/s"))) is None


def test_a_process_has_as_many_descriptors_as_it_has_opened_and_its_soft_limit_counts() -> None:
    before = processes.descriptors(os.getpid())
    assert before is not None
    assert before.ceiling == int(Path("/proc/sys/fs/nr_open").read_text())
    assert before.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    pair = os.pipe()
    try:
        after = processes.descriptors(os.getpid())
    finally:
        for number in pair:
            os.close(number)
    assert after is not None
    assert after.open == before.open + 2


def test_of_a_process_that_is_not_there_no_descriptors_are_known() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert processes.descriptors(ended.pid) is None
