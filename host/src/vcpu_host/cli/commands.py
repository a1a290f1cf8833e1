# SPDX-License-Identifier: Apache-2.0
"""What each command does: ask the coordinator, show the answer, say how it ended."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Awaitable, Callable

from vcpu_host.coordinator import Coordinator
from vcpu_host.core.model import Reason, Who
from vcpu_host.core.plan import Operation, Plan, Request
from vcpu_host.core.policy import Policy, default_timeout
from vcpu_host.core.result import OperationResult
from vcpu_host.core.select import SelectorError
from vcpu_host.errors import UsageError
from vcpu_host.logs import open_log

from . import render
from .connect import coordinator
from .exitcodes import Exit, of_error, of_result
from .progress import Progress


async def run(args: argparse.Namespace) -> Exit:
    """Run the command that ``args`` name."""
    try:
        return await _COMMANDS[args.command](args)
    except SelectorError as error:
        raise UsageError(Reason("bad-slot", Who.VCPUCTL, str(error), "see vcpuctl list")) from error


def request_of(args: argparse.Namespace, name: str) -> Request:
    """The request that a command's arguments state."""
    operation = Operation(name)
    if operation is Operation.SCALE:
        return Request(operation, args.goal)
    selectors = tuple(args.slots or ())
    if selectors:
        return Request(operation, None, selectors)
    return Request(operation, args.count if args.count is not None else 1)


async def _list(args: argparse.Namespace) -> Exit:
    async with coordinator(args) as vm:
        view = await vm.observe()
    if args.output == "json":
        render.emit_json(render.view_document(view))
    else:
        render.show(render.view_table(view))
    return Exit.DONE


async def _plan(args: argparse.Namespace) -> Exit:
    async with coordinator(args) as vm:
        plan = await vm.plan(request_of(args, args.planned))
    _show_plan(args, plan)
    return Exit.REFUSED if plan.refusals else Exit.DONE


def _show_plan(args: argparse.Namespace, plan: Plan) -> None:
    if args.output == "json":
        render.emit_json(plan.to_json())
    else:
        render.show(render.plan_table(plan))


async def _operate(args: argparse.Namespace) -> Exit:
    request = request_of(args, args.command)
    log = open_log(args.verbose, args.log_format)
    async with coordinator(args) as vm:
        timeout = args.timeout or default_timeout(request.count or len(request.selectors))
        policy = Policy(timeout=timeout, atomic=getattr(args, "atomic", False))
        with Progress(log) as progress, _interruptible(vm):
            result = await vm.run(request, policy, progress)
    _show_result(args, result)
    return of_result(result)


def _show_result(args: argparse.Namespace, result: OperationResult) -> None:
    if args.output == "json":
        render.emit_json(result.to_json())
    else:
        render.show(render.result_table(result))


class _interruptible:  # noqa: N801 - used like a keyword
    """Ctrl-C and SIGTERM end the wait, not the program: the result then says what is known."""

    def __init__(self, vm: Coordinator) -> None:
        self._vm = vm
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._vm.interrupt)

    def __exit__(self, *exception: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)


async def _watch(args: argparse.Namespace) -> Exit:
    from .watch import watch

    async with coordinator(args) as vm:
        return await watch(args, vm)


async def _doctor(args: argparse.Namespace) -> Exit:
    from .doctor import doctor

    return await doctor(args)


async def _agent_proxy(args: argparse.Namespace) -> Exit:
    from vcpu_host.agent.proxy import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with coordinator(args) as vm:
        await serve(vm.session, args.listen, stop)
    return Exit.DONE


_COMMANDS: dict[str, Callable[[argparse.Namespace], Awaitable[Exit]]] = {
    "list": _list,
    "plan": _plan,
    "plug": _operate,
    "unplug": _operate,
    "scale": _operate,
    "online": _operate,
    "offline": _operate,
    "watch": _watch,
    "doctor": _doctor,
    "agent-proxy": _agent_proxy,
}

__all__ = ["of_error", "request_of", "run"]
