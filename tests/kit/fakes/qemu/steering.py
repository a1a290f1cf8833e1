# SPDX-License-Identifier: Apache-2.0
"""Commands of the steering socket, by which a test in another process says what shall go wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from kit.fakes.qemu.commands import Arguments, Handler
from kit.fakes.qemu.errors import QmpError
from kit.fakes.qemu.faults import Rule

if TYPE_CHECKING:
    from kit.fakes.qemu.qemu import FakeQemu


def _rule(qemu: FakeQemu, args: Arguments) -> Any:
    """``at``, ``do``, ``times`` (null: always), ``slot``, and what the deed needs; the rule's number comes back."""
    given = dict(args.given)
    try:
        rule = Rule(given.pop("at"), given.pop("do"), given.pop("times", 1), given.pop("slot", None), given)
    except (KeyError, ValueError) as err:
        raise QmpError("GenericError", f"no such rule: {err}") from err
    return qemu.faults.add(rule)


def _pick(qemu: FakeQemu, args: Arguments) -> Rule:
    number = args.given.get("rule")
    if not isinstance(number, int) or not 0 <= number < len(qemu.faults.rules):
        raise QmpError("GenericError", f"no rule {number}")
    return qemu.faults.rules[number]


def _release(qemu: FakeQemu, args: Arguments) -> Any:
    _pick(qemu, args).released.set()
    return {}


async def _wait(qemu: FakeQemu, args: Arguments) -> Any:
    """Until the rule has applied once."""
    rule = _pick(qemu, args)
    async with asyncio.timeout(float(args.given.get("seconds", 80))):
        await rule.hit.wait()
    return rule.hits


def _clear(qemu: FakeQemu, args: Arguments) -> Any:
    del args
    qemu.faults.clear()
    return {}


async def _idle(qemu: FakeQemu, args: Arguments) -> Any:
    """Until the guest has nothing to do."""
    async with asyncio.timeout(float(args.given.get("seconds", 80))):
        await qemu.machine.idle.wait()
    return {}


def _close(qemu: FakeQemu, args: Arguments) -> Any:
    qemu.monitors[args.need("monitor")].drop_client()
    return {}


def _die(qemu: FakeQemu, args: Arguments) -> Any:
    del args
    qemu.die()
    return {}


def _emit(qemu: FakeQemu, args: Arguments) -> Any:
    qemu.emit(args.need("event"), args.given.get("data"))
    return {}


async def _boot(qemu: FakeQemu, args: Arguments) -> Any:
    del args
    await qemu.machine.boot()
    qemu.machine.wake()
    return {}


async def _guest_reset(qemu: FakeQemu, args: Arguments) -> Any:
    del args
    await qemu.machine.reset(guest=True)
    return {}


def _port(qemu: FakeQemu, args: Arguments) -> Any:
    qemu.set_port(guest_open=bool(args.given.get("open")))
    return {}


async def _port_wait(qemu: FakeQemu, args: Arguments) -> Any:
    """Until the guest has the port ``open``, or not."""
    async with asyncio.timeout(float(args.given.get("seconds", 80))):
        while qemu.port.guest_open is not args.given["open"]:
            qemu.port_moved.clear()
            await qemu.port_moved.wait()
    return {}


def _migrating(qemu: FakeQemu, args: Arguments) -> Any:
    qemu.machine.migrating = bool(args.given.get("on"))
    return {}


def _log(qemu: FakeQemu, args: Arguments) -> Any:
    del args
    return [{"time": when, "command": command, "arguments": arguments} for when, command, arguments in qemu.log]


STEERING: dict[str, Handler] = {
    "x-fake-rule": _rule,
    "x-fake-release": _release,
    "x-fake-wait": _wait,
    "x-fake-clear": _clear,
    "x-fake-idle": _idle,
    "x-fake-close": _close,
    "x-fake-die": _die,
    "x-fake-emit": _emit,
    "x-fake-boot": _boot,
    "x-fake-guest-reset": _guest_reset,
    "x-fake-port": _port,
    "x-fake-port-wait": _port_wait,
    "x-fake-migrating": _migrating,
    "x-fake-log": _log,
}
