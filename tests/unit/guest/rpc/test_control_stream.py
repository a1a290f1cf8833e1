# SPDX-License-Identifier: Apache-2.0
"""The Control stream, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from kit.until import DEADLINE
from vcpu_guest.core.request import RequestError
from vcpu_guest.rpc import control_stream as control_module
from vcpu_guest.rpc.control_stream import MAX_OPEN, ControlStream
from vcpu_proto.v1 import agent_pb2 as pb


class Work:
    """What the requests ask for: a SetOnline answers each name when it is let, and then ends."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.given_up: list[str] = []
        self.mistake: Exception | None = None

    async def _let(self, request_id: str) -> None:
        if self.mistake is not None:
            raise self.mistake
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.given_up.append(request_id)
            raise

    def list_cpus(self, request: pb.ListCpusRequest) -> pb.ListCpusResponse:
        if request.request_id == "wrong":
            raise RequestError("no such thing")
        return pb.ListCpusResponse(request_id=request.request_id, snapshot=pb.Snapshot(generation=7))

    async def workload(self, request: pb.WorkloadRequest) -> pb.WorkloadResponse:
        await self._let(request.request_id)
        return pb.WorkloadResponse(request_id=request.request_id)

    async def set_online(self, request: pb.SetOnlineRequest) -> AsyncGenerator[pb.SetOnlineResponse, None]:
        await self._let(request.request_id)
        for name in request.firmware_ids:
            yield pb.SetOnlineResponse(request_id=request.request_id, result=pb.CpuResult(firmware_id=name))


@asynccontextmanager
async def control_of(work: Work) -> AsyncGenerator[ControlStream, None]:
    control = ControlStream(work.list_cpus, work.set_online, work.workload)
    try:
        yield control
    finally:
        await control.close()


def asks(request_id: str, *names: str) -> pb.ControlRequest:
    return pb.ControlRequest(set_online=pb.SetOnlineRequest(request_id=request_id, firmware_ids=names))


async def said(control: ControlStream, until_ended: int) -> list[tuple[str, str]]:
    """Kind and request of every answer, until so many requests have ended."""
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(DEADLINE):
        async for message in control.answers():
            for answer in message.answers:
                kind = str(answer.WhichOneof("answer"))
                found.append((kind, getattr(answer, kind).request_id))
            if [kind for kind, _ in found].count("ended") == until_ended:
                return found
    raise AssertionError(found)


async def test_requests_are_worked_on_side_by_side_and_each_one_ends() -> None:
    work = Work()
    async with control_of(work) as control:
        control.take(asks("a", "x", "y"))
        control.take(pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id="b")))
        assert await said(control, 1) == [("list_cpus", "b"), ("ended", "b")]
        work.let.set()
        assert await said(control, 1) == [("set_online", "a"), ("set_online", "a"), ("ended", "a")]


async def test_a_look_at_programs_holds_up_nobody_and_can_be_given_up() -> None:
    work = Work()
    async with control_of(work) as control:
        for name in "ab":
            control.take(pb.ControlRequest(workload=pb.WorkloadRequest(request_id=name)))
        await asyncio.sleep(0)
        control.take(pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id="c")))
        control.take(pb.ControlRequest(cancel="a"))
        assert await said(control, 2) == [("list_cpus", "c"), ("ended", "c"), ("ended", "a")]
        assert work.given_up == ["a"]
        work.let.set()
        assert await said(control, 1) == [("workload", "b"), ("ended", "b")]


async def test_a_look_at_programs_that_fails_ends_alone_and_says_why() -> None:
    work = Work()
    async with control_of(work) as control:
        control.take(asks("a", "x"))
        await asyncio.sleep(0)
        work.mistake = OSError(24, "Too many open files")
        control.take(pb.ControlRequest(workload=pb.WorkloadRequest(request_id="p")))
        async with asyncio.timeout(DEADLINE):
            message = await anext(control.answers())
        (answer,) = message.answers
        assert answer.ended == pb.ControlEnded(request_id="p", failed="OSError: [Errno 24] Too many open files")
        assert work.given_up == []
        work.let.set()
        assert await said(control, 1) == [("set_online", "a"), ("ended", "a")]


async def test_the_answer_about_programs_shares_a_message_with_its_end() -> None:
    work = Work()
    work.let.set()
    async with control_of(work) as control:
        control.take(pb.ControlRequest(workload=pb.WorkloadRequest(request_id="p")))
        async with asyncio.timeout(DEADLINE):
            message = await anext(control.answers())
    assert [answer.WhichOneof("answer") for answer in message.answers] == ["workload", "ended"]


async def test_large_answers_share_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "MOST_BYTES", 15)
    async with control_of(Work()) as control:
        for name in ("1", "2", "long" * 5, "3"):
            control.take(pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id=name)))
        control.end()
        sizes = [sum(each.ByteSize() for each in message.answers) async for message in control.answers()]
    assert len(sizes) > 3
    assert [size for size in sizes if size > 15] == [28, 24]


async def test_what_comes_about_together_goes_out_in_one_message() -> None:
    async with control_of(Work()) as control:
        for number in range(3):
            control.take(pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id=str(number))))
        message = await anext(control.answers())
        assert len(message.answers) == 6


@pytest.mark.parametrize(
    ("status", "waits"),
    [
        (pb.CpuResult.STATUS_DONE, True),
        (pb.CpuResult.STATUS_ALREADY, True),
        (pb.CpuResult.STATUS_REFUSED, False),
        (pb.CpuResult.STATUS_ABSENT, False),
    ],
)
async def test_good_news_waits_for_more_while_its_request_goes_on_and_bad_news_does_not(
    status: pb.CpuResult.Status, waits: bool
) -> None:
    settled, go_on = asyncio.Event(), asyncio.Event()

    async def set_online(request: pb.SetOnlineRequest) -> AsyncGenerator[pb.SetOnlineResponse, None]:
        yield pb.SetOnlineResponse(request_id=request.request_id, result=pb.CpuResult(status=status))
        settled.set()
        await go_on.wait()

    control = ControlStream(Work().list_cpus, set_online, Work().workload)
    control.take(asks("a", "x"))
    message = asyncio.ensure_future(anext(control.answers()))
    await settled.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert message.done() is not waits
    go_on.set()
    async with asyncio.timeout(DEADLINE):
        kinds = [answer.WhichOneof("answer") for answer in (await message).answers]
    assert kinds == (["set_online", "ended"] if waits else ["set_online"])
    await control.close()


async def test_good_news_waits_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "GATHER", 0.01)
    never = asyncio.Event()

    async def set_online(request: pb.SetOnlineRequest) -> AsyncGenerator[pb.SetOnlineResponse, None]:
        result = pb.CpuResult(status=pb.CpuResult.STATUS_DONE)
        yield pb.SetOnlineResponse(request_id=request.request_id, result=result)
        await never.wait()

    control = ControlStream(Work().list_cpus, set_online, Work().workload)
    control.take(asks("a", "x"))
    async with asyncio.timeout(DEADLINE):
        message = await anext(control.answers())
    assert [answer.WhichOneof("answer") for answer in message.answers] == ["set_online"]
    await control.close()


async def test_a_request_that_is_given_up_stops_and_ends_and_others_go_on() -> None:
    work = Work()
    async with control_of(work) as control:
        control.take(asks("a", "x"))
        control.take(asks("b", "y"))
        await asyncio.sleep(0)
        control.take(pb.ControlRequest(cancel="a"))
        control.take(pb.ControlRequest(cancel="of nobody"))
        assert await said(control, 1) == [("ended", "a")]
        assert work.given_up == ["a"]
        work.let.set()
        assert await said(control, 1) == [("set_online", "b"), ("ended", "b")]


async def test_a_wrong_request_is_rejected_in_words_and_the_stream_goes_on() -> None:
    work = Work()
    work.mistake = RequestError("named twice")
    async with control_of(work) as control:
        control.take(pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id="wrong")))
        control.take(asks("a", "x", "x"))
        control.take(pb.ControlRequest(workload=pb.WorkloadRequest(request_id="p")))
        ended: dict[str, str] = {}
        async with asyncio.timeout(DEADLINE):
            async for message in control.answers():
                ended |= {answer.ended.request_id: answer.ended.rejected for answer in message.answers}
                if len(ended) == 3:
                    break
        assert ended == {"wrong": "no such thing", "a": "named twice", "p": "named twice"}
        control.take(pb.ControlRequest())  # of a newer host, which should not have sent it
        control.take(pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id="b")))
        assert await said(control, 1) == [("list_cpus", "b"), ("ended", "b")]


async def test_a_host_that_breaks_the_contract_loses_the_stream() -> None:
    async with control_of(Work()) as control:
        control.take(asks("a", "x"))
        with pytest.raises(RequestError, match="under way already"):
            control.take(asks("a", "y"))
        with pytest.raises(RequestError, match="129 characters"):
            control.take(asks("b" * 129, "y"))


async def test_more_requests_than_a_host_ever_has_are_turned_away() -> None:
    work = Work()
    async with control_of(work) as control:
        for number in range(MAX_OPEN + 1):
            control.take(asks(str(number), "x"))
        assert await said(control, 1) == [("ended", str(MAX_OPEN))]


async def test_the_end_gives_up_all_that_is_under_way() -> None:
    work = Work()
    control = ControlStream(work.list_cpus, work.set_online, work.workload)
    control.take(asks("a", "x"))
    await asyncio.sleep(0)
    await control.close()
    assert work.given_up == ["a"]
    assert await said(control, 1) == [("ended", "a")]
    assert [message async for message in control.answers()] == []


async def test_what_was_answered_before_the_host_closed_its_side_is_still_sent() -> None:
    async with control_of(Work()) as control:
        control.take(pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id="a")))
        control.end()
        assert await said(control, 1) == [("list_cpus", "a"), ("ended", "a")]


async def test_a_mistake_of_ours_ends_the_stream_so_that_nobody_waits_for_it() -> None:
    work = Work()
    work.mistake = RuntimeError("a bug")
    async with control_of(work) as control:
        control.take(asks("a", "x"))
        with pytest.raises(RuntimeError, match="a bug"):
            await said(control, 1)
