# SPDX-License-Identifier: Apache-2.0
"""Metrics as a file for node_exporter's textfile collector."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import UsageError
from ..sharing.log import tell
from .metrics import Metrics

#: How often the file is written, in seconds; node_exporter reads it whenever it is scraped itself.
_INTERVAL = 10.0
#: A place with one of these does not get better by itself. A disk that is full does.
_NO_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
_NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS}


def textfile(path: str) -> Path:
    """Return the file of this name. Raise UsageError if node_exporter would not read it."""
    file = Path(path)
    if file.suffix != ".prom" or not file.is_absolute():
        hint = "node_exporter reads DIRECTORY/NAME.prom, with its --collector.textfile.directory=DIRECTORY"
        raise _bad(f"{path!r} is not an absolute path that ends in .prom", hint)
    return file


def _bad(text: str, hint: str) -> UsageError:
    return UsageError(Reason(codes.BAD_METRICS, Origin.VCPUCTL, f"metrics: {text}", hint))


class Textfile:
    """Has the metrics in a file, from entry to exit of the context: then it goes, so that nobody takes it for new.

    Who reads it sees all of the metrics, or the old ones.
    """

    def __init__(self, metrics: Metrics, file: Path, interval: float = _INTERVAL) -> None:
        self._metrics = metrics
        self._file = file
        self._interval = interval
        # The collector reads *.prom alone, so not this. What lies there was left by a writer that was killed.
        self._temporary = file.with_name(f".{file.name}.new")
        self._trouble: int | None = None  # the errno that was told
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Write it for the first time. Raise UsageError if it can never be written there."""
        try:
            self.write()
        except OSError as error:
            if error.errno in _NO_PLACE | _NOT_OURS:
                raise self._unwritable(error) from error
            self._failed(error)
        self._writing = asyncio.create_task(self._write_again())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        for path in (self._temporary, self._file):
            try:
                with suppress(FileNotFoundError):
                    path.unlink()
            except OSError as left:
                tell(f"metrics: {path} stays, and is old: {left.strerror}; remove it")

    def write(self) -> None:
        """Replace the file. Raise OSError; the old file stays then."""
        data, _ = self._metrics.exposed()
        self._temporary.unlink(missing_ok=True)
        try:
            with open(self._temporary, "xb") as new:  # so not through a link
                new.write(data)
                os.fchmod(new.fileno(), 0o644)
            os.replace(self._temporary, self._file)
        except OSError:
            with suppress(OSError):
                self._temporary.unlink()
            raise

    async def _write_again(self) -> None:
        # The first time not in a moment when nothing is known yet: so again as soon as something is.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                await self._metrics.all_seen.wait()
        while True:
            try:
                self.write()
            except OSError as error:
                self._failed(error)
            else:
                if self._trouble is not None:
                    self._trouble = None
                    tell(f"metrics: {self._file} is written again")
            await asyncio.sleep(self._interval)

    def _failed(self, error: OSError) -> None:
        """Count it, and tell the log if it is not what was told last: it is tried again and again."""
        self._metrics.exposition_failed("textfile")
        if error.errno != self._trouble:
            self._trouble = error.errno
            tell(f"metrics: cannot write {self._file}: {error.strerror or error}; the old one, if there is one, stays")

    def _unwritable(self, error: OSError) -> UsageError:
        folder = self._file.parent
        hint = "give DIRECTORY/NAME.prom in a directory that is there: the one that node_exporter reads"
        if error.errno in _NOT_OURS:
            hint = (
                f"let vcpuctl's user write in {folder}; for vcpuctl.service a drop-in has to have "
                f"ReadWritePaths={folder} (systemctl edit vcpuctl.service)"
            )
        return _bad(f"cannot write {self._file}: {error.strerror or error}", hint)
