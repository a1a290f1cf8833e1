# SPDX-License-Identifier: Apache-2.0
"""Names of unix sockets: a path, or "@NAME" for one in the abstract namespace, as /proc/net/unix has it (unix(7))."""

from __future__ import annotations

import os
import socket

#: sizeof(sockaddr_un.sun_path), unix(7).
_SUN_PATH = 108


def is_abstract(name: str) -> bool:
    """Whether ``name`` is one of the abstract namespace; the file "@x" has to be called "./@x"."""
    return name.startswith("@")


def addresses(name: str) -> tuple[str | bytes, ...]:
    """What to give to connect(2), in order: an abstract name may have been bound with all of sun_path for its length.

    (QEMU does that with tight=off: unix_listen_saddr, util/qemu-sockets.c.)
    """
    if not is_abstract(name):
        return (name,)
    tight = b"\0" + os.fsencode(name[1:])
    return tight, tight.ljust(_SUN_PATH, b"\0")


def bound_name(connection: socket.socket) -> str:
    """The name that the listener at the other end has bound. A path in it is its own, and may lead elsewhere here."""
    name: str | bytes = connection.getpeername()
    if isinstance(name, str):
        return f"./{name}" if is_abstract(name) else name
    return "@" + os.fsdecode(name[1:].rstrip(b"\0"))


def dial(name: str) -> socket.socket:
    """Returns a non-blocking socket connected to the unix socket of that name.

    Raises OSError as connect(2) does, so BlockingIOError (EAGAIN) when the listener's backlog is full. asyncio's own
    create_unix_connection() takes that EAGAIN for a connection under way and hands out a socket that is not connected.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connect(connection, name)
    except BaseException:
        connection.close()
        raise
    return connection


def connect(connection: socket.socket, name: str) -> None:
    """connect(2) to the unix socket of that name, and its errors."""
    *others, last = addresses(name)
    for address in others:
        try:
            return connection.connect(address)
        except ConnectionRefusedError:
            continue
    return connection.connect(last)
