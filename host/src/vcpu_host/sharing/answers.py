# SPDX-License-Identifier: Apache-2.0
"""How a coordinator answers a call: with a document, and with messages on the way there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .. import documents
from ..core.reason import Reason
from ..documents import Document
from .calls import Call, Kind
from .shown import Shown, Views
from .wire import Message

if TYPE_CHECKING:
    from ..core.operation import events as ev
    from ..core.operation.machine import Machine
    from ..core.operation.result import OperationResult
    from ..core.planning.plan import Request
    from ..vm.coordinator import Coordinator

#: Hears what is to be told before the answer:
#: {"view": of_view}, {"progress": [settled slots, slots, words]}, {"log": {"event": name, ...}},
#: {"proxy": the path of a unix socket with the agent's gRPC service, or None},
#: {"waits": {"reason": of_reason, "seconds": at most}}, {"holder": who is waited for}.
Say = Callable[[Message], None]
#: Hears how an operation has ended, and writes that down; returns what became of that, in words.
Ended = Callable[["OperationResult"], str]

#: Operations that are shorter, in seconds, show no progress.
_MOMENT = 0.3
#: Progress is told so often at most, in seconds: of many slots something changes all the time. What is left out then is
#: made up for by the next event, which the looks at QEMU bring each second.
_EVERY = 0.1


def not_logged(result: OperationResult) -> str:
    """Write no entry of it."""
    del result
    return "none"


async def answer(
    vm: Coordinator, call: Call, say: Say, monitor: str, ended: Ended = not_logged, views: Views | None = None
) -> Document:
    """Return the document that answers the call; ``monitor`` is the path of the VM's monitor.

    ``views`` has those documents that others are shown, too.

    WATCH ends when its time is over, or when it is cancelled. Raise what the coordinator raises. (PROXY is answered by
    ``hold``: it takes more than a coordinator.)
    """
    match call.kind:
        case Kind.LIST:
            return (views or Views()).of(await vm.look())
        case Kind.WATCH:
            return await _watch(vm, call, say, views or Views())
        case Kind.PLAN:
            return documents.of_plan(await vm.plan(_request(call)))
        case Kind.DOCTOR:
            from .checkup import findings

            view = await vm.checkup()
            return documents.of_findings(findings(view, vm.identity, monitor))
        case Kind.SHAPE:
            shape = await vm.shape()
            return {**shape.to_json(), "default_ids": shape.default_ids}  # which an export does not have
        case Kind.RUN:
            return await _run(vm, call, say, ended)
    raise ValueError(f"{call.kind} is no call that a coordinator answers")


def _request(call: Call) -> Request:
    if call.request is None:
        raise ValueError(f"{call.kind} without a request")
    return call.request


async def _watch(vm: Coordinator, call: Call, say: Say, made: Views) -> Document:
    """Say each view that differs from the one before in more than what looking itself changes."""
    until = None if call.timeout is None else asyncio.get_running_loop().time() + call.timeout
    shown: Shown | None = None
    async with aclosing(vm.watch(until=until)) as views:
        async for view in views:
            document = made.of(view)
            if shown is None or documents.without_descriptors(document) != documents.without_descriptors(shown):
                say({"view": document})
            shown = document
    return {}


async def _run(vm: Coordinator, call: Call, say: Say, ended: Ended) -> Document:
    from ..core.operation.limits import Limits

    def waits(trouble: Reason, left: float) -> None:
        say({"waits": {"reason": documents.of_reason(trouble), "seconds": left}})

    steps = Steps(call, say) if call.steps or call.verbosity else None
    result = await vm.run(_request(call), Limits.within(call.timeout), steps, waits)
    entry = await asyncio.to_thread(ended, result)  # a journal that takes nothing is waited for
    if call.verbosity:
        say({"log": {"event": "journal", "entry": entry}})
    return documents.of_result(result)


class Steps:
    """Says how far an operation is. The coordinator calls it with every event and action."""

    def __init__(self, call: Call, say: Say) -> None:
        self._call = call
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._progress_at = self._loop.time() + _MOMENT

    def __call__(self, what: ev.Event | ev.Action, machine: Machine) -> None:
        """Say what is worth it."""
        # What nobody reads is not put into words: with many slots that would cost more than the operation itself.
        if self._call.verbosity > 0 and _tells(what):
            self._say({"log": {"event": type(what).__name__, **_fields(what)}})
            if self._call.verbosity > 1:
                self._say({"log": {"event": "state", **machine.dump()}})
        if self._call.steps and (now := self._loop.time()) > self._progress_at:
            self._progress_at = now + _EVERY
            self._say({"progress": list(machine.progress())})


def _tells(what: ev.Event | ev.Action) -> bool:
    from ..core.operation import events as ev

    return not isinstance(what, (ev.DoLookHost, ev.HostLooked, ev.Tick))


def _fields(what: ev.Event | ev.Action) -> dict[str, Any]:
    """Return what is worth a log line.

    Simple values are as they are, the rest is by its repr (which escapes control characters).
    """
    fields: dict[str, Any] = {}
    for name in what.__match_args__:
        value = getattr(what, name)
        fields[name] = value if isinstance(value, str | int | float | bool | None) else repr(value)
    return fields
