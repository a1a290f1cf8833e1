# SPDX-License-Identifier: Apache-2.0
"""One coordinator a VM (promise 8): a lock that dies with its holder, and says who that is."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ..core import codes
from ..core.identity import VmIdentity
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..errors import RefusedError
from . import directory as runtime
from . import names

#: What stands in a lock's file below its holder, if that does not change the VM.
_LOOKS = "looks"
#: The most characters of the holder, and the most bytes of the file.
_HOLDER = 200
_WORDS = 4 * _HOLDER + 100
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class VmLock:
    """An exclusive lock ``of`` the place where a VM is reached, or of a VM, whichever place led to it.

    A place is a monitor's socket, mostly (``local.target``, ``place``). The first keeps the socket, which takes one
    client, from being fought for; a VM may have several, hence the second. ``holder`` is what others are told of
    who has it. The lock is held by ``flock`` on an open file, so that the kernel drops it when the holder ends,
    however it ends.
    """

    def __init__(self, of: str | VmIdentity, holder: str, *, directory: Path | None = None) -> None:
        self._directory = directory or runtime.directory()
        name = names.of_place(of) if isinstance(of, str) else names.of_vm(of)
        self._path = self._directory / f"{name}.lock"
        self._holder = holder
        self._fd: int | None = None
        self.holder = "unknown"  # who had it when it was tried last: process id and command
        self.holder_looks = False  # that they have said that they only look

    @property
    def address(self) -> Path:
        """Where the lock's holder may listen for those who want it (``sharing``)."""
        return self._path.with_suffix(".sock")

    async def acquire(self, patience: float) -> None:
        """Take the lock, waiting for at most ``patience`` seconds.

        Raise RefusedError, which names the holder, if somebody has it still.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while not self.try_take():
            if loop.time() >= until:
                raise busy(self.holder)
            await asyncio.sleep(0.05)

    def try_take(self, *, looks: bool = False) -> bool:
        """Take the lock if nobody has it, and return whether that is so; else ``holder`` says who has.

        ``looks``: whoever takes it does not change the VM, which others are told. Raise RefusedError if no lock can be
        made.
        """
        try:
            runtime.prepare(self._directory)
            while True:
                fd = os.open(self._path, _FLAGS | os.O_CREAT, 0o600)
                try:
                    taken = self._taken(fd, looks=looks)
                except BaseException:
                    os.close(fd)
                    raise
                if taken:
                    self._fd = fd
                    return True
                os.close(fd)
                if taken is not None:
                    return False
        except OSError as error:
            raise runtime.unsafe(f"cannot make the lock {self._path}: {error.strerror}") from error

    def release(self) -> None:
        """Let go. The file goes, too: places come and go, and nobody else knows of which place it was."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            _remove(fd, self._path)
            os.close(fd)

    def _taken(self, fd: int, *, looks: bool) -> bool | None:
        """Lock the open file if nobody has. Return whether it is locked now.

        Return None if it is not the lock any more: its holder removed it meanwhile.
        """
        if not self._inspect(fd):
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            words, _, part = os.pread(fd, _WORDS, 0).decode(errors="replace").partition("\n")
            self.holder, self.holder_looks = printable(words[:_HOLDER].strip()) or "unknown", part.strip() == _LOOKS
            return False
        if not _is_at(fd, self._path):
            return None
        # The lock counts, whether or not there is room for who has it.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            words = f"{os.getpid()} {self._holder}"[:_HOLDER] + (f"\n{_LOOKS}\n" if looks else "\n")
            os.pwrite(fd, words.encode(errors="backslashreplace"), 0)
        return True

    def _inspect(self, fd: int) -> bool:
        """Raise RefusedError if it is no file, or not ours, or has another name elsewhere: it is written to.

        Return whether it still has a name.
        """
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
            raise runtime.unsafe(f"{self._path} is not a lock that vcpuctl made: no file of this user's with one name")
        return status.st_nlink == 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def remove_if_forsaken(address: Path) -> None:
    """Remove the socket beside a lock that nobody has, and the lock: its holder was killed, and could not do that.

    Meanwhile the lock is held, so that nobody begins to listen there. What is not this user's is left alone.
    """
    path = address.with_suffix(".lock")
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return  # none of ours
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(fd, path)
    except OSError:
        return  # somebody has it
    finally:
        os.close(fd)


def _remove(fd: int, path: Path) -> None:
    """Remove the lock that is held by ``fd``, and the socket beside it; what lies there and cannot go stays."""
    address = path.with_suffix(".sock")
    with suppress(OSError):
        if not _is_at(fd, path):
            return  # it was removed, and may be somebody else's by now
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(address).st_mode):
                address.unlink()
        path.unlink()


def _is_at(fd: int, path: Path) -> bool:
    """Return whether the open file is the one of this name. Only then does its lock keep others out."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def busy(holder: str) -> RefusedError:
    """Return the error that another program changes the VM; ``holder`` is its process id and command."""
    text = f"another vcpuctl is at work on this VM (pid and command: {holder})"
    return RefusedError(Reason(codes.VM_BUSY, Origin.VCPUCTL, text, "wait until it has ended"))
