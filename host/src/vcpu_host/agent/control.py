# SPDX-License-Identifier: Apache-2.0
"""The session's Control stream: many requests, side by side, each with its own answers and its own deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

import grpc.aio
from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import AgentGoneError, VcpuctlError

from .bounds import BadMessageError, parse
from .status import AGENT_SLOW_HINT, bad_message, failed, of_rpc, rejected

if TYPE_CHECKING:
    _Call = grpc.aio.StreamStreamCall[pb.ControlRequest, bytes]


#: Bytes; one CPU's part of an answer is smaller: a few strings, of 1024 bytes at most.
MAX_PART = 8 * 1024


class _Asked:
    """A request under way. The guest is not trusted: what is kept of its answers is bounded in number and size."""

    def __init__(self, kind: str, cpus: int) -> None:
        self._kind = kind
        self._parts_left = 2 * cpus  # an arrival and a result each
        self._wholes_left = 1  # the list, the snapshot that comes last, or what programs do
        self._ended = False
        self.answers: asyncio.Queue[pb.ControlAnswer | AgentGoneError] = asyncio.Queue()

    def deliver(self, answer: pb.ControlAnswer, kind: str) -> None:
        """Keep an answer. Raise BadMessageError if there can be no such one."""
        if self._ended or kind not in (self._kind, "ended"):
            raise BadMessageError("an answer that this request cannot have")
        if kind == "ended":
            self._ended = True
        elif kind != "set_online" or answer.set_online.WhichOneof("answer") == "final":
            self._wholes_left -= 1
        elif answer.ByteSize() > MAX_PART:
            raise BadMessageError(f"more than {MAX_PART} bytes about one CPU")
        else:
            self._parts_left -= 1
        if min(self._wholes_left, self._parts_left) < 0:
            raise BadMessageError("more answers than there can be")
        self.answers.put_nowait(answer)


class Control:
    """Begun with the stream; ``close`` ends it, and with it all that is under way.

    ``why`` is asked for a better reason when the stream has ended.
    """

    def __init__(self, call: _Call, why: Callable[[AgentGoneError], Awaitable[AgentGoneError]]) -> None:
        self._call = call
        self._why = why
        self._asked: dict[str, _Asked] = {}
        self._broken: AgentGoneError | None = None
        self._outgoing: asyncio.Queue[pb.ControlRequest] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._read()), loop.create_task(self._write()))

    @property
    def broken(self) -> AgentGoneError | None:
        """Why nothing can be asked any more, or None."""
        return self._broken

    async def ask(
        self, request: pb.ControlRequest, request_id: str, *, timeout: float
    ) -> AsyncGenerator[pb.ControlAnswer, None]:
        """Yield the answers to one request, until it has ended. ``timeout`` (seconds) is for all of it.

        Raise AgentGoneError if the stream is lost. If the session is still good it is VcpuctlError: "agent-rejected",
        "agent-failed" or "agent-slow". Ending it early gives the request up.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        kind = str(request.WhichOneof("request"))
        asked = self._asked[request_id] = _Asked(kind, len(request.set_online.firmware_ids))
        ended = False
        try:
            self._send(request)
            while True:
                async with asyncio.timeout_at(deadline):
                    answer = await asked.answers.get()
                if isinstance(answer, AgentGoneError):
                    raise answer
                if answer.WhichOneof("answer") == "ended":
                    ended = True
                    if answer.ended.rejected:
                        raise rejected(answer.ended.rejected)
                    if answer.ended.failed:
                        raise failed(answer.ended.failed)
                    return
                yield answer
        except TimeoutError as error:
            text = f"no answer from the guest agent within {timeout:g} s"
            raise VcpuctlError(Reason(codes.AGENT_SLOW, Origin.AGENT, text, AGENT_SLOW_HINT)) from error
        finally:
            del self._asked[request_id]
            if not ended and self._broken is None:
                self._send(pb.ControlRequest(cancel=request_id))

    async def ask_once(self, request: pb.ControlRequest, request_id: str, *, timeout: float) -> pb.ControlAnswer:
        """Return the answer to a request that has but one; an empty one if none came before its end. See ``ask``."""
        answers = [answer async for answer in self.ask(request, request_id, timeout=timeout)]
        return answers[0] if answers else pb.ControlAnswer()

    async def close(self) -> None:
        """End the stream."""
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self, request: pb.ControlRequest) -> None:
        if self._broken is not None:
            raise self._broken
        self._outgoing.put_nowait(request)

    async def _write(self) -> None:
        """Write all requests: no requester cancels this one writer.

        gRPC ends the whole call if a write is cancelled.
        """
        try:
            while True:
                await self._call.write(await self._outgoing.get())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reader learns why the stream ended
        finally:
            self._call.cancel()

    async def _read(self) -> None:
        try:
            async for message in self._call:
                for answer in parse(pb.ControlResponse, message).answers:
                    self._deliver(answer)
            self._break(await self._why(_lost("the agent ended the stream")))
        except grpc.aio.AioRpcError as error:
            # Whatever its status: a call that ends so may leave the session good, this one is all of the session.
            self._break(await self._why(AgentGoneError(of_rpc(error).reason)))
        except BadMessageError as error:
            self._break(bad_message(str(error)))
        finally:
            # Cancelled, by close() or with its channel, or by a mistake of ours: nobody is to wait for an answer.
            self._break(self._broken or _lost("the stream was closed"))
            self._call.cancel()

    def _deliver(self, answer: pb.ControlAnswer) -> None:
        kind = answer.WhichOneof("answer")
        if kind is None:
            raise BadMessageError("an empty answer")
        asked = self._asked.get(getattr(answer, kind).request_id)
        if asked is not None:  # answers to one that was given up may still be on their way
            asked.deliver(answer, str(kind))

    def _break(self, error: AgentGoneError) -> None:
        if self._broken is not None:
            return
        self._broken = error
        for asked in self._asked.values():
            asked.answers.put_nowait(error)


def _lost(text: str) -> AgentGoneError:
    return AgentGoneError(Reason(codes.AGENT_LOST, Origin.AGENT, text))
