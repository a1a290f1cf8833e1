# SPDX-License-Identifier: Apache-2.0
"""Hands metrics out by HTTP, on loopback or a unix socket alone.

They say which VMs there are and what was done to them, so that no other host may ask for them. A client may be slow or
hostile: it gets so much time and so many bytes, and so many of them are served at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import UsageError
from ..local.unix_sockets import bad_socket, make_way
from .metrics import Metrics

#: How long a client may take for its question, and for taking the answer, in seconds.
PATIENCE = 10.0
#: The largest question, in bytes; Prometheus' own has some hundreds.
LARGEST = 8192
#: How many clients are served at once. For who comes then, the one goes that has not asked for longest; if all have
#: asked, the new one is sent away.
CLIENTS = 16
#: What may be asked for.
PATH = "/metrics"

_STATUS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
_HINT = "give 127.0.0.1:PORT, [::1]:PORT or unix:PATH: metrics are for this host alone"


@dataclass(frozen=True, slots=True)
class Address:
    """Where metrics are offered: ``path`` of a unix socket, or else a loopback address and a port (0 is any)."""

    host: str = ""
    port: int = 0
    path: str = ""


def address(text: str) -> Address:
    """Return the address that ``text`` names: HOST:PORT, or unix:PATH. Raise UsageError if it is not of this host."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise _bad(f"{text!r} names no absolute path")
        return Address(path=path)
    name, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 65536):
        raise _bad(f"{text!r} is no address with a port")
    name = "127.0.0.1" if name == "localhost" else name.removeprefix("[").removesuffix("]")
    try:
        loopback = ipaddress.ip_address(name).is_loopback
    except ValueError:
        raise _bad(f"{name!r} is no address of an interface, or a name that may change its meaning") from None
    if not loopback:
        raise _bad(f"{name} is not on loopback, so other hosts could reach it")
    return Address(name, int(port))


def _bad(text: str) -> UsageError:
    return UsageError(Reason(codes.BAD_METRICS, Origin.VCPUCTL, f"metrics: {text}", _HINT))


class Exposition:
    """Serves metrics at one address, from entry to exit of the context."""

    def __init__(self, metrics: Metrics, where: Address) -> None:
        self._metrics = metrics
        self._where = where
        self._clients = 0
        self._silent: dict[asyncio.Task[None], None] = {}  # those that have not asked yet, the oldest first
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The TCP port that it has; 0 on a unix socket."""
        sockets = self._server.sockets if self._server is not None else ()
        return 0 if self._where.path or not sockets else int(sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        where = self._where
        try:
            if where.path:
                self._server = await self._at(where.path)
            else:
                self._server = await asyncio.start_server(self._serve, where.host, where.port, limit=LARGEST)
        except OSError as error:
            raise _bad(f"cannot listen: {error.strerror or error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        if self._where.path:
            with suppress(FileNotFoundError):
                os.unlink(self._where.path)

    async def _at(self, path: str) -> asyncio.Server:
        """Listen on a unix socket that its owner and group may use."""
        make_way(path)
        before = os.umask(0o117)
        try:
            return await asyncio.start_unix_server(self._serve, path, limit=LARGEST)
        except OSError as error:
            raise bad_socket(f"cannot listen on {path}: {error.strerror or error}") from error
        finally:
            os.umask(before)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio runs this as a task")
        self._clients += 1
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(await self._answer(reader, task))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.CancelledError):  # the last by _make_room: the task is nobody else's
            self._metrics.exposition_failed("http")
        finally:
            self._silent.pop(task, None)
            writer.transport.abort()
            self._clients -= 1

    def _make_room(self) -> bool:
        """Return whether one more may be served. Any user of this host can connect to loopback, and say nothing."""
        if self._clients <= CLIENTS:
            return True
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        del self._silent[oldest]
        oldest.cancel()
        return True

    async def _answer(self, reader: asyncio.StreamReader, task: asyncio.Task[None]) -> bytes:
        if not self._make_room():
            return _response(503, "too many clients\n")
        self._silent[task] = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return _response(400, "this is no request\n")
        self._silent.pop(task, None)
        line, *fields = head.split("\r\n")
        method, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return _response(400, "this is no request\n")
        if target.partition("?")[0] != PATH:
            return _response(404, f"metrics are at {PATH}\n")
        if method not in ("GET", "HEAD"):
            return _response(405, "metrics can only be read\n")
        accept = [
            value.strip() for name, _, value in (field.partition(":") for field in fields) if name.lower() == "accept"
        ]
        body, content_type = self._metrics.exposed(",".join(accept))
        return _response(200, body, content_type, head=method == "HEAD")


def _response(
    status: int, body: str | bytes, content_type: str = "text/plain; charset=utf-8", *, head: bool = False
) -> bytes:
    """Return an answer, after which the connection ends."""
    data = body.encode() if isinstance(body, str) else body
    lines = [
        f"HTTP/1.1 {status} {_STATUS[status]}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(data)}",
        "Connection: close",
    ]
    if status == 405:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else data)
