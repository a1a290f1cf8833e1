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
from vcpu_host.errors import RefusedError, UsageError
from vcpu_host.local.target import AnyTarget, Domain, Target, plain_name

#: Stand for --vm and --qmp where neither is given.
VM, QMP = "VCPUCTL_VM", "VCPUCTL_QMP"
#: Stands for --connect where that is not given; virsh knows it, too (https://libvirt.org/uri.html).
URI = "LIBVIRT_DEFAULT_URI"


def many(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names and patterns that name VMs, if they may be more than one; empty if one VM is meant, or none."""
    if args.all_vms:
        return ["*"]
    words: list[str] = args.vm or []
    if not words and args.qmp is None and args.domain is None:
        words = [environment.get(VM) or ""] if not environment.get(QMP) else []
    return words if len(words) > 1 or any(map(is_pattern, words)) else []


def target_of(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> AnyTarget:
    """Return the VM that the options name: --vm, --domain, or --qmp; else the one that the environment names.

    Raise UsageError if none is named, if several are, or if a name cannot be one of a unix socket.
    """
    if many(args, environment):
        text = f"vcpuctl {args.command} takes one VM"
        raise _usage(codes.MANY_VMS, text, "name one by --vm NAME or --qmp SOCKET; vcpuctl vms shows them")
    if args.domain is not None:
        return _domain(args, environment)
    if args.connect is not None or args.no_monitor:
        option = "--no-monitor" if args.connect is None else "--connect"
        raise _usage(codes.BAD_USAGE, f"{option} is about a domain, and none is named", "give --domain NAME, too")
    vm, qmp = _meant(args, environment)
    agent = None if args.agent is None else plain_name(args.agent)
    if vm is not None:
        named = Target.named(vm)
        if agent is None:
            return named
        if isinstance(named, Domain):
            raise _no_agent_option()
        return replace(named, agent=agent)
    if qmp is None:
        raise _usage(
            codes.NO_VM,
            "no VM is named",
            f"give --qmp SOCKET, --domain NAME or --vm NAME (vcpuctl vms shows them), or set {QMP} or {VM}",
        )
    return Target(plain_name(qmp), agent)


def sockets_of(args: argparse.Namespace, way: str, environment: Mapping[str, str] = os.environ) -> Target:
    """Return the VM that the options name, for a command that libvirt does itself: ``way`` is how.

    Raise RefusedError for a domain, and what ``target_of`` raises.
    """
    target = target_of(args, environment)
    if isinstance(target, Domain):
        raise left_to_libvirt(args.command, way)
    return target


def left_to_libvirt(command: str, way: str) -> RefusedError:
    """Return the error that libvirt does itself what ``vcpuctl COMMAND`` does for other VMs."""
    text = f"libvirt owns this VM, and does itself what vcpuctl {command} is for"
    return RefusedError(Reason(codes.LEFT_TO_LIBVIRT, Origin.LIBVIRT, text, way))


def _domain(args: argparse.Namespace, environment: Mapping[str, str]) -> Domain:
    if args.agent is not None:
        raise _no_agent_option()
    return Domain(uri_of(args, environment), args.domain, monitor=not args.no_monitor)


def uri_of(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> str:
    """Return which libvirt is meant: --connect, else what the environment says, else this host's own."""
    return args.connect or environment.get(URI) or "qemu:///system"


def _no_agent_option() -> UsageError:
    return _usage(codes.BAD_USAGE, "--agent names a socket, and libvirt has the domain's channel", "leave --agent out")


def _meant(args: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the VM's name and its monitor's socket, of which at most one is not None."""
    vm, qmp = args.vm[0] if args.vm else None, args.qmp
    if vm is None and qmp is None:
        vm, qmp = (environment.get(name) or None for name in (VM, QMP))
        if vm is not None and qmp is not None:
            raise _usage(codes.TWO_VMS, f"{VM} and {QMP} are both set", "unset one of them, or give --vm or --qmp")
    return vm, qmp


def _usage(code: codes.Code, text: str, hint: str) -> UsageError:
    return UsageError(Reason(code, Origin.VCPUCTL, text, hint))
