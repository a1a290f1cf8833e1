# SPDX-License-Identifier: Apache-2.0
"""Which VM is meant: by options, else by the environment; and sockets in the words in which QEMU is given them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Mapping
from dataclasses import replace

from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.text import is_pattern
from vcpu_host.errors import RefusedError, UsageError
from vcpu_host.local.target import AnyTarget, Domain, Target
from vcpu_host.local.unix_sockets import plain_name

#: Stand for --vm and --qmp where neither is given.
VM, QMP = "VCPUCTL_VM", "VCPUCTL_QMP"
#: The options that say which VM is meant and how it is reached, and what they are called among the arguments.
_ABOUT_A_VM = {
    "--vm": "vm",
    "--all": "all_vms",
    "--qmp": "qmp",
    "--domain": "domain",
    "--connect": "connect",
    "--no-monitor": "no_monitor",
    "--agent": "agent",
}
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


def check_no_vm(
    args: argparse.Namespace, *, text: str | None = None, instead: str | None = None, may: Collection[str] = ()
) -> None:
    """Raise UsageError if an option is given that is about a VM, be it an empty one. ``may`` are those that may be.

    ``text`` says what is wrong, ``instead`` what the command does without them.
    """
    named = [option for option, name in _ABOUT_A_VM.items() if getattr(args, name) not in (None, False)]
    wrong = [option for option in named if option not in may]
    if wrong:
        hint = f"leave {' and '.join(wrong)} out" + (f": {instead}" if instead else "")
        raise _usage(codes.BAD_USAGE, text or f"vcpuctl {args.command} takes no VM", hint)


def check_many(args: argparse.Namespace) -> None:
    """Raise UsageError for options that are about one VM, where more than one may be meant."""
    if args.agent is not None:
        raise _usage(codes.MANY_VMS, "--agent names the socket of one VM", "put agent = ... into the VMs' files")
    if args.connect is not None or args.no_monitor:
        hint = "leave it out: the VMs' files say it (libvirt, monitor)"
        raise _usage(codes.MANY_VMS, "--connect and --no-monitor are about one domain", hint)


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
    vm, qmp = meant(args, environment)
    agent = None if args.agent is None else socket_of(args.agent, "the agent's port, or leave --agent out")
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
    return Target(socket_of(qmp, "QEMU's -qmp unix socket"), agent)


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


def socket_of(text: str, whose: str) -> str:
    """Return the socket's name. Raise UsageError for an empty one: it would be this directory."""
    name = plain_name(text)
    if not name:
        raise _usage(codes.NOT_A_SOCKET, f"{text!r} is no path of a socket", f"give the path of {whose}")
    return name


def _domain(args: argparse.Namespace, environment: Mapping[str, str]) -> Domain:
    if args.agent is not None:
        raise _no_agent_option()
    return Domain(uri_of(args, environment), args.domain, monitor=not args.no_monitor)


def uri_of(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> str:
    """Return which libvirt is meant: --connect, else what the environment says, else this host's own."""
    return args.connect or environment.get(URI) or "qemu:///system"


def _no_agent_option() -> UsageError:
    return _usage(codes.BAD_USAGE, "--agent names a socket, and libvirt has the domain's channel", "leave --agent out")


def meant(args: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the VM's name and its monitor's socket, of which at most one is not None. Raise UsageError for two."""
    vm, qmp = args.vm[0] if args.vm else None, args.qmp
    if vm is None and qmp is None:
        vm, qmp = (environment.get(name) or None for name in (VM, QMP))
        if vm is not None and qmp is not None:
            raise _usage(codes.TWO_VMS, f"{VM} and {QMP} are both set", "unset one of them, or give --vm or --qmp")
    return vm, qmp


def _usage(code: codes.Code, text: str, hint: str) -> UsageError:
    return UsageError(Reason(code, Origin.VCPUCTL, text, hint))
