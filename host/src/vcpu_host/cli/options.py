# SPDX-License-Identifier: Apache-2.0
"""The arguments that commands take. ``parser`` says which command takes which."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from . import values
from .usage import ABOUT_A_VM, Parser

_SLOT = "an index, a range (4-7), a device id, props such as socket=1,core=0, or the guest's cpuN"

#: Gives a command its arguments.
Fill = Callable[[Parser], None]


#: What people look for on every command, and what there is instead.
_FORMS = {"--wide": "-o wide shows every column", "--json": "-o json writes a document"}


def add_common(parser: Parser, *, top: bool, shown: bool, vm: bool = True) -> None:
    """Add the options that may stand before and behind the command.

    One that is given on both sides has the value behind it, or both values if it may be repeated (``usage``).
    ``vm``: the command takes a VM.
    """

    def add(where: Any, *names: str, words: str, default: object = None, **settings: Any) -> None:
        settings["default"] = default if top else argparse.SUPPRESS
        where.add_argument(*names, help=words if shown else argparse.SUPPRESS, **settings)

    parser.instead |= _FORMS
    if vm:
        _add_vm(parser, add)
    common = parser.add_argument_group("common options")
    add(
        common,
        *("-o", "--output"),
        choices=values.FORMS,
        default="table",
        words="what to print on stdout: a table, the table with every slot and column, or one JSON document",
    )
    add(
        common,
        "--timeout",
        metavar="TIME",
        type=values.seconds,
        words="bound for an operation (default: 60 s, and 3 s for each vCPU) or a watch (default: none): 90, 90s, "
        "500ms, 2m; other commands take the time of their questions",
    )
    much = common.add_mutually_exclusive_group()
    add(much, "-v", "--verbose", action="count", default=0, words="log to stderr; twice for details")
    add(
        much,
        *("-q", "--quiet"),
        action="store_true",
        default=False,
        words="no progress, and no table of what went as asked for: the exit status says that",
    )
    add(common, "--log-format", choices=("text", "json"), default="text", words="how log lines on stderr look")


def _add_vm(parser: argparse.ArgumentParser, add: Callable[..., None]) -> None:
    """Add the options that say which VM is meant."""
    group = parser.add_argument_group(ABOUT_A_VM)
    which = group.add_mutually_exclusive_group()
    add(
        which,
        "--vm",
        metavar="NAME",
        action="append",
        words="a VM from vms.d/NAME.toml (default: $VCPUCTL_VM); list, doctor, plan, plug, unplug, scale, online "
        "and offline take it more than once, and patterns such as 'web*'",
    )
    add(
        which,
        "--all",
        dest="all_vms",
        action="store_true",
        default=False,
        words="every VM of vms.d, for the commands that take more than one",
    )
    add(which, "--qmp", metavar="SOCKET", words="QEMU's monitor socket (-qmp unix:...; default: $VCPUCTL_QMP)")
    add(which, "--domain", metavar="NAME", words="a VM that libvirt owns, by its name or UUID (see --connect)")
    add(
        group,
        "--connect",
        metavar="URI",
        words="which libvirt, also on another host: qemu+ssh://root@host/system "
        "(default: $LIBVIRT_DEFAULT_URI, then qemu:///system)",
    )
    add(
        group,
        "--no-monitor",
        action="store_true",
        default=False,
        words="look at the domain by libvirt's record alone: questions to QEMU's monitor taint it",
    )
    add(group, "--agent", metavar="SOCKET", words="the agent's chardev socket; found through QMP if not given")


def _add_amount(parser: argparse.ArgumentParser, verb: str) -> None:
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "amount", metavar="VCPUS", nargs="?", type=values.amount, help=f"how many vCPUs to {verb} (default: 1)"
    )
    amount.add_argument("-n", "--count", metavar="VCPUS", type=values.positive, help="the same as VCPUS alone")
    _add_slots(amount)


def _add_slots(where: Any) -> None:
    where.add_argument(
        "--slot", metavar="SEL", nargs="+", action="extend", dest="slots", help=f"which slots: {_SLOT}; may be repeated"
    )


def _add_placement(parser: argparse.ArgumentParser, *, node: bool) -> None:
    parser.add_argument(
        "--policy",
        choices=("lowest", "pack", "spread"),
        help="which slots an amount means: the lowest (the default, which spares slots that programs of the guest are "
        "pinned to, unless it is asked for), as few nodes, sockets, dies, cores as can be, or all of them alike",
    )
    if node:
        parser.add_argument(
            "--node", metavar="N", type=values.node, help="only slots of this NUMA node, as QEMU has it"
        )


def add_workload(parser: argparse.ArgumentParser) -> None:
    """Add what says what to do about the guest's programs."""
    parser.add_argument(
        "--workload",
        choices=("ignore", "warn", "refuse"),
        help="programs of the guest that would be hurt, such as pinned threads: do not look, tell (the default, unless "
        "the VM's file says otherwise), or refuse",
    )


def _add_atomic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--atomic", action="store_true", help="all or nothing: take everything back if a slot fails")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", action="store_true", help="keep these vCPUs for the VM's next start (VMs that libvirt owns)"
    )


def _add_dry_run(parser: Parser, *, plans: bool = False) -> None:
    """Add --dry-run, unless the command ``plans`` and does no more."""
    if plans:
        parser.instead["--dry-run"] = "a plan changes nothing: leave --dry-run out"
    else:
        parser.add_argument("--dry-run", action="store_true", help="show the plan and change nothing")


def change(verb: str, *, dry_run: bool) -> Fill:
    """Return what gives plug and unplug their arguments."""

    def fill(parser: Parser) -> None:
        _add_amount(parser, verb)
        _add_placement(parser, node=True)
        _add_atomic(parser)
        _add_config(parser)
        add_workload(parser)
        parser.add_argument(
            "--without-agent",
            action="store_true",
            help="go by QEMU's evidence alone: nobody checks what the guest did, and a CPU in use may be taken away",
        )
        _add_dry_run(parser, plans=not dry_run)

    return fill


def scale(*, dry_run: bool) -> Fill:
    """Return what gives scale its arguments."""

    def fill(parser: Parser) -> None:
        parser.add_argument("goal", metavar="N", type=values.positive, help="how many vCPUs are to be online")
        parser.instead |= dict.fromkeys(("-n", "--count"), "the number stands alone: {prog} 8")
        parser.add_argument(
            "--in-guest",
            action="store_true",
            help="only take plugged CPUs on- and offline: for machines that cannot plug",
        )
        _add_placement(parser, node=False)
        _add_atomic(parser)
        _add_config(parser)
        add_workload(parser)
        _add_dry_run(parser, plans=not dry_run)

    return fill


def add_switched(parser: Parser) -> None:
    """Add what online and offline take."""
    parser.add_argument("named", metavar="SEL", nargs="*", help=_SLOT)
    _add_slots(parser)
    add_workload(parser)
    _add_dry_run(parser)


def add_export(parser: Parser) -> None:
    """Add what export takes."""
    parser.add_argument(
        "--form",
        choices=("args", "qmp"),
        default="args",
        help="arguments for a shell's command line (the default), or device_add commands; -o json has both",
    )


def add_destination(parser: Parser) -> None:
    """Add what migrate check and prepare take."""
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument("--to", metavar="SOCKET", help="the monitor of the QEMU that waits (-incoming)")
    other.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="on the destination's host: what vcpuctl -o json export wrote on the source's, - for stdin; the VM "
        "that --qmp or --vm names is the destination then",
    )


def add_assignment(parser: Parser) -> None:
    """Add what numa assign takes."""
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--map",
        metavar="FILE",
        help="the slots of each node, in TOML: 0 = ['socket-id=0'] on a line, 1 = [4, 5] on the next; - for stdin",
    )
    how.add_argument(
        "--policy",
        choices=("pack", "spread"),
        help="as many cores on each node as on the others: neighbours together, or in turn",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the map and set nothing")


def add_connect(parser: Parser) -> None:
    """Add what vms takes."""
    parser.add_argument(
        "--connect", metavar="URI", default=argparse.SUPPRESS, help="show the domains of this libvirt instead"
    )


def add_channel(parser: Parser) -> None:
    """Add what channel takes."""
    parser.add_argument(
        "--apply", action="store_true", help="add it where it is missing: to the running domain, and for the next start"
    )


def add_goals(parser: Parser) -> None:
    """Add what apply takes."""
    parser.add_argument("file", metavar="FILE", help="the VMs and their vCPUs, in TOML or JSON; - for stdin")
    add_workload(parser)
    _add_dry_run(parser)
    parser.add_argument(
        "--parallel",
        metavar="N",
        type=values.positive,
        default=None,
        help="how many VMs are worked on at once (default: 32); one that makes no progress for 3 s is waited for "
        "beside them. By the service of another user, 80 are asked at most, with those",
    )


def add_serve(parser: Parser) -> None:
    """Add what serve takes."""
    parser.add_argument(
        "--socket",
        metavar="SOCKET",
        help="the unix socket to make, mode 0660 (default: $VCPUCTL_SOCKET, or /run/vcpuctl.sock); systemd's, if it "
        "hands one over",
    )
    parser.add_argument(
        "--metrics",
        metavar="ADDRESS",
        help="offer metrics for Prometheus at 127.0.0.1:PORT, [::1]:PORT or unix:PATH (default: nowhere)",
    )
    parser.add_argument(
        "--metrics-file",
        metavar="FILE",
        help="write them every 10 s for node_exporter's textfile collector, to DIRECTORY/NAME.prom, which goes when "
        "serve ends",
    )

    parser.add_argument(
        "--vcpu-budget",
        metavar="VCPUS",
        type=values.positive,
        help="the most vCPUs that the VMs have together before autoscaling grows none any more (default: no limit)",
    )
    parser.add_argument(
        "--host-pressure",
        metavar="PERCENT",
        type=values.percent,
        default=50.0,
        help="autoscaling grows no VM while this host's own tasks wait for CPUs for more of the time (default: 50)",
    )


def add_listen(parser: Parser) -> None:
    """Add what agent-proxy takes."""
    parser.add_argument("--listen", metavar="SOCKET", required=True, help="the unix socket to make (mode 0600)")


def add_log(parser: Parser) -> None:
    """Add what log takes."""
    parser.add_argument(
        "--since", metavar="TIME", help="only what is newer, in journalctl's words: 2026-11-29, yesterday, '1 hour ago'"
    )
    parser.add_argument(
        "-n", "--lines", metavar="N", type=values.lines, default=100, help="the newest N entries, or all (default: 100)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with each entry as it comes, until Ctrl-C")
