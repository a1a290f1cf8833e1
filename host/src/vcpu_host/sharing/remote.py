# SPDX-License-Identifier: Apache-2.0
"""Asking the process that holds a VM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ..core import codes
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..documents import Document
from ..errors import OutcomeLostError, RefusedError
from ..local.processes import peer
from ..local.unix_sockets import dial_far
from . import wire
from .answers import Say
from .calls import Call, Part

#: How long a process that others ask may take to say that it has heard, in seconds.
HEARS = 5.0
#: And a service that is being started for this call, in seconds: as long as systemd waits (DefaultTimeoutStartSec).
STARTS = 90.0
#: Who waits longer than this, in seconds, is told for whom.
_MOMENT = 0.5
#: The process id of systemd.
_SYSTEMD = 1


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None]:
    """Connect to a hub's socket, and yield the streams; yield None if nobody listens there."""
    try:
        reader, writer = await asyncio.open_unix_connection(sock=dial_far(path), limit=wire.LONGEST)
    except OSError:
        yield None
        return
    try:
        yield reader, writer
    finally:
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()  # it does not read, and would be waited for
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class Asking:
    """One call to the process that listens at ``path``; ``about`` goes along with it. ``who`` is what that is.

    ``reached`` says whether anybody listens there, ``begun`` whether that process has begun to change the VM,
    ``unknown`` that it has no such VM.
    """

    def __init__(self, path: Path, call: Call, who: str = "", **about: str) -> None:
        self._path = path
        self._about = about
        self._who = who or f"the process that listens at {path}"
        self._message = {**call.to_json(), **about}
        self._writer: asyncio.StreamWriter | None = None
        self.reached = self.begun = self.unknown = False

    def instead(self, call: Call) -> Asking:
        """Return another call to that process, about the same VM."""
        return Asking(self._path, call, self._who, **self._about)

    async def answer(self, say: Say) -> Document | None:
        """Return the answer; None if the process ended, or lost the VM, before it gave one.

        Raise what it raised, and RefusedError "service-silent" if it does not even say that it has heard.
        """
        async with connected(self._path) as streams:
            if streams is None:
                return None
            self.reached = True
            reader, self._writer = streams
            self._writer.write(wire.line(self._message))
            message = await self._heard(reader, say, peer(self._writer.get_extra_info("socket")))
            while message is not None:
                if "answer" in message:
                    answer = message["answer"]
                    return answer if isinstance(answer, dict) else None
                if "error" in message:
                    raise wire.read_error(message)
                if "begun" in message:
                    self.begun = True
                elif "unknown" in message:
                    self.unknown = True
                elif "heard" not in message:
                    say(message)
                message = await wire.receive(reader)
            return None

    async def _heard(self, reader: asyncio.StreamReader, say: Say, listener: int) -> wire.Message | None:
        """Return the first message. A process that is stopped, or at its end, is connected to all the same.

        ``listener`` is the id of the process that listened when the connection was made.
        """
        told = asyncio.get_running_loop().call_later(_MOMENT, lambda: say({"holder": self._who}))
        seconds = STARTS if _starts(listener) else HEARS
        try:
            async with asyncio.timeout(seconds):
                return await wire.receive(reader)
        except TimeoutError as error:
            text = f"{self._who} takes calls and has said nothing for {seconds:g} s: nothing was changed"
            hint = "see what that process does (systemctl status vcpuctl, if it is the service); end it if it hangs"
            raise RefusedError(Reason(codes.SERVICE_SILENT, Origin.VCPUCTL, text, hint)) from error
        finally:
            told.cancel()

    def interrupt(self) -> None:
        """Say that nobody waits any longer; the answer then says what is known."""
        if self._writer is not None:
            self._writer.write(wire.line({"interrupt": True}))


def _starts(listener: int) -> bool:
    """Return whether whoever is to answer is being started, by the id of the process that has called listen(2) last.

    That is systemd for a socket of its own, until the service has started, which calls it there, too. When the service
    has ended, systemd still has the socket, and the id is that of nobody.
    """
    return listener == _SYSTEMD or (listener > 0 and not Path(f"/proc/{listener}").exists())


def not_waited_for() -> OutcomeLostError:
    """Return the error that nobody waits any longer for what an operation that was ended has to say."""
    return OutcomeLostError(
        Reason(
            codes.INTERRUPTED,
            Origin.VCPUCTL,
            "the wait was ended, and so was that for the last words of the operation: it is not known how far it came",
            "vcpuctl list shows how the VM stands and what is pending; the same scale, or --slot, goes on from there",
        )
    )


def lost() -> OutcomeLostError:
    """Return the error that the process which carried out an operation has ended in the middle of it."""
    return OutcomeLostError(
        Reason(
            codes.SERVICE_LOST,
            Origin.VCPUCTL,
            "the process that carried out the operation has ended in the middle of it: it is not known how far it came",
            "vcpuctl list shows how the VM stands and what is pending; the same scale, or --slot, goes on from there",
        )
    )


class Holder:
    """The process that holds a VM, as it answers to a request to give way.

    ``at_once``: it lets go now, and not at the end of an operation.
    """

    def __init__(self, message: wire.Message, reader: asyncio.StreamReader) -> None:
        self.part = str(message.get("part", ""))
        self.name = printable(str(message.get("holder", "")), 200)
        self.gives_way = message.get("gives_way") is True
        self.at_once = message.get("at_once") is True
        self._reader = reader

    async def released(self) -> None:
        """Return when it has let go of the VM, or ended."""
        while await wire.receive(self._reader) is not None:
            pass


class HolderSilentError(Exception):
    """The process that holds a VM takes calls, and answers none: it is stopped, or hangs."""


@asynccontextmanager
async def asked_to_give_way(path: Path, part: Part, seconds: float, *, insists: bool) -> AsyncIterator[Holder | None]:
    """Ask the process that listens at ``path`` to give way, and yield who it is; None if nobody does.

    Raise HolderSilentError if somebody does, and does not answer in so many seconds. ``part`` is what the VM is wanted
    for: nobody gives way to one that reads. ``insists``: the VM itself is needed, and not somebody who carries an
    operation out.
    """
    async with connected(path) as streams:
        message = None
        if streams is not None:
            reader, writer = streams
            writer.write(wire.line({"call": "give-way", "for": str(part), "insists": insists}))
            try:
                async with asyncio.timeout(seconds):
                    message = await wire.receive(reader)
            except TimeoutError as error:
                raise HolderSilentError from error
        yield None if streams is None or message is None else Holder(message, streams[0])
