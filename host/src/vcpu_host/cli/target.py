# SPDX-License-Identifier: Apache-2.0
"""Which VM is meant: by options, else by the environment; and sockets in the words in which QEMU is given them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import UsageError
from vcpu_host.local import vm_files

#: Stand for --vm and --qmp where neither is given.
VM, QMP = "VCPUCTL_VM", "VCPUCTL_QMP"

#: Other beginnings of what QEMU calls a character device (chardev/char.c, qemu_chr_parse_compat). Of these it could be
#: reached by one of the network's, which lets in whoever can reach it.
_OTHERS = ("tcp:", "telnet:", "websocket:", "udp:", "pty:", "pipe:", "file:", "vc:", "stdio:", "fd:", "vsock:")
_ONLY_UNIX = (
    "give QEMU -qmp unix:PATH,server=on,wait=off; a socket of another host comes here by ssh -L PATH:PATH HOST. "
    "A file with such a name is ./NAME"
)


def sockets(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> vm_files.VmSockets:
    """The sockets of the VM that --vm, or --qmp and --agent name, else the environment.

    UsageError if none is named, if the environment names two, or if a name cannot be one of a unix socket.
    """
    vm, qmp = args.vm, args.qmp
    if vm is None and qmp is None:
        vm, qmp = (environment.get(name) or None for name in (VM, QMP))
        if vm is not None and qmp is not None:
            raise _usage(codes.TWO_VMS, f"{VM} and {QMP} are both set", "unset one of them, or give --vm or --qmp")
    if vm is not None:
        named = vm_files.load(vm)
        return _plain(vm_files.VmSockets(named.qmp, args.agent or named.agent))
    if qmp is None:
        raise _usage(codes.NO_VM, "no VM is named", f"give --qmp SOCKET or --vm NAME, or set {QMP} or {VM}")
    return _plain(vm_files.VmSockets(qmp, args.agent))


def _plain(where: vm_files.VmSockets) -> vm_files.VmSockets:
    return vm_files.VmSockets(plain_name(where.qmp), None if where.agent is None else plain_name(where.agent))


def plain_name(text: str) -> str:
    """The path, or "@NAME", that ``text`` means: that itself, or as in QEMU's unix:PATH,server=on,wait=off.

    UsageError "not-unix" for what is no unix socket on which QEMU listens.
    """
    if text.startswith(_OTHERS):
        raise _usage(codes.NOT_UNIX, f"{text} is no unix socket, and vcpuctl speaks to no other", _ONLY_UNIX)
    if not text.startswith("unix:"):
        return text
    # A comma in the path is doubled (qemu-options of the first kind; util/qemu-option.c, get_opt_value).
    first, *options = text.removeprefix("unix:").replace(",,", "\0").split(",")
    path = first.removeprefix("path=").replace("\0", ",")
    said = dict(option.partition("=")[::2] for option in options)
    if said.get("server", "on") == "off":
        raise _usage(codes.NOT_UNIX, f"{text}: QEMU is the client there, and nobody listens for vcpuctl", _ONLY_UNIX)
    return f"@{path}" if said.get("abstract") == "on" else path


def _usage(code: codes.Code, text: str, hint: str) -> UsageError:
    return UsageError(Reason(code, Origin.VCPUCTL, text, hint))
