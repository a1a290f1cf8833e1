# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl agent-proxy``: the agent's gRPC service on a unix socket of the host, for clients in any language.

A real gRPC server that passes messages on unread: many clients can use it at once, over the port's one session, and it
outlives the agent's restarts.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_host.errors import VcpuctlError
from vcpu_host.local.unix_sockets import bad_socket, make_way
from vcpu_host.ports import GuestAgent

from .client import LinkAgent

_SERVICE = pb.DESCRIPTOR.services_by_name["GuestAgent"]
#: Path of each method -> what streams of it: requests, answers. (Descriptors of protobuf 3.21 do not say.)
_STREAMS = {
    f"/{_SERVICE.full_name}/{name}": kind
    for name, kind in {
        "Hello": (False, False),
        "ListCpus": (False, False),
        "Watch": (False, True),
        "SetOnline": (False, True),
        "Control": (True, True),
    }.items()
}

Connect = Callable[[], Awaitable[GuestAgent]]
if TYPE_CHECKING:  # grpcio's classes take no parameters, their stubs' do
    _Context = grpc.aio.ServicerContext[bytes, bytes]
    _Handler = grpc.RpcMethodHandler[bytes, bytes]
    _Generic = grpc.GenericRpcHandler[bytes, bytes]
else:
    _Generic = grpc.GenericRpcHandler


def _identity(message: bytes) -> bytes:
    return message


class _Forwarder(_Generic):
    """Serves vcpu.v1.GuestAgent by asking the agent itself."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    def service(self, details: grpc.HandlerCallDetails) -> _Handler | None:
        """The handler of one method, or None for methods that the contract does not have."""
        method = details.method
        if method not in _STREAMS:
            return None
        if _STREAMS[method] == (True, True):

            async def both(requests: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
                agent = await self._agent(context)
                call = agent.channel.stream_stream(method, _identity, _identity)(requests, timeout=_left(context))
                async for answer in _answers(call, context):
                    yield answer

            return grpc.stream_stream_rpc_method_handler(both, _identity, _identity)
        if _STREAMS[method] == (False, True):

            async def stream(request: bytes, context: _Context) -> AsyncIterator[bytes]:
                agent = await self._agent(context)
                call = agent.channel.unary_stream(method, _identity, _identity)(request, timeout=_left(context))
                async for answer in _answers(call, context):
                    yield answer

            return grpc.unary_stream_rpc_method_handler(stream, _identity, _identity)

        async def unary(request: bytes, context: _Context) -> bytes:
            agent = await self._agent(context)
            try:
                answer: bytes = await agent.channel.unary_unary(method, _identity, _identity)(
                    request, timeout=_left(context)
                )
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
                raise AssertionError("abort() raises") from error
            return answer

        return grpc.unary_unary_rpc_method_handler(unary, _identity, _identity)

    async def _agent(self, context: _Context) -> LinkAgent:
        try:
            agent = await self._connect()
            if not isinstance(agent, LinkAgent):
                raise TypeError("a proxy needs a session that speaks gRPC")
            return agent
        except VcpuctlError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise AssertionError("abort() raises") from error


async def _answers(call: Any, context: _Context) -> AsyncIterator[bytes]:
    """What the agent answers, and how it ends."""
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as error:
        await context.abort(error.code(), error.details() or "")
    finally:
        call.cancel()


def _left(context: _Context) -> float | None:
    left: float | None = context.time_remaining()  # grpc-stubs leave the None out
    return left


async def serve(connect: Connect, path: str, stop: asyncio.Event) -> None:
    """Serve on the unix socket ``path`` (made with mode 0600, removed at the end) until ``stop`` is set.

    Raises UsageError if something other than a left-over socket is at ``path``, or nothing can be made there.
    """
    make_way(path)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Forwarder(connect),))
    before = os.umask(0o177)
    try:
        _check_place(path)
        try:
            bound = server.add_insecure_port(f"unix:{path}") != 0
        except RuntimeError:  # so newer gRPC says it (grpc/_common.py, validate_port_binding_result)
            bound = False
        if not bound:
            raise bad_socket(f"cannot listen on {path}")
        await server.start()
    finally:
        os.umask(before)
    try:
        await stop.wait()
    finally:
        await server.stop(0.5)
        with suppress(FileNotFoundError):
            os.unlink(path)


def _check_place(path: str) -> None:
    """Raise UsageError if no socket can be made at ``path``. gRPC would not say why, but write a line to stderr."""
    if not path:  # Linux would choose an abstract name (unix(7), autobind)
        raise bad_socket("'' is no path of a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(path)
        except OSError as error:
            raise bad_socket(f"cannot listen on {path}: {error.strerror or error}") from error
    os.unlink(path)
