# SPDX-License-Identifier: Apache-2.0
"""What each command does: ask the VM, show the answer, say how it ended."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable

from vcpu_host.sharing.calls import Call, Kind

from . import render
from .connect import vm_of
from .exitcodes import Exit
from .progress import Progress
from .target import many


async def run(args: argparse.Namespace) -> Exit:
    """Run the command that ``args`` name."""
    if args.command in _OF_MANY and (words := many(args)):
        from .fleet import ask_many

        return await ask_many(args, words)
    return await _COMMANDS[args.command](args)


def may_change(args: argparse.Namespace) -> bool:
    """Return whether the command may have changed something when it ends in the middle, without an answer."""
    if getattr(args, "dry_run", False):
        return False
    step = {"migrate": "migrate", "autoscale": "step", "channel": "apply"}.get(args.command)
    return args.command in _CHANGE or (step is not None and getattr(args, step) in ("prepare", "on", "off", True))


async def _list(args: argparse.Namespace) -> Exit:
    if args.output != "json":
        # While the guest thinks about its answer: what shows tables is slow to import.
        asyncio.get_running_loop().run_in_executor(None, _load_tables)
    with Progress.of(args) as progress:
        view = await vm_of(args).ask(Call(Kind.LIST), progress.hear)
    if args.output == "json":
        render.emit_json(view)
    else:
        from . import tables

        tables.show(tables.for_terminal(view, args.output))
    return Exit.DONE


def _load_tables() -> None:
    from . import tables

    if tables.is_drawn():
        tables.load()


async def _plan(args: argparse.Namespace) -> Exit:
    from .operate import show_plan

    return await show_plan(args)


async def _operate(args: argparse.Namespace) -> Exit:
    from .operate import operate

    return await operate(args)


async def _export(args: argparse.Namespace) -> Exit:
    from .migrate import export

    return await export(args)


async def _migrate(args: argparse.Namespace) -> Exit:
    from .migrate import migrate

    return await migrate(args)


async def _numa(args: argparse.Namespace) -> Exit:
    from .numa import numa

    return await numa(args)


async def _watch(args: argparse.Namespace) -> Exit:
    from .watch import watch

    return await watch(args, vm_of(args))


async def _doctor(args: argparse.Namespace) -> Exit:
    from .doctor import doctor

    return await doctor(args)


async def _apply(args: argparse.Namespace) -> Exit:
    from .apply import apply

    return await apply(args)


async def _log(args: argparse.Namespace) -> Exit:
    from .log import log

    return await log(args)


async def _vms(args: argparse.Namespace) -> Exit:
    if args.connect is not None:
        from .domains import domains

        return await domains(args)
    from .vms import vms

    return await vms(args)


async def _channel(args: argparse.Namespace) -> Exit:
    from .channel import channel

    return await channel(args)


async def _agent_proxy(args: argparse.Namespace) -> Exit:
    from .proxy import proxy

    return await proxy(args, vm_of(args))


async def _autoscale(args: argparse.Namespace) -> Exit:
    from .autoscale import autoscale

    return await autoscale(args)


async def _serve(args: argparse.Namespace) -> Exit:
    from .serve import serve

    return await serve(args)


#: The commands that may be given several VMs.
_OF_MANY = frozenset({"list", "plan", "plug", "unplug", "scale", "online", "offline", "doctor"})
#: The commands that change something, whatever their words are.
_CHANGE = frozenset({"plug", "unplug", "scale", "online", "offline", "apply", "numa"})

_COMMANDS: dict[str, Callable[[argparse.Namespace], Awaitable[Exit]]] = {
    "list": _list,
    "plan": _plan,
    "plug": _operate,
    "unplug": _operate,
    "scale": _operate,
    "online": _operate,
    "offline": _operate,
    "apply": _apply,
    "export": _export,
    "migrate": _migrate,
    "numa": _numa,
    "watch": _watch,
    "doctor": _doctor,
    "vms": _vms,
    "channel": _channel,
    "agent-proxy": _agent_proxy,
    "autoscale": _autoscale,
    "log": _log,
    "serve": _serve,
}
