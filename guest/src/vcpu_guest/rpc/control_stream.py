# SPDX-License-Identifier: Apache-2.0
"""One Control stream: requests come in as messages, are carried out side by side, and their answers share messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from functools import partial

from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_guest import logs
from vcpu_guest.core.request import RequestError, check_request_id
from vcpu_guest.rpc.convert import bounded

#: The most requests under way at once; a host has one or two.
MAX_OPEN = 64

#: Bytes of answers that share a message. What is larger goes out by itself.
MOST_BYTES = 1 << 20

#: Seconds that the success of one CPU may wait for that of the next one, to share a message with it. A message costs
#: the guest time just when it has another CPU to bring up, and the host waits for the last one anyway.
GATHER = 1.0

ListCpus = Callable[[pb.ListCpusRequest], pb.ListCpusResponse | Awaitable[pb.ListCpusResponse]]
SetOnline = Callable[[pb.SetOnlineRequest], AsyncGenerator[pb.SetOnlineResponse, None]]
Workload = Callable[[pb.WorkloadRequest], Awaitable[pb.WorkloadResponse]]


class LookFailedError(Exception):
    """The guest's programs could not be looked at; the text says why."""


class ControlStream:
    """The requests of one stream and their answers.

    `list_cpus`, `set_online` and `workload` carry the requests out; they raise RequestError for a wrong one.
    """

    def __init__(self, list_cpus: ListCpus, set_online: SetOnline, workload: Workload) -> None:
        self._list_cpus = list_cpus
        self._set_online = set_online
        self._workload = workload
        self._open: dict[str, asyncio.Task[None]] = {}
        self._answers: list[pb.ControlAnswer] = []
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._mistake: BaseException | None = None

    def take(self, message: pb.ControlRequest) -> None:
        """Begin what the message asks for. Raise RequestError if the host breaks the contract: the stream ends then."""
        kind = message.WhichOneof("request")
        if kind == "list_cpus":
            self._look(message.list_cpus)
        elif kind == "set_online":
            self._begin(message.set_online.request_id, partial(self._set, message.set_online))
        elif kind == "workload":
            self._begin(message.workload.request_id, partial(self._look_at_programs, message.workload))
        elif kind == "cancel":
            task = self._open.get(message.cancel)
            if task is not None:
                task.cancel()
        # Anything newer is ignored: a host asks for it only if the agent's capabilities say so.

    def end(self) -> None:
        """Give up what is under way: no more requests come. `answers` ends after the answers that are due."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._open.values():
            task.cancel()
        self._changed.set()

    async def close(self) -> None:
        """End, and return when nothing is under way any more."""
        self.end()
        await asyncio.gather(*self._open.values(), return_exceptions=True)

    async def answers(self) -> AsyncIterator[pb.ControlResponse]:
        """Yield the answers; those that are due since the last message make up the next one.

        Raise the exception of a request that failed through a mistake of ours: the host sees the stream end.
        """
        while self._answers or not self._ended:
            await self._changed.wait()
            self._changed.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            answers, self._answers = self._answers, []
            for part in _parts(answers):
                yield pb.ControlResponse(answers=part)
        if self._mistake is not None:
            raise self._mistake

    def _begin(self, request_id: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        check_request_id(request_id)
        if request_id in self._open:
            raise RequestError(f"request {request_id!r} is under way already")
        if len(self._open) >= MAX_OPEN:
            self._put_end(request_id, f"{MAX_OPEN} requests are under way already")
            return
        task = asyncio.get_running_loop().create_task(work())
        self._open[request_id] = task
        # A callback rather than code in the task: a task that is cancelled before it began runs none of its code.
        task.add_done_callback(lambda task: self._over(request_id, task))

    def _look(self, request: pb.ListCpusRequest) -> None:
        try:
            answer = self._list_cpus(request)
        except RequestError as error:
            self._put_end(request.request_id, str(error))
            return
        if isinstance(answer, pb.ListCpusResponse):
            self._put(pb.ControlAnswer(list_cpus=answer))
            self._put_end(request.request_id)
        else:
            self._begin(request.request_id, partial(self._await_look, answer))

    async def _await_look(self, answer: Awaitable[pb.ListCpusResponse]) -> None:
        self._put(pb.ControlAnswer(list_cpus=await answer), GATHER)  # its end follows at once

    async def _look_at_programs(self, request: pb.WorkloadRequest) -> None:
        try:
            answer = await self._workload(request)
        except RequestError:
            raise
        except Exception as error:  # advice: whatever it meets, requests that switch CPUs go on
            logs.warning("the guest's programs cannot be looked at", error=f"{type(error).__name__}: {error}")
            raise LookFailedError(f"{type(error).__name__}: {error}") from error
        self._put(pb.ControlAnswer(workload=answer), GATHER)  # its end follows at once

    async def _set(self, request: pb.SetOnlineRequest) -> None:
        async with aclosing(self._set_online(request)) as answers:
            async for answer in answers:
                self._put(pb.ControlAnswer(set_online=answer), GATHER if _can_wait(answer) else 0.0)

    def _over(self, request_id: str, task: asyncio.Task[None]) -> None:
        del self._open[request_id]
        problem = None if task.cancelled() else task.exception()
        if isinstance(problem, LookFailedError):
            self._put_end(request_id, failed=bounded(str(problem)))
        elif problem is None or isinstance(problem, RequestError):
            self._put_end(request_id, str(problem or ""))
        else:
            self._mistake = problem
            self.end()

    def _put_end(self, request_id: str, rejected: str = "", *, failed: str = "") -> None:
        ended = pb.ControlEnded(request_id=request_id, rejected=rejected, failed=failed)
        self._put(pb.ControlAnswer(ended=ended))

    def _put(self, answer: pb.ControlAnswer, patience: float = 0.0) -> None:
        self._answers.append(answer)
        if patience == 0.0:
            self._changed.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(patience, self._changed.set)


def _parts(answers: list[pb.ControlAnswer]) -> Iterator[list[pb.ControlAnswer]]:
    """Yield them in turn, by messages that no two large ones share: a host takes no message of more than 8 MiB."""
    part: list[pb.ControlAnswer] = []
    size = 0
    for answer in answers:
        added = answer.ByteSize()
        if part and size + added > MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(answer)
        size += added
    if part:
        yield part


def _can_wait(answer: pb.SetOnlineResponse) -> bool:
    """Say whether nobody has to act on this answer at once: a CPU is as the host wanted it."""
    return answer.HasField("result") and answer.result.status in (
        pb.CpuResult.STATUS_DONE,
        pb.CpuResult.STATUS_ALREADY,
    )
