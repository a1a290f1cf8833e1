# SPDX-License-Identifier: Apache-2.0
"""The agent's port is found by its name, and a socket that is not its own is never taken for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from vcpu_host.core.identity import ProcessId, SocketId, VmIdentity
from vcpu_host.core.model import Channel, HostView
from vcpu_host.errors import QemuError, UsageError
from vcpu_host.qmp import channel

PORT = "/machine/peripheral/port0"
#: A QEMU whose process is not known, and one that is this very process.
UNSEEN = VmIdentity(SocketId("/run/qmp", 1))
OURS = VmIdentity(ProcessId(os.getpid(), 1, 1), listens=True)
#: An abstract socket that nobody else has.
NAME = f"@vcpuctl-test-{os.getpid()}"


def chardev(filename: str, *, is_open: bool = False) -> list[dict[str, Any]]:
    return [
        {"label": "other", "filename": "pty:/dev/pts/3", "frontend-open": True},
        {"label": "ch0", "filename": filename, "frontend-open": is_open},
    ]


def found(filename: str, qemu: VmIdentity = UNSEEN) -> Channel:
    return channel.channel(PORT, "ch0", chardev(filename, is_open=True), qemu)


# The file names are those of 7.2 and 10.0, or of chardev/char-socket.c.
@pytest.mark.parametrize(
    ("filename", "socket", "withheld"),
    [
        ("disconnected:unix:/run/a,server=on", "/run/a", False),
        ("unix:/run/a,server=on", "/run/a", False),
        ("disconnected:unix:/run/a,server", "/run/a", False),
        ("disconnected:unix:/run/a,b=c,server=on", "/run/a,b=c", False),
        ("disconnected:unix:/run/a,tight=on,server=on", "/run/a", False),
        ("disconnected:unix:name,abstract=on,tight=on,server=on", "@name", False),
        ("disconnected:unix:name,abstract=on,server=on", "@name", False),
        ("disconnected:unix:@name,server=on", "./@name", False),
        ("unix:,server=on", None, True),
        ("unix:/run/a", None, False),
        ("disconnected:unix:/run/a", None, False),
        ("disconnected:tcp:127.0.0.1:4444,server=on", None, False),
        ("pty:/dev/pts/0", None, False),
        ("null", None, False),
    ],
)
def test_a_chardevs_file_name_tells_its_socket_or_that_its_name_is_withheld(
    filename: str, socket: str | None, withheld: bool
) -> None:
    assert found(filename) == Channel(
        socket, guest_open=True, device_id="port0", bound=socket or "", chardev=filename, name_withheld=withheld
    )


def test_a_port_without_an_id_has_none() -> None:
    assert channel.channel("/machine/peripheral-anon/device[1]", "ch0", chardev("null"), UNSEEN).device_id is None


def test_an_abstract_socket_that_is_in_use_keeps_the_name_it_was_seen_with() -> None:
    free, used = found("disconnected:unix:name,abstract=on,tight=on,server=on"), found("unix:,server=on")
    again = channel.named_as_before(used, free)
    assert (again.socket, again.bound, again.name_withheld) == ("@name", "@name", False)
    assert channel.named_as_before(used, None) == used
    assert channel.named_as_before(used, found("disconnected:unix:/run/a,server=on")) == used
    other = found("disconnected:unix:other,abstract=on,tight=on,server=on")
    assert channel.named_as_before(other, free) == other


def test_a_relative_path_is_looked_up_where_qemu_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent").touch()
    monkeypatch.chdir(tmp_path)
    assert found("unix:agent,server=on", OURS).socket == str(tmp_path / "agent")
    assert found("unix:agent,server=on", OURS).bound == "agent"
    assert found("unix:gone,server=on", OURS).socket == "gone"
    assert found("unix:agent,server=on").socket == "agent"


def test_a_path_that_is_the_same_here_as_for_qemu_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "agent").touch()
    assert found(f"unix:{tmp_path}/agent,server=on", OURS).socket == f"{tmp_path}/agent"


def test_a_chardev_of_an_odd_shape_is_a_bad_reply() -> None:
    with pytest.raises(QemuError, match="frontend-open"):
        channel.channel(PORT, "ch0", [{"label": "ch0", "filename": "null"}], UNSEEN)


def test_only_a_port_of_exactly_our_name_is_ours() -> None:
    names = ["org.qemu.guest_agent.0", "org.vcpuctl.agent.0x", "org.vcpuctl.agent.0"]
    assert channel.label_of(names, ["a", "b", "c"]) == (2, "c")
    assert channel.label_of(names[:2], ["a", "b"]) is None


# --- what is named ----------------------------------------------------------------------------------------------------


def view(bound: str | None, *, port: bool = True, reached: str | None = None) -> HostView:
    """A VM whose port is on that socket."""
    on = Channel(reached or bound, guest_open=False, bound=bound or "", chardev="pty:/dev/pts/0")
    channel = on if port else None
    return HostView((10, 0, 0), "pc-q35-10.0", "x86_64", "running", "tcg", (), channel=channel)


def refusal(view: HostView, qemu: VmIdentity, path: str, connection: socket.socket | None = None) -> str:
    """Why it is refused, in words."""
    with pytest.raises(UsageError) as caught:
        channel.check(view, qemu, path, connection)
    assert caught.value.reason.code == "not-our-port"
    assert caught.value.reason.hint
    return caught.value.reason.text


@pytest.mark.parametrize("qemu", [UNSEEN, OURS])
def test_the_ports_own_socket_is_accepted_under_any_name_that_leads_to_it(tmp_path: Path, qemu: VmIdentity) -> None:
    own, link = tmp_path / "agent", tmp_path / "link"
    own.touch()
    link.symlink_to(own)
    channel.check(view(str(own)), qemu, str(link), None)
    channel.check(view(str(link)), qemu, str(own), None)
    channel.check(view("@name"), qemu, "@name", None)


@pytest.mark.parametrize("qemu", [UNSEEN, OURS])
@pytest.mark.parametrize(
    ("socket", "port"), [("console", True), ("missing", True), (None, True), (None, False), ("agent", False)]
)
def test_every_other_socket_is_refused_and_says_why(
    tmp_path: Path, socket: str | None, port: bool, qemu: VmIdentity
) -> None:
    (tmp_path / "agent").touch()
    (tmp_path / "console").touch()
    at = view(str(tmp_path / socket) if socket else None, port=port)
    assert "socket of the agent's port" in refusal(at, qemu, str(tmp_path / "agent"))


def test_another_path_may_be_tried_only_if_who_listens_there_will_tell(tmp_path: Path) -> None:
    (tmp_path / "agent.sock").touch()
    contained = view("/run/in/the/container/agent.sock")
    channel.check(contained, OURS, str(tmp_path / "agent.sock"), None)
    assert refusal(contained, UNSEEN, str(tmp_path / "agent.sock"))


# --- what is connected to ---------------------------------------------------------------------------------------------


@contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    """A connection to a socket on which this process listens."""
    with closing(socket.socket(socket.AF_UNIX)) as listener, closing(socket.socket(socket.AF_UNIX)) as connection:
        listener.bind(path)
        listener.listen(1)
        connection.connect(path)
        yield connection


def test_it_is_the_port_if_qemu_itself_listens_there_under_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with connected("agent") as connection:
        # By whatever path it was reached; QEMU has its own.
        channel.check(view("agent"), OURS, "/elsewhere/agent", connection)
        channel.check(view("agent"), OURS._replace(listens=False), "/elsewhere/agent", connection)
        assert "another socket of the same QEMU" in refusal(view("console"), OURS, "agent", connection)
    with connected(f"\0{NAME[1:]}") as connection:
        channel.check(view(NAME), OURS, NAME, connection)


def test_it_is_not_the_port_if_somebody_else_listens_there_whatever_the_path_says(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with connected(path) as connection:
        other = VmIdentity(ProcessId(1, 1, 1), listens=True)
        text = refusal(view(path), other, path, connection)
        assert f"process {os.getpid()} (" in text
        assert "process 1 (" in text


def test_where_nobody_can_tell_who_qemu_is_the_path_has_to_do(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    passed_on = VmIdentity(ProcessId(1, 1, 1))
    with connected(path) as connection:
        for qemu in (UNSEEN, passed_on):
            channel.check(view(path), qemu, path, connection)
            assert refusal(view("/run/agent"), qemu, path, connection)
            assert "relative path" in refusal(view("agent"), qemu, path, connection)
    with connected(f"\0{NAME[1:]}") as connection:
        channel.check(view(NAME), UNSEEN, NAME, connection)


def test_a_qemu_that_leaves_the_listening_to_libvirt_is_known_by_the_path(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with connected(path) as connection:
        old = view(path)._replace(qemu_version=(5, 2, 0))
        channel.check(old, VmIdentity(ProcessId(1, 1, 1), listens=True), path, connection)
