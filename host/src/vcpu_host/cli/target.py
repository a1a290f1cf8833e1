# SPDX-License-Identifier: Apache-2.0
"""Which VM is meant: by options, else by the environment; and sockets in the words in which QEMU is given them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace

from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.text import is_pattern
from vcpu_host.errors import UsageError
from vcpu_host.local.target import Target, plain_name

#: Stand for --vm and --qmp where neither is given.
VM, QMP = "VCPUCTL_VM", "VCPUCTL_QMP"


def many(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names and patterns that name VMs, if they may be more than one; empty if one VM is meant, or none."""
    if args.all_vms:
        return ["*"]
    words: list[str] = args.vm or []
    if not words and args.qmp is None:
        words = [environment.get(VM) or ""] if not environment.get(QMP) else []
    return words if len(words) > 1 or any(map(is_pattern, words)) else []


def _meant(args: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the VM's name and its monitor's socket, of which at most one is not None."""
    vm, qmp = args.vm[0] if args.vm else None, args.qmp
    if vm is None and qmp is None:
        vm, qmp = (environment.get(name) or None for name in (VM, QMP))
        if vm is not None and qmp is not None:
            raise _usage(codes.TWO_VMS, f"{VM} and {QMP} are both set", "unset one of them, or give --vm or --qmp")
    return vm, qmp


def sockets(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Target:
    """The sockets of the VM that --vm, or --qmp and --agent name, else the environment.

    UsageError if none is named, if the environment names two, or if a name cannot be one of a unix socket.
    """
    if many(args, environment):
        text = f"vcpuctl {args.command} takes one VM"
        raise _usage(codes.MANY_VMS, text, "name one by --vm NAME or --qmp SOCKET; vcpuctl vms shows them")
    vm, qmp = _meant(args, environment)
    if vm is not None:
        named = Target.named(vm)
        return named if args.agent is None else replace(named, agent=plain_name(args.agent))
    if qmp is None:
        raise _usage(
            codes.NO_VM,
            "no VM is named",
            f"give --qmp SOCKET or --vm NAME (vcpuctl vms shows them), or set {QMP} or {VM}",
        )
    return Target(plain_name(qmp), None if args.agent is None else plain_name(args.agent))


def _usage(code: codes.Code, text: str, hint: str) -> UsageError:
    return UsageError(Reason(code, Origin.VCPUCTL, text, hint))
