# SPDX-License-Identifier: Apache-2.0
"""From the command line's options to an opened VM, and what is about this process alone."""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vcpu_host.local.target import Target
from vcpu_host.vm.coordinator import Coordinator
from vcpu_host.vm.open import open_vm

from .target import sockets


def command_line() -> str:
    """Return what a lock's holder is known by."""
    return shlex.join(["vcpuctl", *sys.argv[1:]])[:150]


@asynccontextmanager
async def coordinator(args: argparse.Namespace) -> AsyncIterator[Coordinator]:
    """Open the VM that the options name."""
    async with coordinator_of(sockets(args)) as vm:
        yield vm


@asynccontextmanager
async def coordinator_of(target: Target) -> AsyncIterator[Coordinator]:
    """Open this VM, by the name of this command."""
    async with open_vm(target, holder=command_line()) as vm:
        if not gc.isenabled():  # as main left it: all that stays is loaded now
            gc.freeze()
            gc.enable()
        yield vm
