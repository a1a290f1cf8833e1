# SPDX-License-Identifier: Apache-2.0
"""The SSH server of a host of the lab, and what its clients need."""

from __future__ import annotations

import os
import shlex
import signal
from contextlib import suppress
from pathlib import Path

from kit.lab import host
from kit.lab.errors import LabError
from kit.lab.virt.ground import Ground

#: The user's files neither help nor learn of hosts that exist for a minute.
_CLIENT = """#!/bin/sh
exec ssh -F none -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -o IdentitiesOnly=yes "$@"
"""


class SshServer:
    """A server that lets the owner of ``key`` in as root. It ends with the host."""

    def __init__(self, ground: Ground) -> None:
        """Start it, with a key of its own."""
        self._ground = ground
        #: The client's private key, and the program to call in the place of ``ssh``.
        self.key, self.client = ground.folder / "ssh-key", ground.folder / "ssh"
        host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)])
        self.client.write_text(_CLIENT)
        self.client.chmod(0o755)
        keys = ground.path("/root/.ssh")
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "authorized_keys").write_text(self.key.with_name("ssh-key.pub").read_text())
        # when it has gone into the background it serves
        done = ground.run(["/usr/sbin/sshd", "-E", "/var/log/libvirt/sshd.log"])
        if done.returncode != 0:
            raise LabError(f"sshd does not start: {shlex.quote(done.stderr)}")

    def command(self, address: str, script: str) -> list[str]:
        """Return the words that run a script in the host by SSH, from outside."""
        return [str(self.client), "-i", str(self.key), "-o", "StrictHostKeyChecking=no", f"root@{address}", script]

    def end_connections(self) -> None:
        """Kill all processes that serve the connections there are: newer servers have several for each."""
        server = self._ground.outside(int(self._ground.path("/run/sshd.pid").read_text()))
        for pid in _below(server):
            with suppress(ProcessLookupError):  # its parent was its reason to be
                os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    """All descendants of a process."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*children, *(below for child in children for below in _below(child))]
