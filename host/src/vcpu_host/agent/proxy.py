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
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import AgentGoneError, RefusedError, VcpuctlError
from vcpu_host.local.unix_sockets import bad_socket, make_way
from vcpu_host.ports import GuestAgent

from .client import OPTIONS, LinkAgent

_SERVICE = pb.DESCRIPTOR.services_by_name["GuestAgent"]
#: Path of each method -> what streams of it: requests, answers. (Descriptors of protobuf 3.21 do not say.)
_STREAMS = {
    f"/{_SERVICE.full_name}/{name}": kind
    for name, kind in {
        "Hello": (False, False),
        "ListCpus": (False, False),
        "Workload": (False, False),
        "Watch": (False, True),
        "WatchLoad": (False, True),
        "SetOnline": (False, True),
        "Control": (True, True),
    }.items()
}

#: Those that change the guest.
_CHANGES = {f"/{_SERVICE.full_name}/{name}" for name in ("SetOnline", "Control")}
#: How long a client's call waits for the VM to be held by somebody, in seconds.
_PATIENCE = 5.0

Connect = Callable[[], Awaitable[GuestAgent]]
#: For as long as a client changes the guest. It may raise an error.
Changing = Callable[[], AbstractContextManager[None]]
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

    def __init__(self, channel: Callable[[], Awaitable[grpc.aio.Channel]], changing: Changing) -> None:
        self._channel = channel
        self._changing = changing

    def service(self, details: grpc.HandlerCallDetails) -> _Handler | None:
        """Return the handler of one method, or None for methods that the contract does not have."""
        method = details.method
        if method not in _STREAMS:
            return None
        if _STREAMS[method] == (True, True):

            async def both(requests: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
                async with self._upstream(context, method) as channel:
                    call = channel.stream_stream(method, _identity, _identity)(requests, timeout=_left(context))
                    async for answer in _answers(call, context):
                        yield answer

            return grpc.stream_stream_rpc_method_handler(both, _identity, _identity)
        if _STREAMS[method] == (False, True):

            async def stream(request: bytes, context: _Context) -> AsyncIterator[bytes]:
                async with self._upstream(context, method) as channel:
                    call = channel.unary_stream(method, _identity, _identity)(request, timeout=_left(context))
                    async for answer in _answers(call, context):
                        yield answer

            return grpc.unary_stream_rpc_method_handler(stream, _identity, _identity)

        async def unary(request: bytes, context: _Context) -> bytes:
            async with self._upstream(context, method) as channel:
                try:
                    answer: bytes = await channel.unary_unary(method, _identity, _identity)(
                        request, timeout=_left(context)
                    )
                except grpc.aio.AioRpcError as error:
                    await context.abort(error.code(), error.details() or "")
                    raise AssertionError("abort() raises") from error
                except asyncio.CancelledError:
                    await _cut_off(context)
                    raise
                return answer

        return grpc.unary_unary_rpc_method_handler(unary, _identity, _identity)

    @asynccontextmanager
    async def _upstream(self, context: _Context, method: str) -> AsyncIterator[grpc.aio.Channel]:
        """Yield where to pass a call on to, for as long as it lasts."""
        try:
            with self._changing() if method in _CHANGES else nullcontext():
                yield await self._channel()
        except RefusedError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except VcpuctlError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


async def _answers(call: Any, context: _Context) -> AsyncIterator[bytes]:
    """Yield what the agent answers, and how it ends."""
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as error:
        await context.abort(error.code(), error.details() or "")
    except asyncio.CancelledError:
        await _cut_off(context)
        raise
    finally:
        call.cancel()


async def _cut_off(context: _Context) -> None:
    """End a call whose channel was closed under it. Its client is told; one that has cancelled the call is not.

    (grpc.aio raises CancelledError for both. A handler that ends by it sends no status, and its client would wait.)
    """
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the VM has gone from one process to another; try again")


def _left(context: _Context) -> float | None:
    left: float | None = context.time_remaining()  # grpc-stubs leave the None out
    return left


def _of_session(connect: Connect) -> Callable[[], Awaitable[grpc.aio.Channel]]:
    async def channel() -> grpc.aio.Channel:
        agent = await connect()
        if not isinstance(agent, LinkAgent):
            raise TypeError("a proxy needs a session that speaks gRPC")
        return agent.channel

    return channel


class Upstream:
    """Another process's socket with the same service, which may come, go and be another one."""

    def __init__(self) -> None:
        self._there = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None

    async def is_at(self, path: str | None) -> None:
        """Take where it is now; None: nowhere, and calls wait until it is somewhere."""
        old, self._channel = self._channel, None
        self._there.clear()
        if old is not None:
            await old.close(None)
        if path is not None:
            self._channel = grpc.aio.insecure_channel(f"unix:{path}", options=OPTIONS)
            self._there.set()

    async def channel(self) -> grpc.aio.Channel:
        """Return the channel there. Raise AgentGoneError if it is nowhere for some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._there.wait()
        if self._channel is None:
            text = "no process holds the VM at this moment"
            raise AgentGoneError(Reason(codes.AGENT_LOST, Origin.VCPUCTL, text, "try again"))
        return self._channel


async def serve(
    connect: Connect | Upstream,
    path: str,
    stop: asyncio.Event,
    *,
    changing: Changing = nullcontext,
    up: asyncio.Event | None = None,
) -> None:
    """Serve on the unix socket ``path`` (made with mode 0600, removed at the end) until ``stop`` is set.

    ``changing`` is entered for as long as a client changes the guest; ``up`` is set when the socket is there. Raise
    UsageError if something other than a left-over socket is at ``path``, or nothing can be made there.
    """
    make_way(path)
    server = grpc.aio.server()
    channel = connect.channel if isinstance(connect, Upstream) else _of_session(connect)
    server.add_generic_rpc_handlers((_Forwarder(channel, changing),))
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
    if up is not None:
        up.set()
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
