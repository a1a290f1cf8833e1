# SPDX-License-Identifier: Apache-2.0
"""The command line's grammar. Pure and quick to import: man page and completions are made from it too."""

from __future__ import annotations

import argparse
from typing import Any

from vcpu_host import __version__

from . import values
from .usage import HelpFormatter, Parser

_EPILOG = """slots:
  SEL is a slot's index, the id of the CPU in it, or props: socket=1,core=0 is
  every slot that has them. vcpuctl list shows all three.

exit status:
  0 done; 1 failed (and undone); 2 usage; 3 refused, nothing was changed;
  4 unknown: time ran out, it may still happen; 5 QEMU or the agent cannot be
  reached; 6 partial: some slots done, others not
"""
_COMMON = "common options (--vm, --qmp, --agent, -o, --timeout, -v, -q): see vcpuctl --help"
_SLOT = "an index, a device id, or props such as socket=1,core=0"
_PLUG = """Plug vCPUs and bring them online in the guest: done means online there.

A number counts first what is plugged already and not online: CPUs that an
earlier operation left behind, and those that the guest's administrator took
offline. These are brought online, and only what is missing then is plugged.
--slot with empty slots plugs these and nothing else. --dry-run shows it."""
_UNPLUG = """Take vCPUs offline in the guest and, once it has let go of them, out of QEMU.

A number counts first what is plugged and not online, also what the guest's
administrator took offline; then what was plugged last, as far as it can be
removed. --dry-run shows it."""
_SCALE = """Converge to N online vCPUs.

What is plugged and not online is brought online, also what the guest's
administrator took offline; then slots are plugged, or unplugged. --dry-run
shows it."""


class _Commands:
    """Adds commands to a parser; ``common`` has the options that they take besides their own."""

    def __init__(
        self, parser: argparse.ArgumentParser, common: argparse.ArgumentParser, *, title: str, dest: str, metavar: str
    ) -> None:
        self._commands: Any = parser.add_subparsers(title=title, dest=dest, metavar=metavar, required=True)
        self._common = common

    def add(
        self, name: str, words: str, *examples: str, about: str = "", group: bool = False
    ) -> argparse.ArgumentParser:
        """One command. ``group``: it has commands of its own, which take the common options."""
        shown = "\n  ".join(f"vcpuctl --vm vm1 {example}" for example in examples)
        parser: argparse.ArgumentParser = self._commands.add_parser(
            name,
            parents=[] if group else [self._common],
            help=words,
            description=about or words[0].upper() + words[1:] + ".",
            epilog=(f"examples:\n  {shown}\n\n" if examples else "") + ("" if group else _COMMON),
            formatter_class=HelpFormatter,
        )
        return parser

    def below(self, parser: argparse.ArgumentParser, *, title: str, dest: str, metavar: str) -> _Commands:
        """The commands of a command."""
        return _Commands(parser, self._common, title=title, dest=dest, metavar=metavar)


def _add_common(parser: argparse.ArgumentParser, *, top: bool, shown: bool) -> None:
    """The options that may stand before and behind the command; behind it they only override."""

    def add(where: Any, *names: str, words: str, default: object = None, **settings: Any) -> None:
        settings["default"] = default if top else argparse.SUPPRESS
        where.add_argument(*names, help=words if shown else argparse.SUPPRESS, **settings)

    group = parser.add_argument_group("virtual machine")
    which = group.add_mutually_exclusive_group()
    add(which, "--vm", metavar="NAME", words="a VM from vms.d/NAME.toml (default: $VCPUCTL_VM)")
    add(which, "--qmp", metavar="SOCKET", words="QEMU's monitor socket (-qmp unix:...; default: $VCPUCTL_QMP)")
    add(group, "--agent", metavar="SOCKET", words="the agent's chardev socket; found through QMP if not given")
    common = parser.add_argument_group("common options")
    add(common, "-o", "--output", choices=("table", "json"), default="table", words="what to print on stdout")
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
        "-q",
        "--quiet",
        action="store_true",
        default=False,
        words="no progress, and no table of what went as asked for: the exit status says that",
    )
    add(common, "--log-format", choices=("text", "json"), default="text", words="how log lines on stderr look")


def _add_amount(parser: argparse.ArgumentParser, verb: str) -> None:
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "-n", "--count", metavar="VCPUS", type=values.positive, help=f"how many vCPUs to {verb} (default: 1)"
    )
    amount.add_argument(
        "--slot", metavar="SEL", nargs="+", action="extend", dest="slots", help=f"which slots: {_SLOT}; may be repeated"
    )


def _add_placement(parser: argparse.ArgumentParser, *, node: bool) -> None:
    parser.add_argument(
        "--policy",
        choices=("lowest", "pack", "spread"),
        help="which slots a number means: the lowest (the default), as few nodes, sockets, dies, cores as can be, or "
        "all of them alike",
    )
    if node:
        parser.add_argument(
            "--node", metavar="N", type=values.node, help="only slots of this NUMA node, as QEMU has it"
        )


def _add_atomic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--atomic", action="store_true", help="all or nothing: take everything back if a slot fails")


def _add_without_agent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without-agent",
        action="store_true",
        help="by QEMU's evidence alone; what the guest did is not checked, and a CPU that is in use may be taken away",
    )


def _add_operations(commands: _Commands, *, before: str = "") -> None:
    """plug, unplug and scale; ``before`` is the command that they are words of, if they are."""
    plug = commands.add(
        "plug",
        "plug vCPUs and bring them online in the guest",
        *(f"{before}plug -n 3", f"{before}plug --slot 5", f"{before}plug -n 4 --policy spread"),
        about=_PLUG,
    )
    unplug = commands.add(
        "unplug",
        "take vCPUs offline in the guest, then unplug them",
        *(f"{before}unplug", f"{before}unplug --slot vcpu-5 7"),
        about=_UNPLUG,
    )
    for parser, verb in ((plug, "plug"), (unplug, "unplug")):
        _add_amount(parser, verb)
        _add_placement(parser, node=True)
        _add_atomic(parser)
        _add_without_agent(parser)
    scale = commands.add("scale", "converge to a number of online vCPUs", f"{before}scale 8", about=_SCALE)
    scale.add_argument("goal", metavar="N", type=values.positive, help="how many vCPUs are to be online")
    scale.add_argument(
        "--in-guest", action="store_true", help="only take plugged CPUs on- and offline: for machines that cannot plug"
    )
    _add_placement(scale, node=False)
    _add_atomic(scale)
    if not before:
        for parser in (plug, unplug, scale):
            parser.add_argument("--dry-run", action="store_true", help="show the plan and change nothing")


def _add_migration(commands: _Commands) -> None:
    export = commands.add(
        "export",
        "the -smp and -device arguments that give a QEMU exactly these vCPUs",
        *("export", "-o json export >vm1.json"),
    )
    export.add_argument(
        "--form",
        choices=("args", "qmp"),
        default="args",
        help="arguments for a shell's command line (the default), or device_add commands; -o json has both",
    )
    migrate = commands.add("migrate", "whether another QEMU can take this VM over, and making it so", group=True)
    steps = commands.below(migrate, title="steps", dest="migrate", metavar="STEP")
    for name, words in (
        ("check", "compare the VM with the QEMU that waits for it; changes nothing"),
        ("prepare", "plug what the waiting QEMU lacks, and hand over what is pending"),
    ):
        command = steps.add(name, words, f"migrate {name} --to /run/vm1-new/qmp.sock")
        other = command.add_mutually_exclusive_group(required=True)
        other.add_argument("--to", metavar="SOCKET", help="the monitor of the QEMU that waits (-incoming)")
        other.add_argument(
            "--from",
            dest="source",
            metavar="FILE",
            help="on the destination's host: what vcpuctl -o json export wrote on the source's, - for stdin; the VM "
            "that --qmp or --vm names is the destination then",
        )


def _add_numa(commands: _Commands) -> None:
    numa = commands.add("numa", "which NUMA node each slot is of, before the machine is made", group=True)
    steps = commands.below(numa, title="steps", dest="numa", metavar="STEP")
    assign = steps.add(
        "assign",
        "give the slots of a QEMU that was started with --preconfig their nodes, and have it go on",
        *("numa assign --map map.toml", "numa assign --policy pack --dry-run"),
        about="Give the slots of a QEMU that was started with --preconfig their nodes, and have\n"
        "it go on.\n\nWhat has it go on is x-exit-preconfig, which QEMU calls unstable.",
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


def build_parser(*, full: bool = False) -> argparse.ArgumentParser:
    """The whole grammar. ``full``: the common options are told with every command that takes them."""
    parser = Parser(
        prog="vcpuctl",
        description="Resize the vCPUs of a running QEMU virtual machine, end to end: done means online in the guest.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"vcpuctl {__version__}", help="show the version and exit"
    )
    _add_common(parser, top=True, shown=True)
    common = argparse.ArgumentParser(add_help=False)
    _add_common(common, top=False, shown=full)
    commands = _Commands(parser, common, title="commands", dest="command", metavar="COMMAND")
    commands.add("list", "the map of slots, guest CPUs and host threads", "list", "-o json list")
    _add_operations(commands)
    planned = commands.add("plan", "what plug, unplug or scale would do; changes nothing", group=True)
    below = commands.below(planned, title="operations", dest="planned", metavar="OPERATION")
    _add_operations(below, before="plan ")
    for name, words in (("online", "bring plugged CPUs online"), ("offline", "take CPUs offline; they stay plugged")):
        command = commands.add(name, f"{words}: the guest's side alone", f"{name} 3", f"{name} vcpu-3 socket=1")
        command.add_argument("slots", metavar="SEL", nargs="+", help=_SLOT)
    _add_migration(commands)
    _add_numa(commands)
    commands.add("watch", "the slots as they change", "watch", "-o json watch --timeout 1m")
    commands.add("doctor", "what stands in the way, and the fix for each", "doctor")
    proxy = commands.add(
        "agent-proxy",
        "offer the agent's gRPC service on a host socket",
        "agent-proxy --listen /run/vm1/agent-grpc.sock",
    )
    proxy.add_argument("--listen", metavar="SOCKET", required=True, help="the unix socket to make (mode 0600)")
    told = commands.add("help", "what a command does and takes", group=True)
    told.add_argument("words", metavar="COMMAND", nargs="*", help="the command; all of them if none is given")
    return parser
