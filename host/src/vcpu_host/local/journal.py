# SPDX-License-Identifier: Apache-2.0
"""The write-ahead record of one VM as a file: there before QEMU is asked, gone when all is settled.

What stands in it: ``core.operation.record``.

It is bound to one QEMU process (``ports.Vmm.identity``): what was asked of one that has ended concerns no other.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core import codes
from ..core.identity import ProcessId, VmIdentity
from ..core.intent import Intent
from ..core.reason import Origin, Reason
from ..errors import RefusedError, UsageError
from . import directory as runtime
from . import inputs, names, processes
from .lock import remove_if_forsaken
from .unix_sockets import make_way

_SCHEMA_VERSION = 1
_SUFFIX = ".pending"
_NEW = ".new"
_LEFT = (_SUFFIX, _NEW, ".lock", ".sock")
#: No record of 4096 slots is larger: a bound for what is read.
_MOST = 4 << 20
#: How often this process looks for what others have left, in seconds: else each of many VMs has the files of all seen.
_TIDY_EVERY = 60.0
#: When it does so again, by directory (time.monotonic).
_TIDY_AGAIN: dict[Path, float] = {}


class FileJournal:
    """The record of the VM with this identity; it fills the role ``ports.Journal``."""

    shared = False  # who has not the VM's lock does not write it

    def __init__(self, identity: VmIdentity, *, directory: Path | None = None) -> None:
        self._directory = directory or runtime.directory()
        self._path = self._directory / f"{names.of_vm(identity)}{_SUFFIX}"
        before = names.before(identity)
        self._path_before = None if before is None else self._directory / f"{before}{_SUFFIX}"
        # With the host's kernel ends a QEMU that it runs, and what was asked of that concerns nobody then. One that
        # cannot be seen from here may be another host's.
        self._outlives_kernel = not isinstance(identity.by, ProcessId)

    async def load(self) -> tuple[Intent, ...]:
        """Return what is recorded for this VM. Raise RefusedError "bad-record" if nobody could have written that.

        Records and locks of processes that have ended are removed on the way, now and then.
        """
        now = time.monotonic()
        if now >= _TIDY_AGAIN.get(self._directory, now):
            _TIDY_AGAIN[self._directory] = now + _TIDY_EVERY
            _tidy(self._directory, self._path.stem)
        for path in filter(None, (self._path, self._path_before)):
            try:
                return _read(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _bad(path, str(error.strerror)) from error
        return ()

    async def save(self, intents: Sequence[Intent]) -> None:
        """Replace the record. From then on it survives the death of this process, and of the kernel if QEMU may, too.

        Raise RefusedError "no-record": then QEMU must not be asked for anything.
        """
        try:
            if intents:
                runtime.prepare(self._directory)
                entries = [intent.to_json() for intent in intents]
                document = {"schema_version": _SCHEMA_VERSION, "intents": entries}
                _replace(self._path, json.dumps(document).encode(), on_disk=self._outlives_kernel)
            # The earlier one first: left alone, it would be taken for what stands now.
            for path in filter(None, (self._path_before, None if intents else self._path)):
                path.unlink(missing_ok=True)
        except OSError as error:
            text = f"cannot record what is about to be done in {self._path}: {error.strerror}"
            raise RefusedError(Reason(codes.NO_RECORD, Origin.VCPUCTL, text, "make room there, or mend it")) from error


def _tidy(directory: Path, but: str) -> None:
    """Remove the records and locks of processes that have ended, except those of this name, and forsaken sockets."""
    try:
        entries = os.listdir(directory)
    except OSError:
        return  # there is no directory yet, or it is not ours: whoever writes there says so
    ended: dict[ProcessId, bool] = {}
    for name in entries:
        stem, suffix = os.path.splitext(name)
        process = names.process_of(stem) if suffix in _LEFT and stem != but else None
        if process is None:
            if stem != but:
                _tidy_socket(directory / name)
            continue
        if process not in ended:
            ended[process] = processes.ended(process)
        if ended[process] and not (path := directory / name).is_dir():
            with suppress(OSError):  # somebody else's, or gone by now
                path.unlink()


def _tidy_socket(path: Path) -> None:
    """Remove what a killed holder of a place has left there, or a killed server: nobody has a lock for its socket."""
    if path.suffix == ".sock" and path.name.startswith(runtime.SERVERS):
        # One that has been made just now is not listened on yet.
        with suppress(OSError, UsageError):
            if time.time() - path.lstat().st_mtime > _TIDY_EVERY:
                make_way(str(path))
    elif path.suffix in (".sock", ".lock"):
        remove_if_forsaken(path.with_suffix(".sock"))


def _read(path: Path) -> tuple[Intent, ...]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if os.fstat(fd).st_uid != os.geteuid():
            raise _bad(path, "it belongs to somebody else")
        data = file.read(_MOST)
    try:
        document: Any = json.loads(data)
        if document["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(f"it is of version {document['schema_version']!r}")
        return tuple(Intent.from_json(entry) for entry in document["intents"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # the last: brackets within brackets
        raise _bad(path, inputs.why(error)) from error


def _bad(path: Path, why: str) -> RefusedError:
    text = f"{path} should say what is still pending on this VM, and cannot be read: {why}"
    return RefusedError(
        Reason(codes.BAD_RECORD, Origin.VCPUCTL, text, "compare the VM with its guest by hand, then remove it")
    )


def _replace(path: Path, data: bytes, *, on_disk: bool) -> None:
    """Replace the file by one with these data.

    ``on_disk``: the data are on the disk before they have their name, and the name is before this returns.
    """
    new = path.with_suffix(_NEW)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        if on_disk:
            os.fsync(fd)
    os.replace(new, path)
    if on_disk:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
