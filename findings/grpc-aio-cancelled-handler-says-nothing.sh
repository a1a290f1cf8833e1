#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# gRPC (Python's grpcio), asyncio: a server that passes calls on asks another server over a channel. That channel is
# closed while a call is under way on it (Channel.close() without a grace period). An expert expects the handler to get
# an RpcError, or whatever it raises to end the caller's call at once, as any other exception does (status UNKNOWN).
#
# What happens in grpcio 1.85: the call on the closed channel raises asyncio.CancelledError in the handler, which nobody
# has cancelled. A handler that ends by that sends no status at all, and its own caller waits until its deadline, here
# two seconds. It is the same for a call with one answer and for one that streams answers.
#
# Why it matters: vcpuctl agent-proxy closes its channel when the VM goes from one process to another. Clients that asked
# at that moment waited for their deadlines. Now the handler tells the two apart (asyncio.Task.cancelling()), and
# answers UNAVAILABLE: agent/proxy.py, tests/component/test_sharing.py.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

pip_packages grpcio==1.85.3
run_python <<'PYTHON'
import asyncio
import os
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from qmp import WORK, Verdict

DEADLINE = 2.0
verdict = Verdict()
behind, before = (os.path.join(WORK, name) for name in ("behind", "before"))


class Behind(grpc.GenericRpcHandler):
    """Answers nothing, and says that it was asked."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def unary(request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
            self.asked.set()
            await asyncio.sleep(60)
            return request

        async def stream(request: bytes, _context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            self.asked.set()
            await asyncio.sleep(60)
            yield request

        if details.method.endswith("Stream"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


class Before(grpc.GenericRpcHandler):
    """Passes calls on."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.raised = ""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def unary(request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
            try:
                return await self._channel.unary_unary(details.method)(request)
            except BaseException as error:
                cancelled = asyncio.current_task().cancelling()
                self.raised = f"{type(error).__name__}, cancelled {cancelled} times"
                raise

        async def stream(request: bytes, _context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            try:
                async for answer in self._channel.unary_stream(details.method)(request):
                    yield answer
            except BaseException as error:
                cancelled = asyncio.current_task().cancelling()
                self.raised = f"{type(error).__name__}, cancelled {cancelled} times"
                raise

        if details.method.endswith("Stream"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


async def fate(method: str) -> tuple[str, str, bool]:
    """What the handler in between got, how the caller's call ended, and whether that took until its deadline."""
    servers = grpc.aio.server(), grpc.aio.server()
    last = Behind()
    channel = grpc.aio.insecure_channel(f"unix:{behind}{method[1:2]}{id(last)}")
    between = Before(channel)
    for server, handler, path in zip(servers, (last, between), (behind, before), strict=True):
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"unix:{path}{method[1:2]}{id(last)}")
        await server.start()
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(f"unix:{before}{method[1:2]}{id(last)}") as client:
        if method.endswith("Stream"):
            call = client.unary_stream(method)(b"", timeout=DEADLINE)
        else:
            call = client.unary_unary(method)(b"", timeout=DEADLINE)
        began = loop.time()
        waiting = asyncio.ensure_future(call.code())
        await last.asked.wait()
        await channel.close(None)
        code = await waiting
        took = loop.time() - began
    for server in servers:
        await server.stop(None)
    return between.raised, code.name, took >= 0.9 * DEADLINE


verdict.saw("grpcio", grpc.__version__, "1.85.3")
expected = ("CancelledError, cancelled 0 times", "DEADLINE_EXCEEDED", True)
verdict.saw("a unary call whose channel is closed", asyncio.run(fate("/finding/Unary")), expected)
verdict.saw("one that streams answers", asyncio.run(fate("/finding/Stream")), expected)
verdict.end()
PYTHON
