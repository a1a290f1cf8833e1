# SPDX-License-Identifier: Apache-2.0
"""``python -m kit.fakes.qemu --dir D``: the fake as a process. It prints "ready" when its sockets are there."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import MISSING, fields
from pathlib import Path

from kit.fakes.qemu.config import Config
from kit.fakes.qemu.process import DISK
from kit.fakes.qemu.qemu import FakeQemu


def _version(text: str) -> tuple[int, int, int]:
    major, minor, micro = map(int, text.split("."))
    return major, minor, micro


def _switch(text: str) -> bool:
    return {"on": True, "off": False}[text]


def build_parser() -> argparse.ArgumentParser:
    """One option for each field of Config; switches take on or off."""
    parser = argparse.ArgumentParser(prog="kit.fakes.qemu", description="A fake QEMU for tests.")
    parser.add_argument("--dir", type=Path, required=True, help="folder for the sockets")
    parser.add_argument("--bridge", type=_switch, default=False, help="a fake kernel and port for a real vcpud")
    kinds: dict[type, Callable[[str], object]] = {bool: _switch, tuple: _version, int: int, str: str}
    for item in fields(Config):
        assert item.default is not MISSING
        parser.add_argument(
            f"--{item.name.replace('_', '-')}", dest=item.name, type=kinds[type(item.default)], default=item.default
        )
    return parser


def _abort() -> None:
    os.kill(os.getpid(), signal.SIGABRT)


async def serve(folder: Path, config: Config, *, bridge: bool) -> None:
    """Until the machine is powered off."""
    vm: AbstractAsyncContextManager[FakeQemu]
    if bridge:
        from kit.fakes.qemu.bridge import BridgedVm

        vm = BridgedVm(folder, config, die=_abort)
    else:
        vm = FakeQemu(folder, config, die=_abort)
    async with vm as qemu:
        print("ready", flush=True)
        await qemu.dead.wait()


def main() -> int:
    """The exit status is 0 for a clean end; a crash is a signal."""
    words = sys.argv[1:]
    options = vars(build_parser().parse_args(words[: words.index(DISK)] if DISK in words else words))
    folder: Path = options.pop("dir")
    bridge: bool = options.pop("bridge")
    asyncio.run(serve(folder, Config(**options), bridge=bridge))
    return 0


if __name__ == "__main__":
    sys.exit(main())
