# SPDX-License-Identifier: Apache-2.0
"""The commands that change a VM, and ``plan``, which shows what they would do."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable

from vcpu_host.core import codes
from vcpu_host.core.finding import Level
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.planning.plan import FLAGS, OnWorkload, Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.documents import Document
from vcpu_host.errors import UsageError
from vcpu_host.sharing.calls import Call, Kind

from . import render
from .connect import vm_of
from .exitcodes import Exit, of_plan, of_result
from .progress import Progress


def request_of(args: argparse.Namespace, name: str) -> Request:
    """Return the request that a command's arguments state. Raise UsageError if they do not go together."""
    operation = Operation(name)
    selectors, count = _wanted(args, operation)
    policy = getattr(args, "policy", None)
    try:
        return Request(
            operation,
            count,
            selectors,
            **{name: getattr(args, name, False) for name in FLAGS},
            placement=Placement(policy or Placement.LOWEST),
            node=getattr(args, "node", None),
            workload=None if args.workload is None else OnWorkload(args.workload),
            strict_placement=policy is not None,
        )
    except ValueError as error:
        raise UsageError(Reason(codes.BAD_USAGE, Origin.VCPUCTL, str(error), f"see vcpuctl {name} --help")) from error


def _wanted(args: argparse.Namespace, operation: Operation) -> tuple[tuple[str, ...], int | None]:
    """Return the slots, or the amount, that the arguments name. Raise UsageError if slots are needed and none named."""
    if operation is Operation.SCALE:
        return (), args.goal
    if operation in (Operation.PLUG, Operation.UNPLUG):
        slots = tuple(args.slots or ())
        return slots, None if slots else args.amount or args.count or 1
    slots = (*args.named, *(args.slots or ()))
    if not slots:
        hint = f"for example: vcpuctl --vm vm1 {operation} 3; see vcpuctl {operation} --help"
        raise UsageError(Reason(codes.BAD_USAGE, Origin.VCPUCTL, f"vcpuctl {operation} needs a slot", hint))
    return slots, None


async def show_plan(args: argparse.Namespace) -> Exit:
    """Run ``vcpuctl plan``, or ``--dry-run``: a plan that refuses ends with the status that the operation would."""
    request = request_of(args, args.planned if args.command == "plan" else args.command)
    with Progress.of(args) as progress:
        plan = await vm_of(args).ask(Call(Kind.PLAN, request), progress.hear)
    _print_plan(args, plan)
    return of_plan(plan)


def _print_plan(args: argparse.Namespace, plan: Document) -> None:
    if args.output == "json":
        render.emit_json(plan)
    else:
        from . import tables

        tables.show(tables.plan_blocks(plan))


async def operate(args: argparse.Namespace) -> Exit:
    """Run ``vcpuctl plug``, ``unplug``, ``scale``, ``online`` and ``offline``."""
    if getattr(args, "dry_run", False):
        return await show_plan(args)
    request = request_of(args, args.command)
    vm = vm_of(args)
    with Progress.of(args) as progress, interruptible(vm.interrupt):
        call = Call(Kind.RUN, request, args.timeout, progress.draws, min(args.verbose, 2))
        result = await vm.ask(call, progress.hear)
    _print_result(args, result)
    return of_result(result)


def _print_result(args: argparse.Namespace, result: Document) -> None:
    if args.output == "json":
        render.emit_json(result)
    elif not (args.quiet and as_asked(result)):
        from . import tables

        tables.show(tables.result_blocks(result))


def as_asked(result: Document) -> bool:
    """Return whether there is nothing to be known: all is done, and nothing of it has, say, not been verified."""
    reasons = [slot["reason"] for slot in result["slots"]]
    telling = [reason for reason in reasons if reason is not None and reason["code"] != codes.ALREADY]
    hurt = any(note["level"] == Level.WARNING for note in result.get("notes", ()))
    return result["outcome"] == Outcome.DONE and not telling and not result["recovered"] and not hurt


class interruptible:  # noqa: N801 - used like a keyword
    """Ctrl-C and SIGTERM end the wait, not the program: the result then says what is known."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._interrupt)

    def __exit__(self, *exception: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)
