# SPDX-License-Identifier: Apache-2.0
"""A monitor socket that behaves as QEMU's: one client, a listen queue of one, greeting, negotiation, commands."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.fakes.qemu.ages import EARLY, NOT_YET
from kit.fakes.qemu.commands import Arguments, Handler, Raw
from kit.fakes.qemu.errors import QmpError
from kit.fakes.qemu.faults import Rule
from kit.fakes.qemu.splitter import Splitter

if TYPE_CHECKING:
    from kit.fakes.qemu.qemu import FakeQemu

#: QMP_REQ_QUEUE_LEN_MAX (monitor/monitor-internal.h): with that many requests waiting nothing more is read.
_QUEUE = 8

_HUSH = object()


def encoded(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message).encode() + b"\r\n"


class Monitor:
    """One ``-qmp unix:PATH,server=on,wait=off``."""

    def __init__(self, qemu: FakeQemu, path: Path, commands: Mapping[str, Handler]) -> None:
        self.path = path
        self._qemu = qemu
        self._commands = commands
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self.client: Client | None = None
        #: The command that is being carried out: QEMU begins none before the one before has its answer.
        self.under_way: asyncio.Future[None] | None = None
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Accept one client."""
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        # QEMU watches its listener only while it has no client: a second one waits in the kernel's queue.
        asyncio.get_running_loop().remove_reader(self._listener)
        self._serving = asyncio.create_task(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        self.client = Client(self._qemu, writer, self._commands, self)
        try:
            await self.client.serve(reader)
        finally:
            self.client = None
            writer.close()
            if self._listener.fileno() >= 0:
                self.start()

    def inherited(self, line: bytes) -> None:
        """An answer to a client that has left meanwhile: QEMU gives it to whom it has by then, negotiated or not.

        See findings/qmp-answer-goes-to-the-next-client.sh.
        """
        if self.client is not None:
            self.client.write(line)

    def emit(self, line: bytes) -> None:
        """An event, as it is sent, to the client, if it has negotiated."""
        if self.client is not None and self.client.negotiated:
            self.client.write(line)

    def drop_client(self) -> None:
        """Close the client's connection."""
        if self.client is not None:
            self.client.close()

    async def stop(self) -> None:
        """Close everything; may be repeated."""
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)


class Client:
    """One connection."""

    def __init__(
        self,
        qemu: FakeQemu,
        writer: asyncio.StreamWriter,
        commands: Mapping[str, Handler],
        monitor: Monitor,
    ) -> None:
        self._qemu = qemu
        self._writer = writer
        self._commands = commands
        self._monitor = monitor
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE)
        self.negotiated = False
        self._oob = False

    def send(self, message: Mapping[str, Any]) -> None:
        """One message, on one line."""
        self.write(encoded(message))

    def write(self, line: bytes) -> None:
        """What is a line already."""
        if not self._writer.is_closing():
            self._writer.write(line)

    def _answer(self, line: bytes) -> None:
        """The answer to a command, on one line."""
        if self._writer.is_closing():
            self._monitor.inherited(line)
        else:
            self.write(line)

    async def flush(self) -> None:
        """What was sent is with the kernel."""
        self._writer.transport.set_write_buffer_limits(0)
        if not self._writer.is_closing():
            await self._writer.drain()

    def close(self) -> None:
        """End the connection, whatever is under way."""
        self._writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the client goes. What it had asked for is carried out all the same, as in QEMU."""
        self.send({"QMP": {"version": self._qemu.version_info(), "capabilities": ["oob"]}})
        worker = asyncio.create_task(self._work())
        splitter = Splitter()
        try:
            while data := await _read(reader):
                for text in splitter.feed(data):
                    await self._queue.put(text)
        finally:
            if self._queue.empty():
                worker.cancel()
            else:
                self._qemu.later(self._drain(worker))

    async def _drain(self, worker: asyncio.Task[None]) -> None:
        await self._queue.join()
        worker.cancel()

    async def _work(self) -> None:
        if self._monitor.under_way is not None:  # of the client before
            await asyncio.wait({self._monitor.under_way})
        while True:
            text = await self._queue.get()
            # A task of its own: a command that was begun is finished even if the client goes meanwhile.
            self._monitor.under_way = self._qemu.later(self._request(text))
            await asyncio.shield(self._monitor.under_way)
            self._queue.task_done()

    async def _request(self, text: bytes) -> None:
        tag: dict[str, Any] = {}
        try:
            request = _parse(text)
            if "id" in request:
                tag["id"] = request["id"]
            result = await self._dispatch(request)
        except QmpError as err:
            self._answer(encoded({**tag, "error": {"class": err.cls, "desc": err.desc}}))
            return
        except Exception:
            # A fault of the fake's own: without an answer somebody would wait for his deadline, and not know why.
            traceback.print_exc()
            self._qemu.die()
            raise
        if isinstance(result, Raw):
            ending = f', "id": {json.dumps(tag["id"])}' if tag else ""
            self._answer(f'{{"return": {result}{ending}}}\r\n'.encode())
        elif result is not _HUSH:
            self._answer(encoded({"return": result, **tag}))

    async def _dispatch(self, request: Mapping[str, Any]) -> Any:
        command, arguments, oob = _check(request, oob=self._oob)
        if not self.negotiated and command != "qmp_capabilities":
            raise QmpError("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'")
        if command == "qmp_capabilities":
            return self._negotiate(arguments)
        if command not in self._commands:
            raise QmpError("CommandNotFound", f"The command {command} has not been found")
        if oob:
            raise QmpError("GenericError", f"The command {command} does not support OOB")
        if not self._qemu.machine.made and command not in EARLY and not command.startswith("x-fake-"):
            raise QmpError("GenericError", NOT_YET.format(command))
        self._qemu.record(command, arguments)
        if self._spoiled(await self._qemu.faults.meet(f"before:{command}")):
            return _HUSH
        result = self._commands[command](self._qemu, Arguments(arguments))
        if inspect.isawaitable(result):
            result = await result
        if self._spoiled(await self._qemu.faults.meet(f"after:{command}")):
            return _HUSH
        return result

    def _spoiled(self, rule: Rule | None) -> bool:
        """Do what the rule says; True if the command shall not be answered."""
        if rule is None or rule.do in ("delay", "hold"):
            return False
        if rule.do == "fail":
            raise QmpError(str(rule.params.get("class", "GenericError")), str(rule.params.get("desc", "no")))
        if rule.do == "die":
            self._qemu.die()
        if rule.do == "close":
            self.close()
        # What the real one never does; somebody who passes its answers on may.
        if rule.do == "nameless":
            self.send({"return": {}})
        if rule.do == "error":
            self.send({"error": {"class": "GenericError", "desc": str(rule.params.get("desc", "no"))}})
        if rule.do == "flood":
            self.write(b" " * int(rule.params["bytes"]) + b"\r\n")
        return True

    def _negotiate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self.negotiated:
            text = "Capabilities negotiation is already complete, command ignored"
            raise QmpError("CommandNotFound", text)
        for capability in arguments.get("enable", ()):
            if capability != "oob":
                raise QmpError("GenericError", f"Parameter 'null' does not accept value '{capability}'")
            self._oob = True
        self.negotiated = True
        return {}


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except ConnectionError:
        return b""


def _parse(text: bytes) -> Mapping[str, Any]:
    try:
        request = json.loads(text)
    except ValueError as err:
        raise QmpError("GenericError", "JSON parse error, expecting value") from err
    if not isinstance(request, dict):
        raise QmpError("GenericError", "QMP input must be a JSON object")
    return request


def _check(request: Mapping[str, Any], *, oob: bool) -> tuple[str, Mapping[str, Any], bool]:
    """qmp_dispatch_check_obj (qapi/qmp-dispatch.c)."""
    command, key = None, "execute"
    for name, value in request.items():
        if name == "execute" or (oob and name == "exec-oob"):
            if command is not None:
                raise QmpError("GenericError", f"QMP input member '{name}' clashes with '{key}'")
            if not isinstance(value, str):
                raise QmpError("GenericError", f"QMP input member '{name}' must be a string")
            command, key = value, name
        elif name == "arguments" and not isinstance(value, dict):
            raise QmpError("GenericError", "QMP input member 'arguments' must be an object")
        elif name not in ("arguments", "id"):
            raise QmpError("GenericError", f"QMP input member '{name}' is unexpected")
    if command is None:
        raise QmpError("GenericError", "QMP input lacks member 'execute'")
    return command, request.get("arguments", {}), key == "exec-oob"
