#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Linux and QEMU: a manager may open a VM's monitor socket itself and hand it over (-chardev socket,fd=N), as libvirt
# does. An expert knows that SO_PEERCRED of a client's connection names who made the socket listen, that handing it
# over changes nothing about that, and that who is handed a socket leaves its path alone. So the peer should be the
# manager, for good.
#
# What happens: QEMU calls listen(2) once more on what it was handed, and Linux then takes QEMU for the peer of all
# that connect from there on. A connection from before keeps the manager, though QEMU serves it: one socket, one
# monitor, two answers. At its end QEMU removes the socket's path, which it did not make: the manager still listens,
# and nobody gets there.
#
# Why it matters: tools that ask for the peer's process to learn which QEMU (hence which VM, which vCPU threads) is
# behind a monitor are right only if they connect after QEMU has started. vcpuctl checks that the process has the
# vCPU's thread before it believes the peer:
# tests/unit/host/local/test_processes.py::test_all_sockets_of_one_process_name_that_process.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

qemu_10_0
run_python <<'PYTHON'
import json
import os
import socket
import struct
import subprocess

from qmp import LIMIT, WORK, Verdict, emulator

verdict = Verdict()
path = os.path.join(WORK, "monitor")


def connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(LIMIT)
    connection.connect(path)
    return connection


def peer(connection: socket.socket) -> str:
    pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return {os.getpid(): "the manager", qemu.pid: "QEMU"}.get(pid, "neither")


def version(connection: socket.socket) -> str:
    greeting = json.loads(connection.makefile("r", encoding="utf-8").readline())["QMP"]["version"]["qemu"]
    return ".".join(str(greeting[part]) for part in ("major", "minor", "micro"))


listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(4)
early = connect()
monitor = ("-chardev", f"socket,id=monitor,fd={listener.fileno()},server=on,wait=off", "-mon", "monitor,mode=control")
argv = [*emulator("qemu-10.0", "x86_64"), "-m", "64", *monitor]
qemu = subprocess.Popen(argv, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    verdict.saw("QEMU, on a connection from before its start", version(early), "10.0.13")
    verdict.saw("peer of that connection", peer(early), "the manager")
    late = connect()
    verdict.saw("peer of a connection made now", peer(late), "QEMU")
    early.close()
    verdict.saw("QEMU, on that one", version(late), "10.0.13")
    verdict.saw("the socket's path is there", os.path.exists(path), True)
    late.sendall(b'{"execute": "qmp_capabilities"} {"execute": "quit"}\n')
    verdict.saw("QEMU ends in order, status", qemu.wait(LIMIT), 0)
finally:
    qemu.kill()
    qemu.wait(LIMIT)
verdict.saw("the manager still listens", listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), 1)
verdict.saw("the socket's path is there once QEMU has ended", os.path.exists(path), False)

verdict.end()
PYTHON
