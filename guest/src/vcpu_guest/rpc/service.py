# SPDX-License-Identifier: Apache-2.0
"""The gRPC service, a thin skin: the inventory and the writer do the work, `convert` makes the messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio
from vcpu_proto.v1 import agent_pb2 as pb
from vcpu_proto.v1 import agent_pb2_grpc

from vcpu_guest import logs
from vcpu_guest.core.load import LoadSupport
from vcpu_guest.core.model import AgentInfo, Arrived, CpuResult, CpuStatus, Environment, Snapshot
from vcpu_guest.core.request import Request, RequestError, check, check_identities, check_request_id
from vcpu_guest.cpus.eject_gate import EjectGate
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.onliners import LOOKS
from vcpu_guest.cpus.programs import Programs
from vcpu_guest.rpc import convert
from vcpu_guest.rpc.control_stream import ControlStream
from vcpu_guest.rpc.load_stream import ForbiddenError, LoadWatch, TooManyError

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

#: One host at a time makes a few calls; a request is small even with the most CPUs that it may name.
_OPTIONS = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.max_concurrent_streams", 64),
    # A paused VM looks like a silent peer; it is the link, not HTTP/2, that tells when a peer is gone.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
_NO_EYES = "this agent does not look at programs"


class Runner(Protocol):
    """What carries out requests: the writer, with hooks or without."""

    def run(self, request: Request) -> AsyncGenerator[Arrived | CpuResult, None]:
        """See Writer.run."""

    def in_hand(self) -> dict[str, float]:
        """See Writer.in_hand."""

    def settling(self) -> Coroutine[Any, Any, dict[str, float]] | None:
        """See Writer.settling."""

    async def stays_offline(self) -> bool:
        """See Writer.stays_offline."""

    def forget_ejections(self) -> None:
        """See Writer.forget_ejections."""


class GuestAgentService(agent_pb2_grpc.GuestAgentServicer):
    """The gRPC service vcpu.v1.GuestAgent, as agent.proto describes it."""

    def __init__(
        self,
        agent_info: AgentInfo,
        inventory: Inventory,
        writer: Runner,
        scheme: str,
        environment: Callable[[], Environment],
        gate: EjectGate | None = None,
        hurry: Callable[[], None] = lambda: None,
        programs: Programs | None = None,
        load: LoadWatch | None = None,
    ) -> None:
        self._agent_info = agent_info
        self._inventory = inventory
        self._writer = writer
        self._scheme = scheme
        self._environment = environment
        self._gate = gate
        self._hurry = hurry
        self._programs = programs
        self._load = load

    async def Hello(self, request: pb.HelloRequest, context: Context) -> pb.HelloResponse:  # noqa: N802 - gRPC's name
        """Say who answers. If the versions do not overlap the host reports it: it knows both."""
        logs.debug("hello", host_version=request.host_version[:64])
        environment, support = await asyncio.to_thread(self.look_around)
        keeps = self._programs is not None and self._programs.keeps
        answer = convert.hello(self._agent_info, environment, gated=self._gate is not None, keeps_affinity=keeps)
        if self._load is not None:
            convert.tell_load(answer, support, allowed=self._load.allowed)
        return answer

    def look_around(self) -> tuple[Environment, LoadSupport | None]:
        """Return what Hello tells of the guest. May block for some milliseconds, the first time for longer."""
        environment = self._environment()
        if self._gate is not None:
            environment = environment.lacking(self._gate.denials())
        return environment, None if self._load is None else self._load.support()

    async def ListCpus(self, request: pb.ListCpusRequest, context: Context) -> pb.ListCpusResponse:  # noqa: N802
        """List all CPUs, from a fresh look."""
        try:
            answer = self._list_cpus(request)
            return answer if isinstance(answer, pb.ListCpusResponse) else await answer
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise AssertionError("abort() raises") from error

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:  # noqa: N802
        """Send a snapshot now and after every change; a host that falls behind gets the newest only."""
        await _checked_id(request.request_id, context)
        sent = -1
        with self._inventory.changes() as changed:
            while True:
                changed.clear()
                snapshot = self._inventory.snapshot()
                if snapshot.generation != sent:
                    sent = snapshot.generation
                    yield pb.WatchResponse(request_id=request.request_id, snapshot=self._message(snapshot))
                else:
                    await changed.wait()

    async def WatchLoad(  # noqa: N802
        self, request: pb.WatchLoadRequest, context: Context
    ) -> AsyncIterator[pb.WatchLoadResponse]:
        """Send the load now and again, as seldom as the host asks."""
        await _checked_id(request.request_id, context)
        if self._load is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this agent does not tell the load")
            raise AssertionError("abort() raises")
        try:
            async with aclosing(self._load.looks(request.period, request.busy_period, request.quiet_period)) as looks:
                async for load, pause in looks:
                    yield convert.load(load, request.request_id, self._agent_info, pause)
        except ForbiddenError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except TooManyError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except OSError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the kernel does not tell the load: {error}")

    async def SetOnline(  # noqa: N802
        self, request: pb.SetOnlineRequest, context: Context
    ) -> AsyncIterator[pb.SetOnlineResponse]:
        """Answer for each CPU, then send a snapshot, unless the host wants the answers brief."""
        try:
            async with aclosing(self._set_online(request)) as answers:
                async for answer in answers:
                    yield answer
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def Control(  # noqa: N802
        self, requests: AsyncIterator[pb.ControlRequest], context: Context
    ) -> AsyncIterator[pb.ControlResponse]:
        """Take ListCpus, SetOnline and Workload as messages on one stream."""
        stream = object()
        control = ControlStream(self._list_cpus, partial(self._set_online, stream=stream), self._workload)
        reading = asyncio.get_running_loop().create_task(_read(requests, control))
        try:
            async for answer in control.answers():
                yield answer
            await reading
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await control.close()
            self._writer.forget_ejections()
            if self._gate is not None:
                self._gate.withdraw(stream)

    async def Workload(  # noqa: N802
        self, request: pb.WorkloadRequest, context: Context
    ) -> pb.WorkloadResponse:
        """Look at the guest's programs."""
        if self._programs is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_EYES)
        try:
            return await self._workload(request)
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise AssertionError("abort() raises") from error

    async def _workload(self, request: pb.WorkloadRequest) -> pb.WorkloadResponse:
        check_request_id(request.request_id)
        check_identities(request.going, self._scheme)
        if self._programs is None:
            raise RequestError(_NO_EYES)
        found = await self._programs.look(
            self._numbers(request.going),
            use=request.use,
            broken=request.broken,
            forgotten=request.forgotten,
        )
        return pb.WorkloadResponse(request_id=request.request_id, workload=convert.workload(found))

    def _numbers(self, identities: Collection[str]) -> set[int]:
        """Return the kernel's numbers of those that are present. (A look at every CPU: not where nobody is named.)"""
        named = set(identities)
        return {cpu.number for cpu in self._inventory.snapshot().cpus if cpu.firmware_id in named} if named else set()

    def _list_cpus(self, request: pb.ListCpusRequest) -> pb.ListCpusResponse | Awaitable[pb.ListCpusResponse]:
        check_request_id(request.request_id)
        settling = self._writer.settling()
        if settling is not None:
            self._hurry()
            return self._list_at_rest(request, settling)
        return pb.ListCpusResponse(request_id=request.request_id, snapshot=self._snapshot())

    async def _list_at_rest(
        self, request: pb.ListCpusRequest, settling: Awaitable[dict[str, float]]
    ) -> pb.ListCpusResponse:
        """Answer when nobody is switching what is to be ejected, and anew if that changed while the answer was made.

        The host asks for the ejection next, so nothing but the way of the answer is to lie between the look and that.
        It asks for none of a CPU that is said to be moving, so then there is nothing more to wait for.
        """
        moving = await settling
        answer = pb.ListCpusResponse(request_id=request.request_id, snapshot=self._snapshot(moving))
        for _ in range(LOOKS):
            if moving or await self._writer.stays_offline():
                break
            again = self._writer.settling()  # None: all of them were seen online meanwhile
            moving = {} if again is None else await again
            answer = pb.ListCpusResponse(request_id=request.request_id, snapshot=self._snapshot(moving))
        return answer

    async def _set_online(
        self, request: pb.SetOnlineRequest, stream: object = None
    ) -> AsyncGenerator[pb.SetOnlineResponse, None]:
        checked = check(
            request.firmware_ids,
            online=request.online,
            wait=request.wait_for_arrival,
            scheme=self._scheme,
            request_id=request.request_id,
            for_eject=request.for_eject,
            watch=request.watch,
        )
        if checked.for_eject:
            self._hurry()
        gate = self._gate if checked.for_eject else None
        as_wanted = True
        async with aclosing(self._writer.run(checked)) as answers:
            async for answer in answers:
                if isinstance(answer, CpuResult):
                    as_wanted = as_wanted and answer.status in (CpuStatus.DONE, CpuStatus.ALREADY)
                    if gate is not None and answer.status is not CpuStatus.REFUSED:
                        # Before the host hears of it: the host asks for the ejection next.
                        await gate.agree(answer.firmware_id, stream)
                elif request.brief:
                    continue
                yield convert.answer(answer, request.request_id)
        if not (request.brief and as_wanted):
            yield pb.SetOnlineResponse(request_id=request.request_id, final=self._snapshot())

    def _snapshot(self, moving: Mapping[str, float] = MappingProxyType({})) -> pb.Snapshot:
        return self._message(self._inventory.snapshot(), moving)

    def _message(self, snapshot: Snapshot, moving: Mapping[str, float] = MappingProxyType({})) -> pb.Snapshot:
        return convert.snapshot(snapshot, self._agent_info, {**moving, **self._writer.in_hand()})


async def _checked_id(request_id: str, context: Context) -> None:
    try:
        check_request_id(request_id)
    except RequestError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def _read(requests: AsyncIterator[pb.ControlRequest], control: ControlStream) -> None:
    """Pass requests on. The stream's answers end when the requests do, for whatever reason."""
    try:
        async for request in requests:
            control.take(request)
    finally:
        control.end()


async def serve(agent: GuestAgentService, path: str) -> grpc.aio.Server:
    """Return a server that listens on the unix socket `path`. Raise OSError if it cannot."""
    server = grpc.aio.server(options=_OPTIONS)
    agent_pb2_grpc.add_GuestAgentServicer_to_server(agent, server)  # type: ignore[no-untyped-call]
    try:
        bound = server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:  # newer versions of gRPC raise it where older ones return 0
        raise OSError(f"cannot listen on {path}: {error}") from error
    if not bound:
        raise OSError(f"cannot listen on {path}")
    await server.start()
    return server
