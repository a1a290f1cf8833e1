# SPDX-License-Identifier: Apache-2.0
"""One Control stream: requests come in as messages, are worked on side by side, and their answers go out together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import partial

from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_guest.core.request import RequestError, check_request_id

#: Requests under way at once; a host has one or two.
MAX_OPEN = 64

#: Seconds that the good news of one CPU may wait for the next one's. A message costs the guest time just when it has
#: another CPU to bring up, and the host waits for the last of them.
GATHER = 1.0

ListCpus = Callable[[pb.ListCpusRequest], pb.ListCpusResponse | Awaitable[pb.ListCpusResponse]]
SetOnline = Callable[[pb.SetOnlineRequest], AsyncGenerator[pb.SetOnlineResponse, None]]


class ControlStream:
    """One ``Control`` call: requests in, answers out.

    ``list_cpus`` and ``set_online`` do the work, and raise GoalError for a wrong request.
    """

    def __init__(self, list_cpus: ListCpus, set_online: SetOnline) -> None:
        self._list_cpus = list_cpus
        self._set_online = set_online
        self._open: dict[str, asyncio.Task[None]] = {}
        self._answers: list[pb.ControlAnswer] = []
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._mistake: BaseException | None = None

    def take(self, message: pb.ControlRequest) -> None:
        """Begin what the message asks for. GoalError if the host breaks the contract: the stream is no use then."""
        kind = message.WhichOneof("request")
        if kind == "list_cpus":
            self._look(message.list_cpus)
        elif kind == "set_online":
            self._begin(message.set_online.request_id, partial(self._switch, message.set_online))
        elif kind == "cancel":
            task = self._open.get(message.cancel)
            if task is not None:
                task.cancel()
        # What a newer host may ask beyond that, it asks only of an agent whose capabilities say so.

    def end(self) -> None:
        """No more requests come: what is under way is given up, and ``answers`` ends with what there is to say."""
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
        """All that is to be said; what came about since the last message makes up the next.

        Raises what a request raised that it may not: a mistake of ours, which the host learns of by the stream's end.
        """
        while self._answers or not self._ended:
            await self._changed.wait()
            self._changed.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._answers:
                answers, self._answers = self._answers, []
                yield pb.ControlResponse(answers=answers)
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
        # Not at the end of the task's own code: one that is cancelled before it began never runs that.
        task.add_done_callback(lambda task: self._over(request_id, task))

    def _look(self, request: pb.ListCpusRequest) -> None:
        try:
            answer = self._list_cpus(request)
        except RequestError as error:
            self._put_end(request.request_id, str(error))
            return
        if isinstance(answer, pb.ListCpusResponse):
            self._put(pb.ControlAnswer(list_cpus=answer))
            self._put_end(request.request_id, "")
        else:
            self._begin(request.request_id, partial(self._await_look, answer))

    async def _await_look(self, answer: Awaitable[pb.ListCpusResponse]) -> None:
        self._put(pb.ControlAnswer(list_cpus=await answer))

    async def _switch(self, request: pb.SetOnlineRequest) -> None:
        async with aclosing(self._set_online(request)) as answers:
            async for answer in answers:
                self._put(pb.ControlAnswer(set_online=answer), GATHER if _can_wait(answer) else 0.0)

    def _over(self, request_id: str, task: asyncio.Task[None]) -> None:
        del self._open[request_id]
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not isinstance(problem, RequestError):
            self._mistake = problem
            self.end()
            return
        self._put_end(request_id, str(problem or ""))

    def _put_end(self, request_id: str, rejected: str) -> None:
        self._put(pb.ControlAnswer(ended=pb.ControlEnded(request_id=request_id, rejected=rejected)))

    def _put(self, answer: pb.ControlAnswer, patience: float = 0.0) -> None:
        self._answers.append(answer)
        if patience == 0.0:
            self._changed.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(patience, self._changed.set)


def _can_wait(answer: pb.SetOnlineResponse) -> bool:
    """A CPU that is as wanted is no news that anybody has to act on at once."""
    return answer.HasField("result") and answer.result.status in (
        pb.CpuResult.STATUS_DONE,
        pb.CpuResult.STATUS_ALREADY,
    )
