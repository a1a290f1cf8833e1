# SPDX-License-Identifier: Apache-2.0
"""One QMP session: calls with deadlines, errors in our terms, events fanned out, an end that is noticed.

qemu.qmp has no timeouts, keeps every event for ever, formats every message for a log that nobody reads, and wants
disconnect() awaited after a loss (which raises the loss again). All of that is dealt with here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

from vcpu_proto.lean import standing_in

from ..local import carried

# qemu.qmp takes SSLContext for annotations alone, and with it would come OpenSSL: a twentieth of the time of ``list``.
# A version that needs more of it gets the real one.
with contextlib.suppress(ImportError), standing_in("ssl", SSLContext=object):
    carried.find()
    import qemu.qmp.protocol  # noqa: F401

from qemu.qmp import ConnectError, EventListener, ExecInterruptedError, ExecuteError, QMPClient, Runstate, StateError
from qemu.qmp.message import Message
from qemu.qmp.qmp_client import BadReplyError, GreetingError, NegotiationError, ServerParseError

from ..core import codes
from ..core.identity import VmIdentity
from ..core.reason import Origin, Reason
from ..errors import QemuGoneError, VcpuctlError
from ..local.processes import identify, peer
from . import dial
from .events import EventHub, convert, gone
from .in_turn import InTurn
from .traps import bad_reply, explain
from .words import clean

#: How long a clean end may take before the socket is shut down under it, in seconds.
_CLOSE = 1.0

# Everything that qemu.qmp logs as an error is raised to us too, and we say it in our words: without a handler of the
# program's own it must not reach stderr by logging's last resort.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


class _Client(QMPClient):
    """qemu.qmp's client, which formats messages for its log only if somebody reads that.

    It writes together what is to be written at one time: each write wakes QEMU's main loop up, which VMs need, too. And
    it passes over what is not for it: the answer to a client that has left in the middle of a command is given
    by QEMU to the next one, before its greeting or before the answer to its negotiation (seen with 10.0 and 11.1). None
    can come later: QEMU carries out one command after the other.
    """

    def __init__(self) -> None:
        super().__init__()
        #: The negotiation's id, which it does not have by itself. Nobody else's is the same, nor is another vcpuctl's.
        self._negotiation = f"vcpuctl-{os.urandom(8).hex()}"
        self._unwritten = bytearray()

    async def _recv(self) -> Message:
        message = await super()._recv()
        while self.runstate is Runstate.CONNECTING and self._is_for_another(message):
            message = await super()._recv()
        return message

    def _is_for_another(self, message: Message) -> bool:
        answers = "return" in message or "error" in message
        return "event" in message or (answers and message.get("id") != self._negotiation)

    def _do_send(self, msg: Message) -> None:
        self._unwritten += bytes(msg)
        if self.runstate is Runstate.RUNNING and not self._outgoing.empty():
            return  # the next one comes right now
        if self._writer is None:
            raise AssertionError("qemu.qmp sends while it is connected")
        self._writer.write(bytes(self._unwritten))
        self._unwritten.clear()

    def _cb_outbound(self, msg: Message) -> Message:
        if self.runstate is Runstate.CONNECTING:
            msg["id"] = self._negotiation
        return super()._cb_outbound(msg) if self.logger.isEnabledFor(logging.DEBUG) else msg

    def _cb_inbound(self, msg: Message) -> Message:
        return super()._cb_inbound(msg) if self.logger.isEnabledFor(logging.DEBUG) else msg


class _Inbox(EventListener):
    """Passes events on as they come, instead of keeping them."""

    def __init__(self, hub: EventHub) -> None:
        super().__init__()
        self._hub = hub

    async def put(self, event: Message) -> None:
        converted = convert(event, self._hub.paths)
        if converted is not None:
            self._hub.put(converted)


class SocketMonitor:
    """A session that was established (the role ``roles.Monitor``); make one with :meth:`connect`."""

    def __init__(self, client: QMPClient, sock: socket.socket, path: str, call_timeout: float, hub: EventHub) -> None:
        self._client = client
        self._sock = sock
        self._path = path
        self._in_turn = InTurn(call_timeout)
        self._hub = hub
        self._lost: str | None = None
        self._closing = False
        self._ending: asyncio.Task[None] | None = None
        self._watching = asyncio.create_task(self._watch())
        self._listener = peer(sock)

    @classmethod
    async def connect(cls, path: str, hub: EventHub, *, timeout: float, call_timeout: float) -> SocketMonitor:
        """Dial, read the greeting, negotiate. Times are in seconds; errors are those of ``dial``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        sock = await dial.open_monitor(path, timeout)
        client = _Client()
        client.events.event_filter = lambda _event: False  # it would keep them for ever
        client.register_listener(_Inbox(hub))
        try:
            async with asyncio.timeout_at(deadline):
                await client.connect(sock)
        except TimeoutError as err:
            raise dial.not_qmp(path, f"its greeting did not end within {timeout:g} s") from err
        except ConnectError as err:
            raise _connect_error(path, err) from err
        return cls(client, sock, path, call_timeout, hub)

    @property
    def qemu_version(self) -> object:
        """What the greeting says of the version: the same as query-version, and nothing has to be asked for it."""
        greeting = self._client.greeting
        return greeting.QMP.version.get("qemu") if greeting else None

    async def call(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Return QEMU's answer.

        Raise QemuError, or QemuGoneError if there is none: then it is not known what was done.
        """
        call = 0
        try:
            async with self._in_turn.bound() as call:
                answer = await self._client.execute(command, arguments)
                self._in_turn.answered(call)
                return answer
        except TimeoutError as err:
            raise self._silent(command, call) from err
        except ExecuteError as err:
            self._in_turn.answered(call)
            raise explain(command, err.error_class, str(err)) from err
        except BadReplyError as err:
            raise bad_reply(command, err.error_message) from err
        except (ExecInterruptedError, StateError) as err:
            await self._end()
            raise dial.gone(self._path, f"{self._lost or 'connection lost'} ({command})") from err

    def _silent(self, command: str, call: int) -> QemuGoneError:
        """Return the error that QEMU has left a call unanswered for too long."""
        text = f"no answer to {command} within {self._in_turn.seconds:g} s; it may still be carried out"
        hint = "see whether QEMU's process is stopped or overloaded, then look again with vcpuctl list"
        if self._in_turn.passed_by(call):
            text = f"no answer to {command} that names it, but answers to what was asked later: it may have been done"
            hint = "see what stands between vcpuctl and QEMU's monitor, then look again with vcpuctl list"
        return QemuGoneError(Reason(codes.QEMU_SILENT, Origin.QEMU, text, hint))

    def identify(self, thread_id: int | None) -> VmIdentity:
        """Return which QEMU this is: by who listens on the socket, and by a thread of QEMU's."""
        return identify(self._listener, thread_id, self._path)

    async def close(self) -> None:
        """End the session: never hang, never raise; may be repeated."""
        self._closing = True
        await self._end()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Notice the end of the connection even if nobody asks anything."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        await self._end()

    async def _end(self) -> None:
        # Two disconnect() at once trip over each other, hence one task for whoever comes first.
        if self._ending is None:
            self._ending = asyncio.create_task(self._disconnect())
        await asyncio.shield(self._ending)

    async def _disconnect(self) -> None:
        ending = asyncio.create_task(self._client.disconnect())
        done, _ = await asyncio.wait({ending}, timeout=_CLOSE)
        if not done:
            # It waits for QEMU to take what was written; a QEMU that is stopped never does.
            with contextlib.suppress(OSError):  # closed meanwhile
                self._sock.shutdown(socket.SHUT_RDWR)
        (result,) = await asyncio.gather(ending, return_exceptions=True)
        if self._closing:
            self._lost = "the connection was closed"
        elif isinstance(result, OSError) and result.strerror:
            self._lost = f"connection lost: {clean(result.strerror)}"
        elif isinstance(result, EOFError) or result is None:
            self._lost = "QEMU ended, or closed the connection"
        elif isinstance(result, ServerParseError):
            self._lost = f"it answered with an error to no command in particular: {clean(result.msg.get('error'))}"
        elif isinstance(result, ValueError):  # of the stream's limit, which qemu.qmp sets to that
            self._lost = "it sent a line of more than 10 MiB"
        else:
            self._lost = f"connection lost: {clean(result) or type(result).__name__}"
        self._hub.put(gone(self._lost))


def _connect_error(path: str, err: ConnectError) -> VcpuctlError:
    cause = err.exc
    if isinstance(cause, GreetingError):
        return dial.not_qmp(path, "its greeting is not that of QMP")
    if isinstance(cause, NegotiationError):
        return dial.not_qmp(path, f"it refused to negotiate: {clean(cause)}")
    if isinstance(cause, ValueError):
        return dial.not_qmp(path, "its greeting is endless")
    return dial.gone(path, f"connection lost during the greeting: {clean(cause) or type(cause).__name__}")
