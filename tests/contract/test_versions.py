# SPDX-License-Identifier: Apache-2.0
"""Older and newer on either side: it works, or it says which side to update."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from kit.both_ends import Guest, agent_of, switched
from kit.fakes.sysfs import firmware_id
from kit.until import DEADLINE, until
from vcpu_guest.rpc import convert as guest_convert
from vcpu_host.agent import client
from vcpu_host.core.guest import GuestView
from vcpu_host.errors import AgentGoneError, VcpuctlError
from vcpu_proto.v1 import agent_pb2 as pb

#: A field that no version of today knows: number 1000, three bytes.
UNKNOWN = b"\xc2\x3e\x03new"

SERVICE = "vcpu.v1.GuestAgent"


@pytest.mark.parametrize(
    ("host", "guest_range", "agreed"),
    [((1, 1), (1, 1), 1), ((1, 1), (1, 4), 1), ((1, 3), (1, 1), 1), ((1, 3), (2, 2), 2), ((1, 3), (2, 9), 3)],
)
async def test_the_newest_protocol_that_both_speak_is_spoken(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, host: tuple[int, int], guest_range: tuple[int, int], agreed: int
) -> None:
    monkeypatch.setattr(client, "PROTOCOL_MIN", host[0])
    monkeypatch.setattr(client, "PROTOCOL_MAX", host[1])
    monkeypatch.setattr(guest_convert, "PROTOCOL", guest_range)
    async with agent_of(guest) as agent:
        assert agent.info.protocol == agreed
        assert len((await agent.list_cpus()).cpus) == 1


@pytest.mark.parametrize(
    ("host", "guest_range", "code", "package"),
    [((2, 3), (1, 1), "agent-too-old", "vcpu-guest"), ((1, 1), (2, 3), "host-too-old", "vcpu-host")],
)
async def test_sides_without_a_common_protocol_say_which_to_update(
    guest: Guest,
    monkeypatch: pytest.MonkeyPatch,
    host: tuple[int, int],
    guest_range: tuple[int, int],
    code: str,
    package: str,
) -> None:
    monkeypatch.setattr(client, "PROTOCOL_MIN", host[0])
    monkeypatch.setattr(client, "PROTOCOL_MAX", host[1])
    monkeypatch.setattr(guest_convert, "PROTOCOL", guest_range)
    with pytest.raises(AgentGoneError) as caught:
        async with agent_of(guest):
            pass
    assert caught.value.reason.code == code
    assert package in caught.value.reason.hint
    # The port is free for others at once.
    monkeypatch.undo()
    async with agent_of(guest) as agent:
        assert agent.info.protocol == 1


async def played(guest: Guest, answers: dict[str, Callable[[bytes], bytes]]) -> None:
    """Have the guest's port served by an agent of another version: raw bytes for each method that it has."""

    def handler(answer: Callable[[bytes], bytes]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def handle(request: bytes, _context: Any) -> bytes:
            return answer(request)

        return handle

    methods = {name: grpc.unary_unary_rpc_method_handler(handler(answer)) for name, answer in answers.items()}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"unix:{guest.socket}")
    await server.start()
    await guest.start(server)


def hello(_request: bytes) -> bytes:
    return pb.HelloResponse(protocol_min=1, protocol_max=1, agent_version="9").SerializeToString() + UNKNOWN


def listing(request: bytes) -> bytes:
    asked = pb.ListCpusRequest.FromString(request)
    cpu = pb.Cpu(number=0, firmware_id="acpi:x", online=True).SerializeToString() + UNKNOWN
    snapshot = b"\x22" + bytes([len(cpu)]) + cpu + UNKNOWN  # field 4, cpus
    return (
        pb.ListCpusResponse(request_id=asked.request_id).SerializeToString()
        + b"\x12"  # field 2, snapshot
        + bytes([len(snapshot)])
        + snapshot
        + UNKNOWN
    )


async def test_an_older_agent_is_asked_anew_what_its_guest_is_like_too(idle_guest: Guest) -> None:
    said = 0

    def counted(request: bytes) -> bytes:
        nonlocal said
        said += 1
        return hello(request)

    await played(idle_guest, {"Hello": counted, "ListCpus": listing})
    async with agent_of(idle_guest) as agent:
        await agent.renew_info(math.inf)
        assert (said, agent.info.version) == (2, "9")
        assert len((await agent.list_cpus()).cpus) == 1


async def test_fields_that_a_newer_agent_adds_are_passed_over(idle_guest: Guest) -> None:
    await played(idle_guest, {"Hello": hello, "ListCpus": listing})
    async with agent_of(idle_guest) as agent:
        assert agent.info.version == "9"
        assert [(cpu.number, cpu.firmware_id, cpu.online) for cpu in (await agent.list_cpus()).cpus] == [
            (0, "acpi:x", True)
        ]


@pytest.mark.parametrize(
    ("method", "request_", "answer"),
    [
        ("Hello", pb.HelloRequest(protocol_min=1, protocol_max=1), pb.HelloResponse),
        ("ListCpus", pb.ListCpusRequest(request_id="r"), pb.ListCpusResponse),
    ],
)
async def test_fields_that_a_newer_host_adds_are_passed_over(
    guest: Guest, method: str, request_: Any, answer: Any
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{guest.socket}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/{method}", None, None)
        raw = await call(request_.SerializeToString() + UNKNOWN, timeout=DEADLINE)
    assert answer.FromString(raw).ByteSize() > 0


async def test_an_agent_that_lacks_a_call_is_said_to_be_too_old(idle_guest: Guest) -> None:
    await played(idle_guest, {"Hello": hello, "ListCpus": listing})
    async with agent_of(idle_guest) as agent:
        with pytest.raises(VcpuctlError) as caught:
            async for _ in agent.set_online(["acpi:x"], online=True, wait=False, brief=False, timeout=DEADLINE):
                pass
        assert caught.value.reason.code == "agent-too-old"
        assert "vcpu-guest" in caught.value.reason.hint


@pytest.mark.parametrize(
    "bad",
    [
        lambda _request: b"\xff\xff",
        lambda _request: pb.ListCpusResponse(request_id="of another").SerializeToString(),
        lambda request: pb.ListCpusResponse(
            request_id=pb.ListCpusRequest.FromString(request).request_id,
            snapshot=pb.Snapshot(cpus=[pb.Cpu(number=1), pb.Cpu(number=1)]),
        ).SerializeToString(),
    ],
    ids=["no message", "another request's", "contradicts itself"],
)
async def test_an_agent_that_answers_nonsense_is_not_believed(idle_guest: Guest, bad: Callable[[bytes], bytes]) -> None:
    await played(idle_guest, {"Hello": hello, "ListCpus": bad})
    async with agent_of(idle_guest) as agent:
        with pytest.raises(AgentGoneError) as caught:
            await agent.list_cpus()
    assert caught.value.reason.code == "agent-bad-message"


# --- the agent, and the host, of commit e13c246 -----------------------------------------------------------------------

#: What that agent said that it can do, and the calls that it had.
EARLY = ("list-cpus", "watch", "set-online", "wait-for-arrival", "control")
EARLY_CALLS: dict[str, tuple[Any, Any, Any]] = {
    "Hello": (grpc.unary_unary_rpc_method_handler, pb.HelloRequest, pb.HelloResponse),
    "ListCpus": (grpc.unary_unary_rpc_method_handler, pb.ListCpusRequest, pb.ListCpusResponse),
    "Watch": (grpc.unary_stream_rpc_method_handler, pb.WatchRequest, pb.WatchResponse),
    "SetOnline": (grpc.unary_stream_rpc_method_handler, pb.SetOnlineRequest, pb.SetOnlineResponse),
    "Control": (grpc.stream_stream_rpc_method_handler, pb.ControlRequest, pb.ControlResponse),
}
#: The highest number of a field then, in messages that have got more since.
EARLY_FIELDS = {
    "HelloResponse": 11,
    "Environment": 8,
    "Cpu": 9,
    "SetOnlineRequest": 6,
    "ControlRequest": 3,
    "ControlAnswer": 3,
    "ControlEnded": 2,
}


def as_then(message: Any) -> Any:
    """Return the message without what neither side of that time knew."""
    for field, value in message.ListFields():
        if field.number > EARLY_FIELDS.get(message.DESCRIPTOR.name, field.number):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in [value] if isinstance(value, Message) else value:
                as_then(each)
    if isinstance(message, pb.HelloResponse):
        message.capabilities[:] = [each for each in message.capabilities if each in EARLY]
    return message


@pytest.fixture
async def early(idle_guest: Guest) -> Guest:
    """A guest whose agent, and whose host, have only what there was then."""
    server = grpc.aio.server()
    handlers = {
        name: kind(
            getattr(idle_guest.servicer, name),
            request_deserializer=lambda raw, asked=asked: as_then(asked.FromString(raw)),
            response_serializer=lambda message: as_then(message).SerializeToString(),
        )
        for name, (kind, asked, _) in EARLY_CALLS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"unix:{idle_guest.socket}")
    await server.start()
    await idle_guest.start(server)
    return idle_guest


def test_the_calls_and_messages_of_then_are_there_with_their_types() -> None:
    methods = pb.DESCRIPTOR.services_by_name["GuestAgent"].methods_by_name
    for name, (_, asked, answer) in EARLY_CALLS.items():
        assert (methods[name].input_type.name, methods[name].output_type.name) == (
            asked.DESCRIPTOR.name,
            answer.DESCRIPTOR.name,
        )
    for name, newest in EARLY_FIELDS.items():
        assert newest in pb.DESCRIPTOR.message_types_by_name[name].fields_by_number


async def test_the_two_sides_work_by_what_there_was_in_the_earliest_version(early: Guest) -> None:
    async with agent_of(early) as agent:
        assert set(agent.info.capabilities) == set(EARLY)
        assert not agent.info.sees_programs
        assert not agent.info.tells_load
        await agent.renew_info(math.inf)
        waiting = asyncio.ensure_future(switched(agent, 4, online=True, wait=True))
        await until(lambda: early.inventory._waiting)
        early.kernel.add(4)
        await waiting
        assert [(cpu.firmware_id, cpu.online) for cpu in (await agent.list_cpus()).cpus] == [
            (firmware_id(0), True),
            (firmware_id(4), True),
        ]
        async with aclosing(cast("AsyncGenerator[GuestView, None]", agent.watch())) as views:
            assert len((await anext(views)).cpus) == 2
        await switched(agent, 4, online=False)
        assert [cpu.online for cpu in (await agent.list_cpus()).cpus] == [True, False]


async def test_what_the_earliest_agent_cannot_be_asked_says_which_side_to_update(early: Guest) -> None:
    async with agent_of(early) as agent:
        with pytest.raises(VcpuctlError) as caught:
            await agent.workload([], broken=True)
        assert caught.value.reason.code == "agent-too-old"
        assert "vcpu-guest" in caught.value.reason.hint
        assert len((await agent.list_cpus()).cpus) == 1
