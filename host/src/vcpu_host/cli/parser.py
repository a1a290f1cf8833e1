# SPDX-License-Identifier: Apache-2.0
"""The command line's grammar. Pure and quick to import: man page and completions are made from it too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from vcpu_host import __version__

_EPILOG = """exit status:
  0 done; 1 failed (and undone); 2 usage; 3 refused, nothing was changed; 4 unknown: time ran out, it may still happen;
  5 QEMU or the agent cannot be reached; 6 partial: some slots done, others not
"""


class _Once(argparse.Action):
    """Stores the values of an option that may be given once: a second one would silently replace the first."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option_string} is given twice: give it once, with all slots behind it")
        setattr(namespace, self.dest, values)


def _node(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a NUMA node")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds, above 0 and at most 86400")
    return value


def _add_common(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """The options that may stand before and behind the command; behind it they only override."""

    def default(value: object) -> Any:
        return value if top else argparse.SUPPRESS

    group = parser.add_argument_group("virtual machine")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--vm", metavar="NAME", default=default(None), help="a VM from vms.d/NAME.toml")
    which.add_argument("--qmp", metavar="SOCKET", default=default(None), help="QEMU's monitor socket (-qmp unix:...)")
    group.add_argument(
        "--agent",
        metavar="SOCKET",
        default=default(None),
        help="the agent's chardev socket; found through QMP if not given",
    )
    common = parser.add_argument_group("common options")
    common.add_argument(
        "-o", "--output", choices=("table", "json"), default=default("table"), help="what to print on stdout"
    )
    common.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=default(None),
        help="bound for an operation or a watch, in seconds; other commands take the time of their questions",
    )
    common.add_argument("-v", "--verbose", action="count", default=default(0), help="log to stderr; twice for details")
    common.add_argument(
        "--log-format", choices=("text", "json"), default=default("text"), help="how log lines on stderr look"
    )


def _add_amount(parser: argparse.ArgumentParser, verb: str) -> None:
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("-n", "--count", metavar="VCPUS", type=_positive, help=f"how many vCPUs to {verb} (default: 1)")
    amount.add_argument(
        "--slot",
        metavar="SEL",
        nargs="+",
        action=_Once,
        dest="slots",
        help="which slots: an index, a device id, or props such as socket-id=1,core-id=0",
    )


def _add_placement(parser: argparse.ArgumentParser, *, node: bool) -> None:
    parser.add_argument(
        "--policy",
        choices=("lowest", "pack", "spread"),
        help="which slots a number means: the lowest (the default), as few nodes, sockets, dies, cores as can be, or "
        "all of them alike",
    )
    if node:
        parser.add_argument("--node", metavar="N", type=_node, help="only slots of this NUMA node")


def _add_atomic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--atomic", action="store_true", help="all or nothing: take everything back if a slot fails")


def _add_without_agent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without-agent",
        action="store_true",
        help="by QEMU's evidence alone; what the guest did is not checked, and a CPU that is in use may be taken away",
    )


def _add_operations(commands: Any, common: argparse.ArgumentParser) -> None:
    plug = commands.add_parser("plug", parents=[common], help="plug vCPUs and bring them online in the guest")
    _add_amount(plug, "plug")
    _add_placement(plug, node=True)
    _add_atomic(plug)
    _add_without_agent(plug)
    unplug = commands.add_parser("unplug", parents=[common], help="take vCPUs offline in the guest, then unplug them")
    _add_amount(unplug, "unplug")
    _add_placement(unplug, node=True)
    _add_atomic(unplug)
    _add_without_agent(unplug)
    scale = commands.add_parser("scale", parents=[common], help="converge to a number of online vCPUs")
    scale.add_argument("goal", metavar="N", type=_positive, help="how many vCPUs are to be online")
    scale.add_argument(
        "--in-guest", action="store_true", help="only take plugged CPUs on- and offline: for machines that cannot plug"
    )
    _add_placement(scale, node=False)
    _add_atomic(scale)


def _add_migration(commands: Any, common: argparse.ArgumentParser) -> None:
    export = commands.add_parser(
        "export", parents=[common], help="the -smp and -device arguments that give a QEMU exactly these vCPUs"
    )
    export.add_argument(
        "--form",
        choices=("args", "qmp"),
        default="args",
        help="arguments for a shell's command line (the default), or device_add commands; -o json has both",
    )
    migrate = commands.add_parser("migrate", help="whether another QEMU can take this VM over, and making it so")
    steps = migrate.add_subparsers(title="steps", dest="migrate", metavar="STEP", required=True)
    for name, words in (
        ("check", "compare the VM with the QEMU that waits for it; changes nothing"),
        ("prepare", "plug what the waiting QEMU lacks, and hand over what is pending"),
    ):
        command = steps.add_parser(name, parents=[common], help=words)
        other = command.add_mutually_exclusive_group(required=True)
        other.add_argument("--to", metavar="SOCKET", help="the monitor of the QEMU that waits (-incoming)")
        other.add_argument(
            "--from",
            dest="source",
            metavar="FILE",
            help="on the destination's host: what vcpuctl -o json export wrote on the source's, - for stdin; the VM "
            "that --qmp or --vm names is the destination then",
        )


def _add_numa(commands: Any, common: argparse.ArgumentParser) -> None:
    numa = commands.add_parser("numa", help="which NUMA node each slot is of, before the machine is made")
    steps = numa.add_subparsers(title="steps", dest="numa", metavar="STEP", required=True)
    assign = steps.add_parser(
        "assign",
        parents=[common],
        help="give the slots of a QEMU that was started with --preconfig their nodes, and have it go on "
        "(x-exit-preconfig, which QEMU calls unstable)",
    )
    how = assign.add_mutually_exclusive_group(required=True)
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
    assign.add_argument("--dry-run", action="store_true", help="show the map and set nothing")


def build_parser() -> argparse.ArgumentParser:
    """The whole grammar."""
    parser = argparse.ArgumentParser(
        prog="vcpuctl",
        description="Resize the vCPUs of a running QEMU virtual machine, end to end: done means online in the guest.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vcpuctl {__version__}")
    _add_common(parser, top=True)
    common = argparse.ArgumentParser(add_help=False)
    _add_common(common, top=False)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    commands.add_parser("list", parents=[common], help="the map of slots, guest CPUs and host threads")
    _add_operations(commands, common)
    planned = commands.add_parser("plan", parents=[common], help="what plug, unplug or scale would do; changes nothing")
    _add_operations(
        planned.add_subparsers(title="operations", dest="planned", metavar="OPERATION", required=True), common
    )
    for name, words in (("online", "bring plugged CPUs online"), ("offline", "take CPUs offline; they stay plugged")):
        command = commands.add_parser(name, parents=[common], help=f"{words}: the guest's side alone")
        command.add_argument("slots", metavar="SEL", nargs="+", help="an index, a device id, or props")
    _add_migration(commands, common)
    _add_numa(commands, common)
    commands.add_parser("watch", parents=[common], help="the slots as they change")
    commands.add_parser("doctor", parents=[common], help="what stands in the way, and the fix for each")
    proxy = commands.add_parser("agent-proxy", parents=[common], help="offer the agent's gRPC service on a host socket")
    proxy.add_argument("--listen", metavar="SOCKET", required=True, help="the unix socket to make (mode 0600)")
    return parser
