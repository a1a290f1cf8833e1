# SPDX-License-Identifier: Apache-2.0
"""A connected monitor socket, or the reason why there is none.

QEMU serves one client per monitor socket: a second one connects all the same (it waits in the listen queue, of length
one) and hears nothing. And a path that somebody mistyped may lead anywhere, also to the guest's console, where bytes do
harm. So nothing is written here, the first byte of the greeting is waited for and only peeked at, with a deadline.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat

from ..core import codes
from ..core.descriptors import none_left
from ..core.reason import Origin, Reason
from ..errors import QemuGoneError, RefusedError, UsageError, VcpuctlError
from ..local.processes import descriptors, peer
from ..local.unix_sockets import dial, is_abstract
from .words import clean

#: sizeof(sockaddr_un.sun_path) less the final NUL (unix(7)).
_PATH_MAX = 107
#: How long to wait before trying again when the listen queue is full, in seconds.
_AGAIN = 0.05

#: QEMU removes the sockets that it has bound when it ends in order (util/qemu-sockets.c, socket_listen_cleanup), and
#: makes none before a cpr-transfer has brought the VM's state (seen with 10.0).
_OFF = (
    "is the VM running, and the path right? A QEMU that waits for cpr-transfer has no monitor until the VM has come: "
    "what it needs is told by vcpuctl export, before"
)
_LEFT = "QEMU has ended and left its socket behind"
_WHICH = "give the path of QEMU's -qmp unix socket"


def not_qmp(path: str, saw: str) -> UsageError:
    """Return the error that something listens, but it is no QMP monitor."""
    return UsageError(
        Reason(
            codes.NOT_QMP,
            Origin.VCPUCTL,
            f"{clean(path)} is not a QMP monitor: {saw}",
            "give the socket of -qmp unix:PATH,server=on,wait=off (not -monitor, not pretty=on, not the agent's port)",
        )
    )


def busy(path: str, timeout: float, sock: socket.socket | None) -> RefusedError:
    """Return the error that nobody speaks on ``sock``, which is connected.

    ``sock`` is None if the listen queue was full all the time. A QEMU that accepts nobody for want of descriptors has
    those in its queue who have given up long ago, so it is full from the third on. Who listens is then told by who has
    the socket open.
    """
    listener = _listener(path) if sock is None else peer(sock)
    has = descriptors(listener) if listener > 0 else None
    if has is not None and not has.left:
        return RefusedError(none_left(has, clean(path)))
    unseen = " or has no file descriptor left" if has is None else ""
    did = "let nobody connect" if sock is None else "took the connection but sent no QMP greeting"
    return RefusedError(
        Reason(
            codes.MONITOR_BUSY,
            Origin.VCPUCTL,
            f"{clean(path)} {did} within {timeout:g} s: "
            f"another client has this monitor, or it is no monitor, or QEMU is stopped or not up yet{unseen}",
            "QEMU serves one client per monitor: close the other one, or give the VM a second -qmp socket",
        )
    )


def _listener(path: str) -> int:
    # Late: it is needed for this one error alone.
    from ..local.qemus import listener

    return listener(path)


def gone(path: str, what: str) -> QemuGoneError:
    """Return the error that the other end ended."""
    return QemuGoneError(
        Reason(codes.QEMU_GONE, Origin.QEMU, f"{clean(path)}: {clean(what)}", "see whether QEMU still runs")
    )


def _refusal(path: str, err: OSError) -> VcpuctlError:
    """Return what an error of stat(2) or connect(2) on ``path`` means."""
    name = clean(path)
    if isinstance(err, PermissionError):
        return RefusedError(
            Reason(
                codes.NOT_PERMITTED,
                Origin.VCPUCTL,
                f"{name}: permission denied",
                f"run vcpuctl as the user that owns the socket{_owner(path)}, or with sudo",
                errno.errorcode.get(err.errno or 0, ""),
            )
        )
    if isinstance(err, FileNotFoundError):
        # A path that was mistyped looks the same; but a VM that is off is what scripts have to tell from all else.
        return QemuGoneError(
            Reason(codes.NO_SUCH_SOCKET, Origin.QEMU, f"nobody listens on {name}: it does not exist", _OFF)
        )
    if isinstance(err, ConnectionRefusedError):
        return QemuGoneError(
            Reason(codes.QEMU_GONE, Origin.QEMU, f"nobody listens on {name}", _OFF if is_abstract(path) else _LEFT)
        )
    if err.errno == errno.EPROTOTYPE:
        return not_qmp(path, "it is not a stream socket")
    code = errno.errorcode.get(err.errno or 0, "")
    return UsageError(Reason(codes.NOT_A_SOCKET, Origin.VCPUCTL, f"{name}: {clean(err.strerror)}", _WHICH, code))


def _owner(path: str) -> str:
    """Return " (uid N)" where it can be seen, to save the reader an ls."""
    try:
        return f" (uid {os.stat(path).st_uid})"
    except OSError:
        return ""


def _check(path: str) -> None:
    """Raise unless ``path`` can be a socket at all."""
    abstract = is_abstract(path)
    length = len(os.fsencode(path))
    if length > _PATH_MAX:
        raise UsageError(
            Reason(
                codes.PATH_TOO_LONG,
                Origin.VCPUCTL,
                f"the socket's path has {length} bytes, and Linux allows {_PATH_MAX}: {clean(path, 200)}",
                "make a symbolic link with a shorter path, or change to the directory and give a relative one",
            )
        )
    if path in ("", "@") or "\0" in path:
        raise UsageError(Reason(codes.NOT_A_SOCKET, Origin.VCPUCTL, f"{clean(path)!r} is no path of a socket", _WHICH))
    if abstract:
        return
    try:
        mode = os.stat(path).st_mode
    except OSError as err:
        raise _refusal(path, err) from err
    if not stat.S_ISSOCK(mode):
        raise UsageError(Reason(codes.NOT_A_SOCKET, Origin.VCPUCTL, f"{clean(path)} is not a socket", _WHICH))


async def _connect(path: str) -> socket.socket:
    """Return a connected socket, trying again while the listen queue is full.

    Not by the event loop's own sock_connect: on a unix socket EAGAIN means "not connected", and it takes it for "soon".
    """
    while True:
        try:
            return dial(path)
        except BlockingIOError:
            await asyncio.sleep(_AGAIN)
        except OSError as err:
            raise _refusal(path, err) from err


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def _ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, _ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


async def open_monitor(path: str, timeout: float) -> socket.socket:
    """Return a socket on which a JSON object is about to be read; nothing was read from it or written to it.

    ``timeout`` is in seconds. Raise UsageError, RefusedError or QemuGoneError, by what is the matter.
    """
    _check(path)
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout):
            sock = await _connect(path)
            await _readable(sock)
        first = sock.recv(1, socket.MSG_PEEK)
        if not first:
            raise gone(path, "the other end closed the connection at once")
        if first != b"{":
            raise not_qmp(path, f"it greets with {clean(repr(first))} where a monitor sends a JSON object")
    except BaseException as err:
        silent = busy(path, timeout, sock) if isinstance(err, TimeoutError) else None
        if sock is not None:
            sock.close()
        if silent is not None:
            raise silent from err
        if isinstance(err, OSError):
            raise gone(path, f"connection lost: {err.strerror}") from err
        raise
    return sock
