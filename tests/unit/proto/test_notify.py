# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from vcpu_proto.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_reach_systemds_socket(tmp_path: Path, abstract: bool) -> None:
    address = f"@vcpud-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if abstract else address)
        notifier = Notifier({"NOTIFY_SOCKET": address})
        notifier.ready("all is well")
        notifier.alive()
        notifier.stopping()
        assert [sock.recv(100) for _ in range(3)] == [b"READY=1\nSTATUS=all is well", b"WATCHDOG=1", b"STOPPING=1"]


def test_without_systemd_it_is_silent() -> None:
    Notifier({}).ready("nobody hears")


def test_the_watchdog_is_ours_only() -> None:
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}).watchdog == 30.0
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog is None
    assert Notifier({"WATCHDOG_USEC": "x"}).watchdog is None
    assert Notifier({}).watchdog is None
