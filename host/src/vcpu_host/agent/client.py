# SPDX-License-Identifier: Apache-2.0
"""One link session with vcpud, spoken to by gRPC: the :class:`~vcpu_host.ports.GuestAgent` role."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from vcpu_proto.link import EndCode, HostLink, SessionLostError
from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_host import __version__, ports
from vcpu_host.core import codes
from vcpu_host.core.guest import AgentInfo, CpuResult, GuestView
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import AgentGoneError, VcpuctlError

from . import convert
from .bounds import MAX_MESSAGE, BadMessageError, parse
from .control import Control
from .status import AGENT_SLOW_HINT, bad_message, of_link, of_rpc

if TYPE_CHECKING:
    from vcpu_host.autoscale.sample import LoadSample
    from vcpu_host.core.workload.model import Workload

#: The protocol versions that this host speaks.
PROTOCOL_MIN, PROTOCOL_MAX = 1, 1

_SERVICE = pb.DESCRIPTOR.services_by_name["GuestAgent"]

#: Seconds for which an agent that has just been heard of counts as alive.
_FRESH = 1.0

#: Seconds that the link gets to say why a session has ended, when gRPC has noticed that it has.
_LAST_WORDS = 0.2

#: The capability of agents that take requests as messages on one stream.
_CONTROL = "control"
#: That of agents that take a question about programs in the same way.
_CONTROL_WORKLOAD = "control-workload"

#: Of every channel that carries what an agent says.
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # What came compressed stays so, and is no message then: a few bytes of it could stand for gigabytes, and older gRPC
    # unpacks before it looks at the size (core 1.51, message_decompress_filter.cc).
    ("grpc.per_message_decompression", 0),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # The link says when the other end is gone; a paused guest must not look like a dead one.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
]


def agree(theirs_min: int, theirs_max: int) -> int:
    """Return the highest protocol version that both sides speak.

    Raise AgentGoneError, which says which side to update.
    """
    best = min(PROTOCOL_MAX, theirs_max)
    if best >= max(PROTOCOL_MIN, theirs_min):
        return best
    if theirs_max < PROTOCOL_MIN:
        code, who, package = codes.AGENT_TOO_OLD, Origin.AGENT, "vcpu-guest"
    else:
        code, who, package = codes.HOST_TOO_OLD, Origin.VCPUCTL, "vcpu-host"
    raise AgentGoneError(
        Reason(
            code,
            who,
            f"the agent speaks protocol {theirs_min} to {theirs_max}, this vcpuctl {PROTOCOL_MIN} to {PROTOCOL_MAX}",
            f"update the {package} package",
        )
    )


class Stub:
    """The calls of vcpu.v1.GuestAgent. Answers are left as bytes: ``parse`` looks at them before they take memory."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def path(name: str) -> str:
            return f"/{_SERVICE.full_name}/{name}"

        self.hello = channel.unary_unary(path("Hello"), pb.HelloRequest.SerializeToString, bytes)
        self.list_cpus = channel.unary_unary(path("ListCpus"), pb.ListCpusRequest.SerializeToString, bytes)
        self.watch = channel.unary_stream(path("Watch"), pb.WatchRequest.SerializeToString, bytes)
        self.watch_load = channel.unary_stream(path("WatchLoad"), pb.WatchLoadRequest.SerializeToString, bytes)
        self.set_online = channel.unary_stream(path("SetOnline"), pb.SetOnlineRequest.SerializeToString, bytes)
        self.workload = channel.unary_unary(path("Workload"), pb.WorkloadRequest.SerializeToString, bytes)
        self.control: Any = channel.stream_stream(path("Control"), pb.ControlRequest.SerializeToString, bytes)


class LinkAgent:
    """One link session with the agent, over gRPC. :class:`~vcpu_host.agent.dialer.LinkDialer` makes it."""

    def __init__(self, link: HostLink, channel: grpc.aio.Channel, call_timeout: float) -> None:
        self._link = link
        self._channel = channel
        self._stub = Stub(channel)
        self._call_timeout = call_timeout
        self._requests = itertools.count(1)
        self._info: AgentInfo | None = None
        self._told_at = -math.inf  # when the Hello was said whose answer ``info`` is
        self._heard_at = 0.0
        self._control: Control | None = None

    @classmethod
    async def over(cls, link: HostLink, *, call_timeout: float, socket: str | None = None) -> LinkAgent:
        """Begin gRPC over a new link session, with Hello. ``call_timeout`` bounds each unary call, in seconds.

        ``socket`` is as with ``HostLink.listen``.
        """
        channel = grpc.aio.insecure_channel("unix:" + await link.listen(socket), options=OPTIONS)
        agent = cls(link, channel, call_timeout)
        try:
            await agent._hello()
        except BaseException:
            await agent.close()
            raise
        return agent

    @property
    def channel(self) -> grpc.aio.Channel:
        """The gRPC channel, for those who speak vcpu.v1 themselves."""
        return self._channel

    @property
    def info(self) -> AgentInfo:
        """What the last Hello brought."""
        if self._info is None:
            raise AssertionError("over() makes agents, and it says hello first")
        return self._info

    @property
    def session(self) -> str:
        """The link session's token."""
        return self._link.token.hex()

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self._link.ended.done() or (self._control is not None and self._control.broken is not None)

    async def _hello(self) -> None:
        loop = asyncio.get_running_loop()
        request = pb.HelloRequest(protocol_min=PROTOCOL_MIN, protocol_max=PROTOCOL_MAX, host_version=__version__)
        said_at = loop.time()
        async with self._asking(vital=True):
            answer = parse(pb.HelloResponse, await self._stub.hello(request, timeout=self._call_timeout))
            info = convert.agent_info(answer, agree(answer.protocol_min, answer.protocol_max))
            self._heard_at = loop.time()
            if self._info is None and _CONTROL in info.capabilities:
                self._control = Control(self._stub.control(), self._why)
        if said_at >= self._told_at:  # else a later one was answered before
            self._info, self._told_at = info, said_at

    @asynccontextmanager
    async def _asking(self, *, vital: bool = False) -> AsyncIterator[None]:
        """Tell in our words whatever goes wrong meanwhile.

        ``vital``: without the answer there is nothing to go on, so whatever it is, the agent is gone (AgentGoneError).
        """
        try:
            yield
        except grpc.aio.AioRpcError as error:
            failed = of_rpc(error)
            if isinstance(failed, AgentGoneError) or vital:
                raise await self._why(AgentGoneError(failed.reason)) from error
            raise failed from error
        except BadMessageError as error:
            raise bad_message(str(error)) from error
        except asyncio.CancelledError as cancelled:
            # gRPC raises it also where the channel is closed under the call: by whoever drops the session.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            text = "the link session was ended on this side"
            raise await self._why(AgentGoneError(Reason(codes.AGENT_LOST, Origin.VCPUCTL, text))) from cancelled
        except VcpuctlError as error:
            if not vital or isinstance(error, AgentGoneError):
                raise
            raise AgentGoneError(error.reason) from error

    def _request_id(self) -> str:
        return f"{self.session[:8]}-{next(self._requests)}"

    async def renew_info(self, since: float) -> None:
        """See ports.GuestAgent. Any agent answers Hello again and again: it changes nothing of the session."""
        if self._told_at < since:
            await self._hello()

    async def check(self) -> None:
        """See ports.GuestAgent. Ask the agent's end of the link, which costs the guest next to nothing."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._heard_at < _FRESH:
            return
        try:
            await self._link.ping(self._call_timeout)
        except SessionLostError as error:
            raise of_link(error) from error
        except TimeoutError as error:
            text = f"no answer from the guest agent within {self._call_timeout:g} s"
            raise AgentGoneError(Reason(codes.AGENT_SLOW, Origin.AGENT, text, AGENT_SLOW_HINT)) from error
        self._heard_at = loop.time()

    async def list_cpus(self) -> GuestView:
        """Return every present CPU.

        Raise AgentGoneError whatever goes wrong: without the list there is nothing to go on.
        """
        request = pb.ListCpusRequest(request_id=self._request_id())
        async with self._asking(vital=True):
            answer = await self._ask_list(request)
            if answer.request_id != request.request_id:
                raise BadMessageError("the answer to another request")
            return convert.snapshot(answer.snapshot)

    async def workload(
        self, going: Sequence[str], *, use: bool = False, broken: bool = False, forgotten: bool = False
    ) -> Workload:
        """See ports.GuestAgent."""
        from .workload import workload

        request = pb.WorkloadRequest(
            request_id=self._request_id(), going=going, use=use, broken=broken, forgotten=forgotten
        )
        async with self._asking():
            answer = await self._ask_workload(request)
            if answer.request_id != request.request_id:
                raise BadMessageError("the answer to another request")
            return workload(answer.workload)

    async def _ask_list(self, request: pb.ListCpusRequest) -> pb.ListCpusResponse:
        if self._control is None:
            return parse(pb.ListCpusResponse, await self._stub.list_cpus(request, timeout=self._call_timeout))
        message = pb.ControlRequest(list_cpus=request)
        return (await self._control.ask_once(message, request.request_id, timeout=self._call_timeout)).list_cpus

    async def _ask_workload(self, request: pb.WorkloadRequest) -> pb.WorkloadResponse:
        if self._control is None or _CONTROL_WORKLOAD not in self.info.capabilities:
            return parse(pb.WorkloadResponse, await self._stub.workload(request, timeout=self._call_timeout))
        message = pb.ControlRequest(workload=request)
        return (await self._control.ask_once(message, request.request_id, timeout=self._call_timeout)).workload

    async def watch(self) -> AsyncIterator[GuestView]:
        """Yield snapshots until the session ends (AgentGoneError) or the caller stops."""
        call = self._stub.watch(pb.WatchRequest(request_id=self._request_id()))
        try:
            async with self._asking(vital=True):
                async for answer in call:
                    yield convert.snapshot(parse(pb.WatchResponse, answer).snapshot)
        finally:
            call.cancel()

    async def watch_load(self, calm: float, busy: float, quiet: float) -> AsyncGenerator[LoadSample, None]:
        """See ports.GuestAgent."""
        from .load import bounded, load_sample

        request = pb.WatchLoadRequest(request_id=self._request_id(), period=calm, busy_period=busy, quiet_period=quiet)
        call = self._stub.watch_load(request)
        try:
            async with self._asking():
                async for answer in call:
                    yield load_sample(parse(pb.WatchLoadResponse, bounded(answer)))
        finally:
            call.cancel()

    async def set_online(
        self,
        firmware_ids: Sequence[str],
        *,
        online: bool,
        wait: bool,
        brief: bool,
        timeout: float,
        for_eject: bool = False,
        watch: bool = False,
    ) -> AsyncIterator[ports.SetOnlineAnswer]:
        """See ports.GuestAgent. Answers for CPUs that were not asked for, and more than one each, are not accepted."""
        request = pb.SetOnlineRequest(
            request_id=self._request_id(),
            firmware_ids=firmware_ids,
            online=online,
            wait_for_arrival=wait,
            brief=brief,
            for_eject=for_eject,
            watch=watch,
        )
        unanswered = set(firmware_ids)
        unseen = set(firmware_ids)
        async with self._asking(), aclosing(self._ask_set_online(request, timeout)) as answers:
            async for answer in answers:
                yield _answer(answer, request.request_id, unanswered, unseen)

    async def _ask_set_online(
        self, request: pb.SetOnlineRequest, timeout: float
    ) -> AsyncGenerator[pb.SetOnlineResponse, None]:
        if self._control is None:
            call = self._stub.set_online(request, timeout=timeout)
            try:
                async for message in call:
                    yield parse(pb.SetOnlineResponse, message)
            finally:
                call.cancel()
            return
        message = pb.ControlRequest(set_online=request)
        async with aclosing(self._control.ask(message, request.request_id, timeout=timeout)) as answers:
            async for answer in answers:
                yield answer.set_online

    async def _why(self, error: AgentGoneError) -> AgentGoneError:
        """Return the error in the link's words, if the link knows more: gRPC only sees that the connection is lost.

        If the program at the other end closed its connection, the link knows no more than gRPC.
        """
        if error.reason.code == codes.AGENT_LOST:
            await asyncio.wait({self._link.ended}, timeout=_LAST_WORDS)
            if self._link.ended.done() and self._link.ended.result().code is not EndCode.LOCAL_ENDED:
                return AgentGoneError(of_link(SessionLostError(self._link.ended.result())).reason)
        return error

    async def lost(self) -> str:
        """Return when and why the session ended."""
        return f"the link session ended ({await asyncio.shield(self._link.ended)})"

    async def close(self) -> None:
        """End the session; the port is free for others afterwards."""
        if self._control is not None:
            await self._control.close()
        await self._channel.close(None)
        await self._link.close()


def _answer(
    message: pb.SetOnlineResponse, request_id: str, unanswered: set[str], unseen: set[str]
) -> ports.Arrived | CpuResult | GuestView:
    if message.request_id != request_id:
        raise BadMessageError("the answer to another request")
    kind = message.WhichOneof("answer")
    if kind == "result":
        result = convert.result(message.result)
        if result.firmware_id not in unanswered:
            raise BadMessageError("a result that was not asked for, or twice")
        unanswered.discard(result.firmware_id)
        return result
    if kind == "arrived":
        cpu = convert.cpu(message.arrived)
        if cpu.firmware_id not in unseen:
            raise BadMessageError("an arrival that was not asked for, or twice")
        unseen.discard(cpu.firmware_id)
        return ports.Arrived(cpu)
    if kind == "final":
        return convert.snapshot(message.final)
    raise BadMessageError("an empty answer")
