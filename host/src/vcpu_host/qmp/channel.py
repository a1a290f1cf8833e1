# SPDX-License-Identifier: Apache-2.0
"""Where the agent's port is, as QEMU knows it.

The port is found by its name, not by a path that somebody gave: bytes written to another chardev may reach a console.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.model import PERIPHERAL, Channel, HostView, Reason, Who
from ..errors import UsageError
from . import replies
from .words import clean

#: The name of the agent's virtio-serial port (design, section 5).
PORT_NAME = "org.vcpuctl.agent.0"

#: Where devices of the command line and of device_add are (system/qdev-monitor.c, qdev_set_id).
WITH_ID, WITHOUT_ID = PARENTS = (PERIPHERAL.rstrip("/"), "/machine/peripheral-anon")

# chardev/char-socket.c, qemu_chr_socket_address and qemu_chr_compute_filename. A path may hold commas.
_UNIX = re.compile(
    r"^(?P<free>disconnected:)?unix:(?P<path>.*?)(?P<flags>(?:,(?:server|abstract|tight)(?:=(?:on|off))?)*)$", re.DOTALL
)

_HINT = (
    f"add -chardev socket,id=vcpuctl,path=PATH,server=on,wait=off and -device virtserialport,chardev=vcpuctl,"
    f"name={PORT_NAME},id=vcpuctl on a virtio-serial device"
)


def ports(parent: str, children: Mapping[str, str]) -> list[str]:
    """The QOM paths of the virtio-serial ports among the children of ``parent``."""
    return [f"{parent}/{name}" for name, kind in children.items() if kind == "virtserialport"]


def channel(port: str, label: str, chardevs: object, cwd: str | None) -> Channel:
    """The port at QOM path ``port`` whose chardev is ``label``; ``cwd`` is QEMU's, for relative paths."""
    device_id = port.removeprefix(PERIPHERAL) if port.startswith(PERIPHERAL) else None
    for item in replies.entries(chardevs, "query-chardev"):
        if item.get("label") == label:
            return _channel(item, device_id, cwd)
    return Channel(None, busy=False, guest_open=False, device_id=device_id)


def _channel(item: Any, device_id: str | None, cwd: str | None) -> Channel:
    guest_open = replies.member(item, "frontend-open", bool, "query-chardev")
    filename = replies.member(item, "filename", str, "query-chardev")
    match = _UNIX.match(filename)
    # Where QEMU is the client of somebody else's socket, or the name is abstract, we have nothing to connect to.
    if match is None or "server" not in match["flags"] or re.search(r"abstract(?!=off)", match["flags"]):
        return Channel(None, busy=False, guest_open=guest_open, device_id=device_id)
    return Channel(
        _absolute(match["path"], cwd), busy=match["free"] is None, guest_open=guest_open, device_id=device_id
    )


def _absolute(path: str, cwd: str | None) -> str:
    """``path`` as we can reach it; a relative one of a QEMU that has changed its directory since stays as it is."""
    if cwd is not None and not os.path.isabs(path) and os.path.exists(os.path.join(cwd, path)):
        return os.path.join(cwd, path)
    return path


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def check_agent_socket(view: HostView, path: str) -> None:
    """Raise UsageError "not-our-port" unless ``path`` is the socket of the agent's port of this very VM."""
    if view.channel is None:
        text, hint = f"this VM has no port named {PORT_NAME}, so {clean(path)} cannot be its socket", _HINT
    elif view.channel.socket is None:
        text, hint = f"the port {PORT_NAME} of this VM is not on a unix socket that QEMU listens on", _HINT
    elif not os.path.isabs(view.channel.socket):
        # A name alone proves nothing: another VM's port may have the same one in another directory.
        text = (
            f"QEMU was given a relative path for the agent's port ({clean(view.channel.socket)}): it cannot be compared"
        )
        hint = "start QEMU with an absolute path"
    elif _same(view.channel.socket, path):
        return
    else:
        text = f"{clean(path)} is not the socket of the agent's port: bytes written there could do harm"
        hint = f"QEMU says that it is {clean(view.channel.socket)}; leave --agent out and that one is used"
    raise UsageError(Reason("not-our-port", Who.VCPUCTL, text, hint))


def label_of(names: Sequence[object], labels: Sequence[object]) -> tuple[int, str] | None:
    """The place and chardev of the first port that is ours, of all ports' properties ``name`` and ``chardev``."""
    for place, (name, label) in enumerate(zip(names, labels, strict=True)):
        if name == PORT_NAME:
            return place, replies.text(label, "qom-get")
    return None
