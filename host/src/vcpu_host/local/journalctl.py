# SPDX-License-Identifier: Apache-2.0
"""Reads entries of the system's journal, as journalctl(1) shows them with ``-o json``: one object a line.

Any user may write to the journal, so its lines are bounded, and one that makes no sense is counted and left out.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import cast

from ..core import codes
from ..core.log_entry import FIELDS, MESSAGE_ID, TRUSTED, BrokenEntryError, LogEntry, read
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..errors import RefusedError, UnreachableError, UsageError, VcpuctlError

PROGRAM = "journalctl"
#: The longest line that is looked at, in bytes: an entry of ours has some thousands.
_LONGEST = 256 * 1024
_CHUNK = 64 * 1024
#: How much of what journalctl says on its standard error is kept, in bytes.
_SAID = 4096
#: journalctl says this to whom the journals of others are closed (systemd, src/shared/logs-show.c and journal-util.c).
_NO_PERMISSION = "insufficient permissions"
_HIDDEN = "not seeing messages from other users"
_GROUP = "as root: usermod -aG systemd-journal USER, and log in anew; or run vcpuctl log as root"


class Journal:
    """One reading. ``skipped`` counts lines that are no entry of ours, ``hidden`` says that others may be unseen.

    ``names`` are VMs by name and ``sockets`` by their monitors' sockets: entries about any of them are read, or all if
    there is none. ``since`` is a time in journalctl's words. ``lines`` is how many of the newest are read; None is all.
    ``follow``: go on with what comes.
    """

    def __init__(
        self,
        *,
        names: Sequence[str] = (),
        sockets: Sequence[str] = (),
        since: str | None = None,
        lines: int | None = None,
        follow: bool = False,
    ) -> None:
        self.skipped = 0
        self.hidden = False
        self._argv = _argv(names, sockets, since, lines, follow)
        self._said = b""

    async def entries(self) -> AsyncGenerator[LogEntry, None]:
        """Yield the entries, the oldest first. Raise RefusedError or UnreachableError if the journal cannot be read."""
        process = await self._start()
        stdout, stderr = (cast(asyncio.StreamReader, pipe) for pipe in (process.stdout, process.stderr))
        listening = asyncio.create_task(self._listen(stderr))
        try:
            async for line in self._lines(stdout):
                entry = self._entry(line)
                if entry is not None:
                    yield entry
            status = await process.wait()
            await listening
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            listening.cancel()
            await asyncio.gather(listening, process.wait(), return_exceptions=True)
        said = self._said.decode(errors="replace")
        self.hidden = _HIDDEN in said
        if status:
            raise _failed(status, said)

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}  # its words are looked at
        try:
            return await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            text = f"{PROGRAM} cannot be run: {error.strerror}"
            hint = f"vcpuctl log reads systemd's journal by {PROGRAM}(1), which has to be installed and on the PATH"
            raise UnreachableError(Reason(codes.NO_JOURNAL, Origin.VCPUCTL, text, hint)) from error

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        while chunk := await stderr.read(_CHUNK):
            self._said = (self._said + chunk)[:_SAID]

    async def _lines(self, stdout: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """Yield each line that is not too long; of one that is, the rest is thrown away as it comes."""
        held, too_long = b"", False
        while chunk := await stdout.read(_CHUNK):
            *whole, rest = chunk.split(b"\n")
            for part in whole:
                if too_long or len(held) + len(part) > _LONGEST:
                    self.skipped += 1
                else:
                    yield held + part
                held, too_long = b"", False
            too_long = too_long or len(held) + len(rest) > _LONGEST
            held = b"" if too_long else held + rest
        self.skipped += bool(held) or too_long  # journalctl was ended in the middle of it

    def _entry(self, line: bytes) -> LogEntry | None:
        if not line or line.startswith(b"-- "):  # journalctl's own remarks: "-- No entries --"
            return None
        try:
            raw = json.loads(line)
            return read(raw if isinstance(raw, dict) else {})
        except (ValueError, RecursionError, BrokenEntryError):
            self.skipped += 1
            return None


def _argv(
    names: Sequence[str],
    sockets: Sequence[str],
    since: str | None,
    lines: int | None,
    follow: bool,  # noqa: FBT001
) -> list[str]:
    """Return journalctl's command line. Fields that it does not show are not looked for in the files either."""
    shown = ",".join((*FIELDS, *TRUSTED))
    argv = [PROGRAM, "--no-pager", "--output=json", "--all", f"--output-fields={shown}"]
    argv += [f"--lines={'all' if lines is None else lines}"]
    argv += [] if since is None else [f"--since={since}"]
    argv += ["--follow"] if follow else []
    about = [f"VCPUCTL_VM={name}" for name in names] + [f"VCPUCTL_SOCKET={path}" for path in sockets]
    ours = f"MESSAGE_ID={MESSAGE_ID}"
    for place, match in enumerate(about):
        argv += [*(["+"] if place else []), ours, match]
    return argv if about else [*argv, ours]


def _failed(status: int, said: str) -> VcpuctlError:
    words = printable(" ".join(said.split()) or f"{PROGRAM} ended with status {status}")
    if "parse timestamp" in said:
        hint = "a time as systemd.time(7) has it: 2026-11-29, '1 hour ago', yesterday"
        return UsageError(Reason(codes.BAD_USAGE, Origin.VCPUCTL, f"--since: {words}", hint))
    if _NO_PERMISSION in said:
        text = "this user may not read the system's journal"
        return RefusedError(Reason(codes.JOURNAL_CLOSED, Origin.VCPUCTL, text, _GROUP))
    return UnreachableError(Reason(codes.NO_JOURNAL, Origin.VCPUCTL, words, f"{PROGRAM} says more by itself"))
