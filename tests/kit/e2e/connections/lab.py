# SPDX-License-Identifier: Apache-2.0
"""Ansible's way into a VM of the lab: a connection plugin that asks the test, which has the VM's second console."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from typing import Any

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: lab
short_description: runs programs in a VM of the lab
description: runs programs in a VM of the lab
author: vcpuctl maintainers
options:
  remote_addr:
    description: the socket on which the test listens
    vars:
      - name: ansible_host
"""


class Connection(ConnectionBase):  # type: ignore[misc] # Ansible has no types
    """See ``kit.e2e.ansible_guest``, which answers."""

    transport = "lab"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Return the status, and what was said."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        said = self._ask({"run": cmd, "input": base64.b64encode(in_data or b"").decode()})
        return said["status"], base64.b64decode(said["out"]), base64.b64decode(said["err"])

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy into the VM."""
        self._ask({"put": out_path, "input": base64.b64encode(Path(in_path).read_bytes()).decode()})

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy out of the VM."""
        said = self._ask({"run": f"cat {in_path}", "input": ""})
        Path(out_path).write_bytes(base64.b64decode(said["out"]))

    def close(self) -> None:
        """Nothing is kept open."""
        self._connected = False

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._play_context.remote_addr)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile() as answers:
                said: dict[str, Any] = json.loads(answers.readline())
                return said
