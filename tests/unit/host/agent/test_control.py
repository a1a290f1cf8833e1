# SPDX-License-Identifier: Apache-2.0
"""The host's end of the Control stream, before an agent that may say anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from kit.until import DEADLINE
from vcpu_host.agent import proxy
from vcpu_host.agent.control import Control
from vcpu_host.core import codes
from vcpu_host.errors import AgentGoneError, VcpuctlError
from vcpu_proto.v1 import agent_pb2 as pb


class Call:
    """A stream's call: what is written is kept, what is to be read is put in by the test. None ends it in order."""

    def __init__(self) -> None:
        self.written: list[pb.ControlRequest] = []
        self.incoming: asyncio.Queue[pb.ControlResponse | Exception | None] = asyncio.Queue()
        self.cancelled = False
        self.window = asyncio.Event()
        self.window.set()

    async def write(self, message: pb.ControlRequest) -> None:
        try:
            await self.window.wait()
        except asyncio.CancelledError:
            self.cancel()  # as gRPC does (grpc/aio/_call.py, _write)
            raise
        self.written.append(message)

    def cancel(self) -> None:
        if self.cancelled:
            return
        self.cancelled = True
        self.incoming.put_nowait(asyncio.CancelledError())  # type: ignore[arg-type]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.incoming.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            yield message.SerializeToString()

    async def asked(self, count: int) -> None:
        """Wait until so many messages have been written."""
        async with asyncio.timeout(DEADLINE):
            while len(self.written) < count:  # noqa: ASYNC110 - written by other tasks
                await asyncio.sleep(0.001)

    def say(self, *answers: pb.ControlAnswer) -> None:
        self.incoming.put_nowait(pb.ControlResponse(answers=answers))


async def no_better(error: AgentGoneError) -> AgentGoneError:
    return error


def of(call: Call, why: Callable[[AgentGoneError], Awaitable[AgentGoneError]] = no_better) -> Control:
    return Control(cast(Any, call), why)


def listed(request_id: str) -> pb.ControlAnswer:
    return pb.ControlAnswer(list_cpus=pb.ListCpusResponse(request_id=request_id))


def ended(request_id: str, rejected: str = "") -> pb.ControlAnswer:
    return pb.ControlAnswer(ended=pb.ControlEnded(request_id=request_id, rejected=rejected))


async def ask(control: Control, request_id: str, timeout: float = 10.0) -> list[str]:
    request = pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id=request_id))
    answers = control.ask(request, request_id, timeout=timeout)
    return [answer.list_cpus.request_id async for answer in answers]


async def test_each_request_gets_its_own_answers_however_they_are_mixed() -> None:
    call = Call()
    control = of(call)
    first, second = (asyncio.ensure_future(ask(control, name)) for name in "ab")
    await call.asked(2)
    call.say(listed("b"), listed("a"))
    call.say(ended("a"), listed("of one that was given up"), ended("b"))
    assert await first == ["a"]
    assert await second == ["b"]
    await control.close()


async def test_a_rejected_request_says_why_and_costs_no_session() -> None:
    call = Call()
    control = of(call)
    asked = asyncio.ensure_future(ask(control, "a"))
    await call.asked(1)
    call.say(ended("a", "named \x1b twice"))
    with pytest.raises(VcpuctlError, match="named") as error:
        await asked
    assert error.value.reason.code == "agent-rejected"
    assert error.value.reason.text.isprintable()
    assert not isinstance(error.value, AgentGoneError)
    await control.close()


async def test_an_answer_that_does_not_come_in_time_is_slow_and_given_up() -> None:
    call = Call()
    control = of(call)
    with pytest.raises(VcpuctlError) as error:
        await ask(control, "a", timeout=0.05)
    assert error.value.reason.code == "agent-slow"
    await call.asked(2)
    assert call.written[1].cancel == "a"
    await control.close()


async def test_who_waits_hears_the_best_reason_there_is_for_the_stream_s_end() -> None:
    async def better(error: AgentGoneError) -> AgentGoneError:
        assert error.reason.code == codes.AGENT_LOST
        return AgentGoneError(error.reason._replace(text="it is stopping"))

    call = Call()
    control = of(call, better)
    asked = asyncio.ensure_future(ask(control, "a"))
    await call.asked(1)
    call.incoming.put_nowait(None)
    with pytest.raises(AgentGoneError, match="stopping"):
        await asked
    await control.close()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (None, codes.AGENT_LOST),
        (
            grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "closed", ""),
            codes.AGENT_LOST,
        ),
        (pb.ControlResponse(answers=[pb.ControlAnswer()]), "agent-bad-message"),
    ],
)
async def test_the_stream_s_end_ends_what_is_asked_and_all_that_is_asked_later(end: Any, code: str) -> None:
    call = Call()
    control = of(call)
    asked = asyncio.ensure_future(ask(control, "a"))
    await call.asked(1)
    call.incoming.put_nowait(end)
    for attempt in (asked, ask(control, "b")):
        with pytest.raises(AgentGoneError) as error:
            await attempt
        assert error.value.reason.code == code
    assert [request.list_cpus.request_id for request in call.written] == ["a"]
    await control.close()


def said(**answer: Any) -> pb.ControlAnswer:
    return pb.ControlAnswer(set_online=pb.SetOnlineResponse(request_id="a", **answer))


@pytest.mark.parametrize(
    "answers",
    [
        [said(result=pb.CpuResult())] * 3,
        [said(final=pb.Snapshot())] * 2,
        [said(arrived=pb.Cpu(firmware_id="x" * 9000))],
        [listed("a")],
        [ended("a"), ended("a")],
    ],
)
async def test_an_agent_that_answers_more_than_there_can_be_is_not_listened_to_any_more(
    answers: list[pb.ControlAnswer],
) -> None:
    call = Call()
    control = of(call)
    request = pb.ControlRequest(set_online=pb.SetOnlineRequest(request_id="a", firmware_ids=["acpi:x"]))
    asked = control.ask(request, "a", timeout=10.0)
    first = asyncio.ensure_future(anext(asked))
    await call.asked(1)
    call.say(*answers)
    async with asyncio.timeout(DEADLINE):
        while control.broken is None:  # noqa: ASYNC110 - set by another task
            await asyncio.sleep(0.001)
    assert control.broken.reason.code == "agent-bad-message"
    assert call.cancelled
    await asyncio.gather(first, return_exceptions=True)
    await asked.aclose()
    await control.close()


async def test_a_request_given_up_while_it_is_being_written_leaves_the_stream_whole() -> None:
    call = Call()
    control = of(call)
    call.window.clear()
    asked = asyncio.ensure_future(ask(control, "a"))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    slow = asyncio.ensure_future(ask(control, "b", timeout=0.05))
    with pytest.raises(VcpuctlError) as error:
        await slow
    assert error.value.reason.code == "agent-slow"
    assert (control.broken, call.cancelled) == (None, False)
    call.window.set()
    await call.asked(4)
    assert [request.WhichOneof("request") for request in call.written] == ["list_cpus", "cancel", "list_cpus", "cancel"]
    await control.close()


async def test_a_stream_cancelled_under_a_write_is_lost_and_not_a_cancelled_caller() -> None:
    call = Call()
    control = of(call)
    call.window.clear()
    asked = asyncio.ensure_future(ask(control, "a"))
    await asyncio.sleep(0)
    call.say(pb.ControlAnswer())
    with pytest.raises(AgentGoneError) as error:
        await asked
    assert error.value.reason.code == "agent-bad-message"
    await control.close()


@pytest.mark.parametrize("status", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT])
async def test_a_stream_that_ends_is_lost_whatever_its_status(status: grpc.StatusCode) -> None:
    call = Call()
    control = of(call)
    asked = asyncio.ensure_future(ask(control, "a"))
    await call.asked(1)
    call.incoming.put_nowait(grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), "no", ""))
    with pytest.raises(AgentGoneError):
        await asked
    assert isinstance(control.broken, AgentGoneError)
    await control.close()


def test_the_proxy_passes_on_every_call_of_the_contract() -> None:
    service = pb.DESCRIPTOR.services_by_name["GuestAgent"]
    assert set(proxy._STREAMS) == {f"/{service.full_name}/{method.name}" for method in service.methods}


def looked(request_id: str) -> pb.ControlAnswer:
    return pb.ControlAnswer(workload=pb.WorkloadResponse(request_id=request_id))


async def asked_about_programs() -> tuple[Call, Control, asyncio.Future[pb.ControlAnswer]]:
    """A stream on which the question "a" about programs was asked, and its answer that is awaited."""
    call = Call()
    control = of(call)
    request = pb.ControlRequest(workload=pb.WorkloadRequest(request_id="a"))
    first = asyncio.ensure_future(control.ask_once(request, "a", timeout=DEADLINE))
    await call.asked(1)
    return call, control, first


@pytest.mark.parametrize("answers", [[looked("a"), looked("a")], [listed("a")]], ids=["twice", "a list"])
async def test_a_look_at_programs_has_one_answer_and_of_its_kind(answers: list[pb.ControlAnswer]) -> None:
    call, control, first = await asked_about_programs()
    call.say(*answers)
    with pytest.raises(AgentGoneError) as error:
        await first
    assert (error.value.reason.code, call.cancelled) == ("agent-bad-message", True)
    await control.close()


async def test_a_question_that_ends_without_an_answer_has_an_empty_one() -> None:
    call, control, first = await asked_about_programs()
    call.say(ended("a"))
    assert await first == pb.ControlAnswer()
    await control.close()


async def test_a_question_at_which_the_agent_fails_leaves_the_session_good() -> None:
    call, control, first = await asked_about_programs()
    call.say(pb.ControlAnswer(ended=pb.ControlEnded(request_id="a", failed="OSError: no\x1b[2J room")))
    with pytest.raises(VcpuctlError) as error:
        await first
    assert not isinstance(error.value, AgentGoneError)
    assert (error.value.reason.code, error.value.reason.text) == (
        "agent-failed",
        "the agent said: OSError: no\\x1b[2J room",
    )
    assert (control.broken, call.cancelled) == (None, False)
    await control.close()
