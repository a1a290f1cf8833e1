# SPDX-License-Identifier: Apache-2.0
"""connect(2) to a unix socket, without waiting."""

from __future__ import annotations

import socket


def dial(address: str | bytes) -> socket.socket:
    """Return a non-blocking socket that is connected to the unix socket at ``address`` (unix(7)).

    Raise OSError as connect(2) does, so BlockingIOError (EAGAIN) when the listener's backlog is full. asyncio's own
    create_unix_connection() takes that EAGAIN for a connection under way and hands out a socket that is not connected.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection
