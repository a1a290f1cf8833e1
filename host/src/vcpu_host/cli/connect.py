# SPDX-License-Identifier: Apache-2.0
"""From the command line's options to a VM, and what is about this process alone."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING

from vcpu_host.local.target import AnyTarget
from vcpu_host.sharing.vm import Vm

from . import garbage
from .target import target_of

if TYPE_CHECKING:
    from vcpu_host.sharing.distinct import Recognise


def command_line() -> str:
    """Return what a VM's holder is known by."""
    return shlex.join(["vcpuctl", *sys.argv[1:]])[:150]


def vm_of(args: argparse.Namespace) -> Vm:
    """Return the VM that the options name."""
    return vm_at(target_of(args))


def vm_at(target: AnyTarget, recognise: Recognise | None = None) -> Vm:
    """Return this VM, to be asked by the name of this command; ``recognise`` as with ``Vm``."""
    return Vm(target, command_line(), loaded=partial(garbage.begin, seldom=True), recognise=recognise)
