# SPDX-License-Identifier: Apache-2.0
"""vcpu.host.v1.Host: the service for programs in any language. Each user that comes has a server of its own.

gRPC does not tell who calls over a unix socket. So the door asks the kernel, and passes each user on to a private
socket; the calls that come by it are that user's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from vcpu_proto.host.v1 import host_pb2 as pb
from vcpu_proto.host.v1 import host_pb2_grpc

from ..core import codes
from ..core.planning.plan import FLAGS
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..documents import Document
from ..errors import UnreachableError, UsageError, VcpuctlError
from ..local import directory
from ..sharing import fault
from ..sharing.calls import Call, Kind
from ..sharing.shown import once
from ..sharing.unread import Unread
from ..sharing.wire import Message
from .door import Connections
from .keeper import Keeper

if TYPE_CHECKING:  # grpcio's classes take no parameters, their stubs' do
    _Context = grpc.aio.ServicerContext[Any, Any]

#: So many users' servers there are at most; each costs some hundred kilobytes.
_USERS = 32
#: So many calls of one user are answered at once: those of a few greedy clients, and others beside them.
_CALLS = 256
#: Seconds in which a server that is stopped may finish what it has begun to answer.
_GRACE = 0.5
_OPTIONS = [
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.max_concurrent_streams", 16),
    # What came compressed stays so, and is no message then: a few bytes of it could stand for gigabytes.
    ("grpc.per_message_decompression", 0),
    # What a client may leave unread before it is waited for, in bytes.
    ("grpc.http2.write_buffer_size", 16 << 10),
]
#: Calls whose answers are bytes already, which many may share. On the wire an answer is a stream of one message.
_IN_BYTES: dict[str, Any] = {
    "List": pb.ListRequest,
    "Doctor": pb.DoctorRequest,
    "Plan": pb.PlanRequest,
    "Watch": pb.WatchRequest,
}
_OPERATIONS = {
    number: name.removeprefix("OPERATION_").lower() for name, number in pb.Order.Operation.items() if number != 0
}


class _Host(host_pb2_grpc.HostServicer):
    """The service as one user has it."""

    def __init__(self, keeper: Keeper, uid: int, unread: Unread, connections: Connections) -> None:
        self._keeper = keeper
        self._uid = uid
        self._unread = unread
        self._connections = connections

    def serve(self, server: grpc.aio.Server) -> None:
        """Have the server answer by this. The first handler that knows a call gets it."""
        in_bytes = {
            name: grpc.unary_stream_rpc_method_handler(getattr(self, name), request_deserializer=request.FromString)
            for name, request in _IN_BYTES.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("vcpu.host.v1.Host", in_bytes),))
        host_pb2_grpc.add_HostServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    async def ListVms(self, request: pb.ListVmsRequest, context: _Context) -> pb.ListVmsResponse:  # noqa: N802
        """See host.proto."""
        del request
        async with _answering(context, "ListVms"):
            vms = [
                pb.Vm(name=printable(kept.name), held=kept.held is not None, trouble=_utf_8(str(kept.trouble or "")))
                for kept in self._keeper.vms
            ]
            broken = sorted(self._keeper.broken.items())
            vms += [pb.Vm(name=printable(name), trouble=_utf_8(str(reason))) for name, reason in broken]
        return pb.ListVmsResponse(vms=vms)

    async def List(self, request: pb.ListRequest, context: _Context) -> None:  # noqa: N802
        """See host.proto."""
        await self._question(request.vm, Call(Kind.LIST), context)

    async def Doctor(self, request: pb.DoctorRequest, context: _Context) -> None:  # noqa: N802
        """See host.proto."""
        await self._question(request.vm, Call(Kind.DOCTOR), context)

    async def Plan(self, request: pb.PlanRequest, context: _Context) -> None:  # noqa: N802
        """See host.proto."""
        async with _answering(context, request.vm):
            call = _call(Kind.PLAN, request.order)
        await self._question(request.vm, call, context)

    async def Watch(self, request: pb.WatchRequest, context: _Context) -> None:  # noqa: N802
        """See host.proto."""
        newest = _Newest("view")
        async with _answering(context, request.vm):
            kept = self._keeper.named(request.vm)
            async with _at_work(kept.asked().answer(Call(Kind.WATCH), newest.say)) as working:
                while await newest.said_before_end_of(working):
                    size = len(await _bytes(newest.message["view"]))
                    async with self._unread.room(self._uid, size, self._cutting(context)):
                        # Nothing but the bytes is held while they are not taken: there may be many views by then.
                        await context.write(await _bytes(newest.take()["view"]))

    async def Apply(self, request: pb.ApplyRequest, context: _Context) -> None:  # noqa: N802
        """See host.proto."""
        newest = _Newest("progress")
        async with _answering(context, request.vm, changes=True):
            kept = self._keeper.named(request.vm)
            call = _call(Kind.RUN, request.order, request.timeout)
            asked = kept.asked()
            work = asyncio.ensure_future(asked.answer(call._replace(for_uid=self._uid), newest.say))
            try:
                while await newest.said_before_end_of(work):
                    settled, slots, words = newest.take()["progress"]
                    progress = pb.Progress(settled_slots=settled, slots=slots, words=words)
                    await context.write(pb.ApplyResponse(progress=progress))
                result = await asyncio.to_thread(_struct, work.result())
                await context.write(pb.ApplyResponse(result=result))
            finally:
                if not work.done():
                    asked.interrupt()
                    with suppress(VcpuctlError):
                        await work

    async def _question(self, name: str, call: Call, context: _Context) -> None:
        async with _answering(context, name):
            answer = await _bytes(await self._keeper.named(name).asked().answer(call, lambda message: None))
            async with self._unread.room(self._uid, len(answer), self._cutting(context)):
                await context.write(answer)

    def _cutting(self, context: _Context) -> Callable[[], object]:
        """Return what ends the connection of a client that does not take what it is sent.

        gRPC could end the call alone, but it keeps what the call has sent until the client takes that.
        """
        return self._connections.get(context.peer(), lambda: None)


class _Newest:
    """The newest message of one kind, until it is taken."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._said = asyncio.Event()
        self.message: Message = {}

    def say(self, message: Message) -> None:
        """Hear of it."""
        if self._kind in message:
            self.message = message
            self._said.set()

    def take(self) -> Message:
        """Return it, once."""
        message, self.message = self.message, {}
        self._said.clear()
        return message

    async def said_before_end_of(self, work: asyncio.Future[Any]) -> bool:
        """Wait for a message; return False if the work has ended and nothing is left. Raise its error."""
        said = asyncio.ensure_future(self._said.wait())
        try:
            await asyncio.wait({work, said}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            said.cancel()
            await asyncio.gather(said, return_exceptions=True)
        if not self._said.is_set():
            work.result()
        return self._said.is_set()


@asynccontextmanager
async def _at_work(work: Coroutine[Any, Any, Document]) -> AsyncIterator[asyncio.Future[Document]]:
    """Have the work go on meanwhile, and no longer."""
    working = asyncio.ensure_future(work)
    try:
        yield working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _bytes(document: Document) -> bytes:
    """Return what a document is sent as.

    It takes long: so beside the loop, and once for all that are shown the same.
    """
    return await asyncio.shield(once(document, _serializing))


def _serializing(document: Document) -> asyncio.Future[bytes]:
    return asyncio.ensure_future(asyncio.to_thread(_serialized, document))


def _serialized(document: Document) -> bytes:
    # The answers to List, Plan, Doctor and Watch are one message by four names: the document is field 1 of each.
    serialized: bytes = pb.WatchResponse(document=_struct(document)).SerializeToString()
    return serialized


def _struct(document: Document) -> Struct:
    struct: Struct
    try:
        struct = ParseDict(document, Struct())
    except UnicodeEncodeError:  # names of files need not be UTF-8, and what gRPC carries has to be
        struct = ParseDict(json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace")), Struct())
    return struct


def _utf_8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _call(kind: Kind, order: pb.Order, timeout: float = 0.0) -> Call:
    """Return the call that is ordered. Raise UsageError, in the words of ``Call.from_json``."""
    request: dict[str, Any] = {
        "operation": _OPERATIONS.get(order.operation, "unspecified"),
        "slots": list(order.slots),
        **{name: getattr(order, name) for name in FLAGS},
    }
    for name in ("count", "node"):
        if order.HasField(name):
            request[name] = getattr(order, name)
    if order.policy:
        request["policy"] = order.policy
    if order.workload:
        request["workload"] = order.workload
    if not order.slots and "count" not in request:
        if request["operation"] not in ("plug", "unplug"):
            text = f"{request['operation']} needs a count or slots"
            raise UsageError(Reason(codes.BAD_USAGE, Origin.VCPUCTL, text, "see host.proto"))
        request["count"] = 1
    message = {"call": str(kind), "request": request, "timeout": timeout or None, "steps": True}
    return Call.from_json(message)


@asynccontextmanager
async def _answering(context: _Context, name: str, *, changes: bool = False) -> AsyncIterator[None]:
    """Have an error in this block end the call in words, also one that nobody foresaw.

    ``name`` is what the log knows by which VM it is about; ``changes``: the call is to change it.
    """
    try:
        yield
    except VcpuctlError as error:
        await _abort(context, error)
    except Exception as error:  # noqa: BLE001 - gRPC would log it where nobody looks, and say "Unexpected"
        await _abort(context, fault.met(name, error, changes=changes))


async def _abort(context: _Context, error: VcpuctlError) -> NoReturn:
    reason = error.reason
    status = grpc.StatusCode.FAILED_PRECONDITION
    if reason.code == codes.NO_SUCH_VM:
        status = grpc.StatusCode.NOT_FOUND
    elif reason.code == codes.FAULT:
        status = grpc.StatusCode.INTERNAL
    elif isinstance(error, UsageError):
        status = grpc.StatusCode.INVALID_ARGUMENT
    elif isinstance(error, UnreachableError):
        status = grpc.StatusCode.UNAVAILABLE
    # Metadata are ASCII; of a hint in other letters the details have it all.
    hint = reason.hint.encode("ascii", "replace").decode()
    context.set_trailing_metadata((("vcpuctl-code", str(reason.code)), ("vcpuctl-hint", hint)))
    await context.abort(status, _utf_8(str(reason)))
    raise AssertionError("abort() raises")


class _Server:
    """One user's server. ``users`` counts the connections that are passed on to it."""

    def __init__(self, host: _Host) -> None:
        self.path = directory.new_socket("rpc-")
        self.users = 0
        self._host = host
        self._starting = asyncio.ensure_future(self._start())

    async def started(self) -> None:
        """Return when it serves. Raise OSError if it cannot."""
        try:
            await asyncio.shield(self._starting)
        except (RuntimeError, VcpuctlError) as error:  # what gRPC raises has no better class
            raise OSError(str(error)) from error

    @property
    def serves(self) -> bool:
        """Whether it can be reached, or will be."""
        if not self._starting.done():
            return True
        return not self._starting.cancelled() and self._starting.exception() is None and self.path.exists()

    async def _start(self) -> grpc.aio.Server:
        directory.prepare(self.path.parent)
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_CALLS)
        self._host.serve(server)
        if not server.add_insecure_port(f"unix:{self.path}"):
            raise OSError(f"gRPC cannot listen on {self.path}")
        await server.start()
        return server

    async def stop(self) -> None:
        """End it, if it ever began."""
        await asyncio.wait({self._starting})
        if not self._starting.cancelled() and self._starting.exception() is None:
            await self._starting.result().stop(_GRACE)
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


class RpcServers:
    """A server for each user that comes, on a socket in the directory that belongs to the service's user alone.

    One that cannot be reached any more is replaced, and one that nobody uses makes room for another user's.
    """

    def __init__(self, keeper: Keeper, unread: Unread | None = None, connections: Connections | None = None) -> None:
        self._keeper = keeper
        self._unread = unread or Unread()
        self._connections: Connections = {} if connections is None else connections
        self._servers: dict[int, _Server] = {}  # the one that was asked for last is the last
        self._stopping: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def of_user(self, uid: int) -> AsyncIterator[str]:
        """Give the path of the socket on which this user is served. Raise OSError if that cannot be.

        (ConnectionError: there are too many users at this moment.)
        """
        server = self._servers.pop(uid, None)
        if server is not None and not server.serves:
            self._drop(server)
            server = None
        if server is None:
            self._make_room()
            server = _Server(_Host(self._keeper, uid, self._unread, self._connections))
        self._servers[uid] = server
        server.users += 1
        try:
            await server.started()
            yield str(server.path)
        finally:
            server.users -= 1
            if self._servers.get(uid) is not server:
                self._drop(server)

    def _make_room(self) -> None:
        if len(self._servers) >= _USERS:
            idle = next((uid for uid, server in self._servers.items() if not server.users), None)
            if idle is None:
                raise ConnectionError("too many users")
            self._drop(self._servers.pop(idle))

    def _drop(self, server: _Server) -> None:
        """Stop one that is not among the servers any more, when the last has left it."""
        if not server.users:
            stopping = asyncio.ensure_future(server.stop())
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    async def close(self) -> None:
        """End all."""
        servers = list(self._servers.values())
        self._servers.clear()
        await asyncio.gather(*(server.stop() for server in servers), *self._stopping, return_exceptions=True)
