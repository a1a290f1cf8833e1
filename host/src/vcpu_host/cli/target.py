# SPDX-License-Identifier: Apache-2.0
"""Which VM is meant: by options, else by the environment; and sockets in the words in which QEMU is given them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace

from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import UsageError
from vcpu_host.local.target import Target, plain_name

#: Stand for --vm and --qmp where neither is given.
VM, QMP = "VCPUCTL_VM", "VCPUCTL_QMP"


def sockets(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Target:
    """The sockets of the VM that --vm, or --qmp and --agent name, else the environment.

    UsageError if none is named, if the environment names two, or if a name cannot be one of a unix socket.
    """
    vm, qmp = args.vm, args.qmp
    if vm is None and qmp is None:
        vm, qmp = (environment.get(name) or None for name in (VM, QMP))
        if vm is not None and qmp is not None:
            raise _usage(codes.TWO_VMS, f"{VM} and {QMP} are both set", "unset one of them, or give --vm or --qmp")
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
