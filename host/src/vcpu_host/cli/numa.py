# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl numa assign``: NUMA nodes for the slots of a QEMU that waits in preconfig."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from vcpu_host import documents
from vcpu_host.core import codes
from vcpu_host.core.numa import ByMap, ByPolicy, MapError, Wish
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.planning.selectors import SelectorError
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import UsageError, bad_slot
from vcpu_host.local import inputs
from vcpu_host.vm.numa_assign import assign
from vcpu_host.vm.open import open_preconfig

from . import render
from .connect import command_line
from .exitcodes import Exit, of_outcome
from .target import sockets_of

#: How libvirt does it.
_WAY = "virsh edit DOMAIN: <numa><cell cpus='...'/></numa> within <cpu> gives each vCPU its node at the next start"

#: No map of 65536 slots is larger.
_MOST = 4 << 20


async def numa(args: argparse.Namespace) -> Exit:
    """Run ``vcpuctl numa assign``. Return the outcome's exit status: refused when nothing was set."""
    wish = _wish(args)
    async with open_preconfig(sockets_of(args, _WAY), holder=command_line()) as qemu:
        try:
            assigned = await assign(qemu, wish, dry_run=args.dry_run)
        except MapError as error:
            raise _bad_map(str(error)) from error
        except SelectorError as error:
            raise bad_slot(str(error)) from error
    if args.output == "json":
        render.emit_json(documents.of_assigned(assigned))
    elif not (args.quiet and assigned.outcome is Outcome.DONE and not args.dry_run):
        from . import tables

        tables.show(tables.assigned_blocks(assigned))
    return of_outcome(assigned.outcome)


def _wish(args: argparse.Namespace) -> Wish:
    return ByPolicy(Placement(args.policy)) if args.map is None else ByMap(_read(args.map))


def _read(path: str) -> Mapping[str, Any]:
    """Return a map. Raise UsageError "bad-map" if it is none."""
    try:
        return inputs.toml_table(path, _MOST)
    except inputs.InputError as error:
        raise _bad_map(f"{path}: {error}") from error


def _bad_map(text: str) -> UsageError:
    hint = "write a line for each node, with all of its slots: 0 = ['socket-id=0']"
    return UsageError(Reason(codes.BAD_MAP, Origin.VCPUCTL, text, hint))
