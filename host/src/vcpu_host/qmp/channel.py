# SPDX-License-Identifier: Apache-2.0
"""Where the agent's port is, as QEMU knows it.

The port is found by its name, not by a path that somebody gave: bytes written to another chardev may reach a console.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import codes
from ..core.channel import PORT_NAME, no_channel, no_socket
from ..core.identity import VmIdentity
from ..core.model import Channel, HostView
from ..core.reason import Origin, Reason
from ..errors import UsageError
from ..local.processes import describe, peer
from ..local.unix_sockets import bound_name, is_abstract
from . import names, replies
from .words import clean

#: Where devices of the command line and of device_add are (system/qdev-monitor.c, qdev_set_id).
WITH_ID, WITHOUT_ID = PARENTS = (names.PERIPHERAL.rstrip("/"), "/machine/peripheral-anon")

# chardev/char-socket.c, qemu_chr_socket_address and qemu_chr_compute_filename. A path may hold commas.
_UNIX = re.compile(
    r"^(?:disconnected:)?unix:(?P<path>.*?)(?P<flags>(?:,(?:server|abstract|tight)(?:=(?:on|off))?)*)$", re.DOTALL
)

#: From here on QEMU calls listen(2) itself on a socket that it was handed, as libvirt does (socket_listen,
#: util/qemu-sockets.c; since 6.0, and one more for what distributions carry): who listens is QEMU then.
_LISTENS = (7, 0, 0)


def ports(parent: str, children: Mapping[str, str]) -> list[str]:
    """Return the QOM paths of the virtio-serial ports among the children of ``parent``."""
    return [f"{parent}/{name}" for name, kind in children.items() if kind == "virtserialport"]


def channel(port: str, label: str, chardevs: object, qemu: VmIdentity) -> Channel:
    """Return the port at QOM path ``port`` whose chardev is ``label``; ``qemu`` is whose names the chardevs' are."""
    device_id = names.device_id(port)
    for item in replies.entries(chardevs, "query-chardev"):
        if item.get("label") == label:
            return _channel(item, qemu)._replace(device_id=device_id)
    return Channel(None, guest_open=False, device_id=device_id)


def _channel(item: Any, qemu: VmIdentity) -> Channel:
    guest_open = replies.member(item, "frontend-open", bool, "query-chardev")
    filename = replies.member(item, "filename", str, "query-chardev")
    match = _UNIX.match(filename)
    # Where QEMU is the client of somebody else's socket we have nothing to connect to.
    if match is None or "server" not in match["flags"]:
        return Channel(None, guest_open=guest_open, chardev=clean(filename))
    abstract = re.search(r"abstract(?!=off)", match["flags"])
    bound = f"@{match['path']}" if abstract else f"{'./' * is_abstract(match['path'])}{match['path']}"
    return Channel(
        _reached(bound, qemu) if bound else None,
        guest_open=guest_open,
        bound=bound,
        chardev=clean(filename),
        name_withheld=not bound,
    )


def named_as_before(port: Channel, before: Channel | None) -> Channel:
    """Return ``port`` with the name that it had when it was looked at before, if QEMU withholds it now.

    QEMU does so for as long as an abstract socket has a client (10.0: "unix:,server=on"; chardev/char-socket.c,
    qemu_chr_compute_filename). A port that nobody has looked at before stays without a name.
    """
    if not port.name_withheld or before is None or not is_abstract(before.bound):
        return port
    return port._replace(socket=before.socket, bound=before.bound, name_withheld=False)


def _reached(bound: str, qemu: VmIdentity) -> str:
    """Return by which name we reach what QEMU has bound under that one.

    A path is a name in somebody's mount namespace, and a relative one depends on a directory, too. So what counts is
    where it leads for QEMU's process, if that is to be seen; our own path to the same place is the nicer one.
    """
    there = _there(bound, qemu)
    if there is None or not os.path.exists(there):
        return bound
    nicer = bound if os.path.isabs(bound) else os.path.join(os.readlink(f"/proc/{qemu.pid}/cwd"), bound)
    return nicer if _same(nicer, there) else there


def _there(bound: str, qemu: VmIdentity) -> str | None:
    """Return a path to it by way of QEMU's process (proc_pid_root(5)); None if there is none."""
    if qemu.pid is None or is_abstract(bound):
        return None
    return f"/proc/{qemu.pid}/root{bound}" if os.path.isabs(bound) else f"/proc/{qemu.pid}/cwd/{bound}"


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def check(view: HostView, qemu: VmIdentity, path: str, connection: socket.socket | None) -> None:
    """Raise UsageError "not-our-port" if ``path`` cannot be this VM's port, or ``connection`` is to another socket.

    Without ``connection`` it is told whether to make one: bytes that are written elsewhere could do harm.
    """
    port = view.channel
    if port is None or port.socket is None:
        why = no_channel() if port is None else no_socket(port)
        raise _not_ours(f"{clean(path)} cannot be the socket of the agent's port: {why.text}", why.hint)
    if connection is None:
        _check_path(port, qemu, path)
    else:
        _check_connection(port, qemu, path, connection, handed=view.qemu_version < _LISTENS)


def _check_path(port: Channel, qemu: VmIdentity, path: str) -> None:
    """Raise UsageError if ``path`` leads elsewhere.

    Where QEMU's process is known, another path may lead to the same socket, if its last part is the same. Who listens
    there tells then.
    """
    if path in (port.bound, port.socket) or (port.socket is not None and _same(path, port.socket)):
        return
    if qemu.pid is not None and os.path.basename(os.path.realpath(path)) == os.path.basename(port.bound):
        return
    raise _not_ours(
        f"{clean(path)} is not the socket of the agent's port: bytes written there could do harm",
        f"QEMU says that it is {clean(port.bound)}; leave --agent out and that one is used",
    )


def _check_connection(port: Channel, qemu: VmIdentity, path: str, connection: socket.socket, *, handed: bool) -> None:
    """Raise UsageError unless the process that listens, and the name that it has bound, tell that it is the socket.

    A path alone proves something only where QEMU's process is not known, or may have been ``handed`` the socket:
    another VM's QEMU may have the same path, in a container of its own or because it took it.
    """
    listener = peer(connection)
    if qemu.pid is not None and listener == qemu.pid:
        if port.bound == bound_name(connection):
            return
        text = f"it is another socket of the same QEMU, {clean(bound_name(connection))}"
    elif qemu.listens and not handed:
        text = f"{describe(listener)} listens there, and this VM's QEMU is {describe(qemu.pid or 0)}"
    elif os.path.isabs(port.bound) or is_abstract(port.bound):
        if path == port.bound or _same(path, port.bound):
            return
        text = f"QEMU says that it is {clean(port.bound)}"
    else:
        # A name alone proves nothing: another VM's port may have the same one in another directory.
        text = f"QEMU was given a relative path for it ({clean(port.bound)}), which cannot be compared"
        raise _not_ours(
            f"{clean(path)} may not be the socket of the agent's port: {text}", "give QEMU an absolute path"
        )
    raise _not_ours(
        f"{clean(path)} is not the socket of the agent's port: {text}",
        f"give the path by which QEMU's {clean(port.bound)} is reached from here: --agent SOCKET; "
        "if another VM was started with the same path, it has taken this one's socket away",
    )


def _not_ours(text: str, hint: str) -> UsageError:
    return UsageError(Reason(codes.NOT_OUR_PORT, Origin.VCPUCTL, text, hint))


def label_of(names: Sequence[object], labels: Sequence[object]) -> tuple[int, str] | None:
    """Return the place and chardev of our first port, of all ports' properties ``name`` and ``chardev``."""
    for place, (name, label) in enumerate(zip(names, labels, strict=True)):
        if name == PORT_NAME:
            return place, replies.text(label, "qom-get")
    return None
