# SPDX-License-Identifier: Apache-2.0
"""Unix sockets by name: a path, or "@NAME" for one in the abstract namespace, as /proc/net/unix has it (unix(7))."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vcpu_proto import unix

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import UsageError

#: sizeof(sockaddr_un.sun_path), unix(7).
SUN_PATH = 108

#: Other beginnings of what QEMU calls a character device (chardev/char.c, qemu_chr_parse_compat). Of these it could be
#: reached by one of the network's, which lets in whoever can reach it.
_OTHERS = ("tcp:", "telnet:", "websocket:", "udp:", "pty:", "pipe:", "file:", "vc:", "stdio:", "fd:", "vsock:")
_ONLY_UNIX = (
    "give QEMU -qmp unix:PATH,server=on,wait=off; a socket of another host comes here by ssh -L PATH:PATH HOST. "
    "A file with such a name is ./NAME"
)


def is_abstract(name: str) -> bool:
    """Return whether ``name`` is one of the abstract namespace; the file "@x" has to be called "./@x"."""
    return name.startswith("@")


def plain_name(text: str) -> str:
    """Return the path, or "@NAME", that ``text`` means.

    That is ``text`` itself, or as in QEMU's unix:PATH,server=on,wait=off. Raise UsageError "not-unix" for what is no
    unix socket on which QEMU listens.
    """
    if text.startswith(_OTHERS):
        raise _not_unix(f"{text} is no unix socket, and vcpuctl speaks to no other")
    if not text.startswith("unix:"):
        return text
    # Late: most sockets are named by their paths.
    from ..core.qemu_argv import is_on, settings

    said = settings(text.removeprefix("unix:"), "path")
    if not is_on({"server": "on", **said}, "server"):
        raise _not_unix(f"{text}: QEMU is the client there, and nobody listens for vcpuctl")
    return f"@{said.get('path', '')}" if is_on(said, "abstract") else said.get("path", "")


def _not_unix(text: str) -> UsageError:
    return UsageError(Reason(codes.NOT_UNIX, Origin.VCPUCTL, text, _ONLY_UNIX))


def place(name: str) -> str:
    """Return one name for whatever leads to the same socket. Raise UsageError for one that leads nowhere."""
    if is_abstract(name):
        return name
    try:
        return os.path.realpath(name)
    except OSError as error:  # getcwd(2): what a path leads through may be missing, but not where it begins
        text = f"{name} is a path from this directory, which cannot be told: {error.strerror}"
        hint = "give the whole path, or go to a directory that is there"
        raise UsageError(Reason(codes.NOT_A_SOCKET, Origin.VCPUCTL, text, hint)) from error


def bound_name(connection: socket.socket) -> str:
    """Return the name that the listener at the other end has bound. A path in it is its own, and may lead elsewhere."""
    name: str | bytes = connection.getpeername()
    if isinstance(name, str):
        return f"./{name}" if is_abstract(name) else name
    return "@" + os.fsdecode(name[1:].rstrip(b"\0"))


def bound(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``, however long that is, in place of what lay there. Raise OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _near(path) as short:
            listener.bind(short)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def dial_far(path: Path) -> socket.socket:
    """Return a non-blocking socket that is connected to ``path``, however long that is. Raise OSError."""
    with _near(path) as short:
        return unix.dial(short)


@contextmanager
def _near(path: Path) -> Iterator[str]:
    """Yield a short name for ``path``, whose directory is there: sun_path has 108 bytes."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def dial(name: str) -> socket.socket:
    """Return a non-blocking socket that is connected to the unix socket of that name.

    Raise OSError as connect(2) does, so BlockingIOError (EAGAIN) when the listener's backlog is full.
    """
    *others, last = _addresses(name)
    for address in others:
        try:
            return unix.dial(address)
        except ConnectionRefusedError:
            continue
    return unix.dial(last)


def _addresses(name: str) -> tuple[str | bytes, ...]:
    """Return what to give to connect(2), in order: the length of an abstract name may be all of sun_path.

    (QEMU binds it so with tight=off: unix_listen_saddr, util/qemu-sockets.c.)
    """
    if not is_abstract(name):
        return (name,)
    tight = b"\0" + os.fsencode(name[1:])
    return tight, tight.ljust(SUN_PATH, b"\0")


def is_busy(name: str) -> bool:
    """Return whether the listener that bound ``name`` serves somebody while a connection waits to be accepted.

    QEMU's chardev stops accepting while it has a client (chardev/char-socket.c, tcp_chr_accept), so a second connect(2)
    succeeds and nothing ever happens. /proc/net/unix shows the listener's side of every connection with its path: state
    03 is accepted, 02 waits (net/unix/af_unix.c, unix_seq_show: a socket that nobody accepted has no struct socket).
    What fills up an abstract name's length is shown as "@", too.
    """
    accepted = waiting = False
    for fields in _named():
        if name in (fields[7], fields[7].rstrip("@")):
            accepted |= fields[5] == "03"
            waiting |= fields[5] == "02"
    return accepted and waiting


def listeners() -> Iterator[tuple[str, str]]:
    """Yield the name of each socket that listens in this network namespace, and its inode number.

    (unix_seq_show: the flag 00010000, __SO_ACCEPTCON.)
    """
    for fields in _named():
        if fields[3] == "00010000":
            yield fields[7].rstrip("@") if is_abstract(fields[7]) else fields[7], fields[6]


def _named() -> Iterator[list[str]]:
    """Yield the fields of /proc/net/unix of each socket that has a name."""
    for line in Path("/proc/net/unix").read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8:
            yield fields


def make_way(path: str) -> None:
    """Remove the socket that a killed listener left at ``path``, so that another can be made there.

    Raise UsageError for one that somebody listens on, and for anything else: it is left alone.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise bad_socket(f"cannot look at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise bad_socket(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # connect(2): nobody listens
            os.unlink(path)
            return
        except OSError as error:
            raise bad_socket(f"cannot tell whether {path} is in use: {error.strerror}") from error
    raise bad_socket(f"another program listens on {path}")


def bad_socket(text: str) -> UsageError:
    """Return the error of a path that no socket can be made at; ``text`` says why."""
    return UsageError(Reason(codes.BAD_SOCKET, Origin.VCPUCTL, text, "choose another path"))
