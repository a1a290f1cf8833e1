#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU: a QMP monitor on a socket serves one client after the other, and each session begins with a greeting and the
# negotiation of capabilities. So an expert expects that a session is the client's own: the first line is the greeting,
# the next one answers what this client has asked, and what a client was waiting for when it left is gone with it.
#
# What happens: the answer to a command that was under way when its client closed the connection is sent to whoever has
# the monitor by then. It comes between the greeting and the answer to the negotiation, with an id that the client never
# gave, or even before the greeting. With an error in it a client takes it for a refused negotiation, with a "return"
# for a successful one, and before the greeting it takes the socket for no QMP monitor.
#
# Why it matters: tools that share a monitor, one after the other, meet it where the one before them was stopped or ran
# into its time limit, with a QEMU that takes long for an answer: rarely, and on a busy host. vcpuctl gives its
# negotiation an id that nobody else has, and passes over what comes before the answer to it:
# tests/component/test_qmp_connect.py::test_an_answer_to_the_client_before_is_neither_a_greeting_nor_an_answer.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

qemu_10_0
run_python <<'PYTHON'
import json
import os
import socket
from typing import Any

from qmp import LIMIT, WORK, Qemu, Verdict, until

verdict = Verdict()


class Client:
    """A session of its own on that monitor, so far without negotiation."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(LIMIT)
        self._socket.connect(path)
        self._lines = self._socket.makefile("r", encoding="utf-8")

    def hears(self) -> dict[str, Any]:
        """Return the next message."""
        message: dict[str, Any] = json.loads(self._lines.readline())
        return message

    def says(self, command: str, tag: str) -> None:
        """Ask, and wait for nothing."""
        self._socket.sendall(json.dumps({"execute": command, "id": tag}).encode())

    def leaves(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()


def handed_over(path: str) -> str:
    """Have one client leave in the middle of a command. Return what answers the next one's negotiation."""
    first = Client(path)
    first.hears()
    first.says("qmp_capabilities", "first")
    first.hears()
    first.says("query-hotpluggable-cpus", "first's list")
    second = Client(path)  # it waits in the listen queue
    first.leaves()
    heard = second.hears()
    if "QMP" in heard:
        second.says("qmp_capabilities", "second")
        heard = second.hears()
    second.leaves()
    return str(heard.get("id"))


shared = os.path.join(WORK, "shared")
monitor = ("-qmp", f"unix:{shared},server=on,wait=off")
with Qemu("qemu-10.0", "x86_64", "-machine", "q35", "-smp", "1,maxcpus=250", "-m", "64", *monitor) as qemu:
    verdict.saw("QEMU", qemu.version, "10.0.13")
    seen = until(lambda: (answer := handed_over(shared)) != "second" and answer, "an answer that is not second's")
    verdict.saw("id of the answer to second's negotiation, in one of many hand-overs", seen, "first's list")
verdict.end()
PYTHON
