# SPDX-License-Identifier: Apache-2.0
"""The agent's port is found by its name, and a socket that is not its own is never taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vcpu_host.core.model import Channel, HostView
from vcpu_host.errors import QemuError, UsageError
from vcpu_host.qmp import channel, check_agent_socket

PORT = "/machine/peripheral/port0"


def chardev(filename: str, *, is_open: bool = False) -> list[dict[str, Any]]:
    return [
        {"label": "other", "filename": "pty:/dev/pts/3", "frontend-open": True},
        {"label": "ch0", "filename": filename, "frontend-open": is_open},
    ]


# The file names are those of 7.2 and 10.0, or of chardev/char-socket.c.
@pytest.mark.parametrize(
    ("filename", "socket", "busy"),
    [
        ("disconnected:unix:/run/a,server=on", "/run/a", False),
        ("unix:/run/a,server=on", "/run/a", True),
        ("disconnected:unix:/run/a,server", "/run/a", False),
        ("disconnected:unix:/run/a,b=c,server=on", "/run/a,b=c", False),
        ("disconnected:unix:/run/a,tight=on,server=on", "/run/a", False),
        ("disconnected:unix:name,abstract=on,server=on", None, False),
        ("unix:/run/a", None, False),
        ("disconnected:tcp:127.0.0.1:4444,server=on", None, False),
        ("null", None, False),
    ],
)
def test_a_chardevs_file_name_tells_its_socket_and_whether_somebody_is_on_it(
    filename: str, socket: str | None, busy: bool
) -> None:
    found = channel.channel(PORT, "ch0", chardev(filename, is_open=True), None)
    assert found == Channel(socket, busy=busy, guest_open=True, device_id="port0")


def test_a_port_without_an_id_has_none() -> None:
    found = channel.channel("/machine/peripheral-anon/device[1]", "ch0", chardev("null"), None)
    assert found.device_id is None


def test_a_relative_path_is_looked_up_where_qemu_runs(tmp_path: Path) -> None:
    (tmp_path / "agent").touch()
    found = channel.channel(PORT, "ch0", chardev("unix:agent,server=on"), str(tmp_path))
    assert found.socket == str(tmp_path / "agent")
    elsewhere = channel.channel(PORT, "ch0", chardev("unix:gone,server=on"), str(tmp_path))
    assert elsewhere.socket == "gone"


def test_a_chardev_of_an_odd_shape_is_a_bad_reply() -> None:
    with pytest.raises(QemuError, match="frontend-open"):
        channel.channel(PORT, "ch0", [{"label": "ch0", "filename": "null"}], None)


def test_only_a_port_of_exactly_our_name_is_ours() -> None:
    names = ["org.qemu.guest_agent.0", "org.vcpuctl.agent.0x", "org.vcpuctl.agent.0"]
    assert channel.label_of(names, ["a", "b", "c"]) == (2, "c")
    assert channel.label_of(names[:2], ["a", "b"]) is None


def view(socket: str | None, *, port: bool = True) -> HostView:
    found = Channel(socket, busy=False, guest_open=False) if port else None
    return HostView((10, 0, 0), "pc-q35-10.0", "x86_64", "running", "tcg", (), channel=found)


def test_the_ports_own_socket_is_accepted_under_any_name_that_leads_to_it(tmp_path: Path) -> None:
    own, link = tmp_path / "agent", tmp_path / "link"
    own.touch()
    link.symlink_to(own)
    check_agent_socket(view(str(own)), str(link))
    check_agent_socket(view(str(link)), str(own))


@pytest.mark.parametrize(
    ("socket", "port"), [("console", True), ("missing", True), (None, True), (None, False), ("agent", False)]
)
def test_every_other_socket_is_refused_and_says_why(tmp_path: Path, socket: str | None, port: bool) -> None:
    (tmp_path / "agent").touch()
    (tmp_path / "console").touch()
    with pytest.raises(UsageError) as caught:
        check_agent_socket(view(str(tmp_path / socket) if socket else None, port=port), str(tmp_path / "agent"))
    assert caught.value.reason.code == "not-our-port"
    assert caught.value.reason.hint


def test_the_same_relative_name_in_another_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent").touch()
    with pytest.raises(UsageError, match="relative path"):
        check_agent_socket(view("agent"), str(tmp_path / "agent"))
