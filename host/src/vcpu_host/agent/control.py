# SPDX-License-Identifier: Apache-2.0
"""The session's Control stream: many requests, side by side, each with its own answers and its own deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc.aio
from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_host.core.model import AGENT_LOST, Reason, Who
from vcpu_host.errors import AgentGoneError, VcpuctlError

from .convert import BadMessageError, whole
from .status import AGENT_SLOW_HINT, bad_message, of_rpc, rejected

if TYPE_CHECKING:
    _Call = grpc.aio.StreamStreamCall[pb.ControlRequest, pb.ControlResponse]


class _Asked:
    """A request under way. The guest is not trusted: ``left`` bounds how much of its answers is ever kept."""

    def __init__(self, most: int) -> None:
        self.left = most + 1  # and its end
        self.answers: asyncio.Queue[pb.ControlAnswer | VcpuctlError] = asyncio.Queue()


class Control:
    """Begun with the stream; ``close`` ends it, and with it all that is under way."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._asked: dict[str, _Asked] = {}
        self._broken: VcpuctlError | None = None
        self._writing = asyncio.Lock()  # gRPC takes one message at a time
        self._cancels: set[asyncio.Task[Any]] = set()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def ask(
        self, request: pb.ControlRequest, request_id: str, *, most: int, timeout: float
    ) -> AsyncGenerator[pb.ControlAnswer, None]:
        """The answers to one request, at ``most`` so many, until it has ended. ``timeout`` (seconds) is for all of it.

        Raises AgentGoneError if the stream is lost, VcpuctlError "agent-rejected" or "agent-slow" if the session is
        still good. Ending it early gives the request up.
        """
        asked = self._asked[request_id] = _Asked(most)
        ended = False
        try:
            async with asyncio.timeout(timeout) as limit:
                await self._send(request)
                deadline = limit.when()
            while True:
                async with asyncio.timeout_at(deadline):
                    answer = await asked.answers.get()
                if isinstance(answer, VcpuctlError):
                    ended = True
                    raise answer
                if answer.WhichOneof("answer") == "ended":
                    ended = True
                    if answer.ended.rejected:
                        raise rejected(answer.ended.rejected)
                    return
                yield answer
        except TimeoutError as error:
            text = f"no answer from the guest agent within {timeout:g} s"
            raise VcpuctlError(Reason("agent-slow", Who.AGENT, text, AGENT_SLOW_HINT)) from error
        finally:
            del self._asked[request_id]
            if not ended and self._broken is None:
                task = asyncio.get_running_loop().create_task(self._cancel(request_id))
                self._cancels.add(task)
                task.add_done_callback(self._cancels.discard)

    async def close(self) -> None:
        """End the stream."""
        self._call.cancel()
        for task in self._cancels:
            task.cancel()
        await asyncio.gather(self._reading, *self._cancels, return_exceptions=True)

    async def _send(self, request: pb.ControlRequest) -> None:
        async with self._writing:
            if self._broken is not None:
                raise self._broken
            try:
                await self._call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await asyncio.shield(self._reading)
                raise self._why() from None

    def _why(self) -> VcpuctlError:
        """What the reader learnt of the stream's end."""
        return self._broken or _lost("the stream ended")

    async def _cancel(self, request_id: str) -> None:
        with suppress(VcpuctlError):  # the request ended with the stream
            await self._send(pb.ControlRequest(cancel=request_id))

    async def _read(self) -> None:
        try:
            async for message in self._call:
                for answer in whole(message).answers:
                    self._deliver(answer)
            self._break(_lost("the agent ended the stream"))
        except grpc.aio.AioRpcError as error:
            self._break(of_rpc(error))
        except BadMessageError as error:
            self._break(bad_message(str(error)))
            self._call.cancel()
        except asyncio.CancelledError:
            # gRPC raises it for a stream that was cancelled, by close() or with its channel.
            self._break(_lost("the stream was closed"))

    def _deliver(self, answer: pb.ControlAnswer) -> None:
        kind = answer.WhichOneof("answer")
        if kind is None:
            raise BadMessageError("an empty answer")
        asked = self._asked.get(getattr(answer, kind).request_id)
        if asked is None:
            return  # answers to one that was given up may still be on their way
        asked.left -= 1
        if asked.left < 0:
            raise BadMessageError("more answers than there can be")
        asked.answers.put_nowait(answer)

    def _break(self, error: VcpuctlError) -> None:
        self._broken = error
        for asked in self._asked.values():
            asked.answers.put_nowait(error)


def _lost(text: str) -> AgentGoneError:
    return AgentGoneError(Reason(AGENT_LOST, Who.AGENT, text))
