# SPDX-License-Identifier: Apache-2.0
"""A VM of the lab as a host of Ansible's, by its second console: it has no network."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.lab import Vm

#: Where Ansible finds the connection plugin.
PLUGINS = Path(__file__).resolve().parent / "connections"
#: Seconds that a module may take in an emulated guest on a busy machine.
_MODULE = 300.0
_WRAPPED = """
cd /root; sh /run/lab.cmd </run/lab.in >/run/lab.out 2>/run/lab.err; echo $?
base64 -w0 /run/lab.out; echo; base64 -w0 /run/lab.err; echo
"""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, vm: Vm) -> None:
        self.vm, self.turn = vm, threading.Lock()
        super().__init__(str(path), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        with self.server.turn:
            said = _carry_out(self.server.vm, request)
        self.wfile.write(json.dumps(said).encode() + b"\n")


def _carry_out(vm: Vm, request: dict[str, Any]) -> dict[str, Any]:
    data = base64.b64decode(request["input"])
    if "put" in request:
        vm.put(data, request["put"], _MODULE)
        return {}
    vm.put(request["run"].encode(), "/run/lab.cmd")
    vm.put(data, "/run/lab.in", _MODULE)
    status, out, err = vm.shell(_WRAPPED, _MODULE).split("\n")[:3]
    return {"status": int(status), "out": out, "err": err}


@contextmanager
def reachable(vm: Vm, folder: Path) -> Iterator[str]:
    """Let Ansible reach the VM; yield the words of its line in an inventory."""
    path = folder / "guest.sock"
    with _Server(path, vm) as server:
        thread = threading.Thread(target=server.serve_forever, name="ansible guest")
        thread.start()
        try:
            yield f"ansible_connection=lab ansible_host={path} ansible_python_interpreter=/usr/bin/python3"
        finally:
            server.shutdown()
            thread.join()
