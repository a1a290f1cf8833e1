# SPDX-License-Identifier: Apache-2.0
"""The command line's grammar. Pure and quick to import: man page and completions are made from it too."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from vcpu_host import __version__

from . import options
from .usage import Parser

_EPILOG = """amounts and slots:
  A bare number behind plug, unplug and scale is an amount of vCPUs.
  Slots are named by --slot, and behind online and offline also without it.
  SEL is what vcpuctl list shows: a slot's index (5, or 4-7), the id of the CPU
  in it (vcpu-5), its props (socket=1,core=0 is every slot that has them), or
  the guest's number of the CPU (cpu5), which is not the slot's index.

exit status:
  0 done; 1 failed (and undone); 2 usage; 3 refused, nothing was changed;
  4 unknown: time ran out, it may still happen; 5 QEMU or the agent cannot be
  reached; 6 partial: some slots done, others not
"""
_COMMON = "common options (--vm, --qmp, --domain, -o, --timeout ...): see vcpuctl --help"
_COMMON_WITHOUT_VM = "common options (-o, -v, -q): see vcpuctl --help"
_PLUG = """Plug vCPUs and bring them online in the guest: done means online there.

A bare number is an amount of vCPUs; slots are named by --slot. An amount
counts first what is plugged already and not online: CPUs that an earlier
operation left behind, and those that the guest's administrator took offline.
These are brought online, and only what is missing then is plugged.
--slot with empty slots plugs these and nothing else. --dry-run shows it."""
_UNPLUG = """Take vCPUs offline in the guest and, once it has let go of them, out of QEMU.

A bare number is an amount of vCPUs; slots are named by --slot. An amount
counts first what is plugged and not online, also what the guest's
administrator took offline; then the highest slots that can be removed, or
those that --policy says. --dry-run shows it."""
_SCALE = """Converge to N online vCPUs.

Going up, what is plugged and not online is brought online first, also what
the guest's administrator took offline; then empty slots are plugged. Going
down, what is plugged and not online is unplugged first. --dry-run shows it."""
_SWITCH = """

A bare number is a slot's index here, as it is behind --slot. cpu5 is the CPU
that the guest calls so. A slot goes as a whole, with all of its threads."""

_LOG = """Show what was done to VMs, by whom, and how it ended.

Each operation leaves an entry in the system's journal, refused ones too.
Without --vm and --qmp the entries of all VMs are shown. Other users' entries
are shown to root and to members of the group systemd-journal."""
_VMS = """Show the VMs that are configured, and this host's QEMUs.

Of each QEMU process that no file of vms.d stands for it says what vcpuctl
lacks there, if anything, and the command that writes such a file. It reads
/proc and connects to nothing. A process's command line is its owner's word.

With --connect it shows a libvirt's domains instead, running and off: whether
they have the agent's channel, whether a program in the guest has that open,
and the command that adds each to vms.d. It changes nothing there."""

_CHANNEL = """Show the channel that a domain of libvirt's needs for the agent.

It says whether the domain has it, as it runs and as it is defined. --apply adds
it where it is missing, with the controller that it needs: to the running
domain, whose guest need not be restarted, and to the definition, for the next
start. A VM without libvirt gets its port on QEMU's command line."""

_APPLY = """Give many VMs their vCPUs, at once.

FILE is TOML, or JSON of the same shape: by the VM's name in vms.d, how many
vCPUs are to be online. Each VM is scaled to its number; all at once.

  [vms]
  web1 = 4

  [vms.web2]
  vcpus = 8

  [vms.db1]
  vcpus = 2
  libvirt = "qemu+ssh://root@host1/system"
  domain = "db1"

With libvirt and domain a VM needs no file in vms.d. The whole file is checked
before anything is done; of two names that turn out to be one VM when they are
reached, the second is refused. --timeout is each VM's own. A VM that fails or
hangs holds up no other one. The exit status is the worst of all VMs'. Ctrl-C
ends the waits; what is known is told."""


class _Commands:
    """Adds commands to a parser.

    ``words`` are those of the command line: what a command takes is built only if its name is among them, because
    building all commands takes a fifth of the time of ``vcpuctl --help``. None builds all. ``full``: each command's
    help has the common options.
    """

    def __init__(
        self, parser: Parser, words: Collection[str] | None, *, full: bool, title: str, dest: str, metavar: str
    ) -> None:
        self._commands: Any = parser.add_subparsers(
            title=title, dest=dest, metavar=metavar, required=True, prog=parser.prog
        )
        self._words = words
        self._full = full

    def add(
        self,
        name: str,
        words: str,
        *examples: str,
        fill: options.Fill | None = None,
        about: str = "",
        usage: str | None = None,
        vm: bool = True,
    ) -> None:
        """Add one command; ``fill`` gives it its arguments. ``vm``: it takes a VM."""
        parser = self._add(name, words, examples, about, usage, _COMMON if vm else _COMMON_WITHOUT_VM, vm=vm)
        if parser is not None:
            options.add_common(parser, top=False, shown=self._full, vm=vm)
            if fill is not None:
                fill(parser)

    def add_group(self, name: str, words: str, *, title: str, metavar: str, dest: str, fill: _FillGroup) -> None:
        """Add a command that has commands of its own, which ``fill`` adds. These take the common options."""
        parser = self._add(name, words, (), "", None, "")
        if parser is not None:
            fill(_Commands(parser, self._words, full=self._full, title=title, dest=dest, metavar=metavar))

    def add_help(self, name: str, words: str) -> None:
        """Add the command that prints help. It takes no common options."""
        parser = self._add(name, words, (), "", None, "")
        if parser is not None:
            parser.add_argument("words", metavar="COMMAND", nargs="*", help="the command; none is all of them")

    def _add(
        self,
        name: str,
        words: str,
        examples: tuple[str, ...],
        about: str,
        usage: str | None,
        epilog: str,
        *,
        vm: bool = True,
    ) -> Parser | None:
        if self._words is not None and name not in self._words:
            self._commands.choices[name] = None
            pseudo = self._commands._ChoicesPseudoAction(name, (), words)  # noqa: SLF001 - argparse has no other way
            self._commands._choices_actions.append(pseudo)  # noqa: SLF001 - as above
            return None
        whole = [f"vcpuctl{' --vm vm1' if vm else ''} {example}" for example in examples]
        shown = "examples:\n  " + "\n  ".join(whole) + "\n\n" if examples else ""
        parser: Parser = self._commands.add_parser(
            name,
            help=words,
            description=about or words[0].upper() + words[1:] + ".",
            epilog=shown + epilog,
            example=next(iter(whole), ""),
            usage=usage,
        )
        return parser


_SERVE = """\
Keep the VMs of vms.d, each by one session, and serve others until interrupted.

Other vcpuctl commands use it by themselves. Programs use it by gRPC,
vcpu.host.v1, on a unix socket: who may write to that may do what vcpuctl does,
but for migrate, numa assign and channel, which reach QEMU or libvirt
themselves. SIGHUP makes it look at vms.d at once; it does so every 10 s
anyway."""

_FillGroup = Callable[[_Commands], None]


def _add_operations(commands: _Commands, *, before: str = "") -> None:
    """Add plug, unplug and scale; ``before`` is the command that they are words of, if they are."""
    one_of = "%(prog)s [-h] [VCPUS | --slot SEL [SEL ...]] [OPTION ...]"
    commands.add(
        "plug",
        "plug vCPUs and bring them online in the guest",
        *(f"{before}plug 3", f"{before}plug --slot 5", f"{before}plug 4 --policy spread"),
        fill=options.change("plug", dry_run=not before),
        about=_PLUG,
        usage=one_of,
    )
    commands.add(
        "unplug",
        "take vCPUs offline in the guest, then unplug them",
        *(f"{before}unplug 2", f"{before}unplug --slot vcpu-5 7"),
        fill=options.change("unplug", dry_run=not before),
        about=_UNPLUG,
        usage=one_of,
    )
    commands.add(
        "scale",
        "converge to a number of online vCPUs",
        f"{before}scale 8",
        fill=options.scale(dry_run=not before),
        about=_SCALE,
    )


def _add_plan(commands: _Commands) -> None:
    _add_operations(commands, before="plan ")


def _add_switches(commands: _Commands) -> None:
    """Add online and offline."""
    for name, told in (("online", "bring plugged CPUs online"), ("offline", "take CPUs offline; they stay plugged")):
        commands.add(
            name,
            f"{told}: the guest's side alone",
            *(f"{name} 3", f"{name} --slot vcpu-3 socket=1", f"{name} cpu3"),
            fill=options.add_switched,
            about=f"{told[0].upper()}{told[1:]}: the guest's side alone.{_SWITCH}",
        )


def _add_migration(steps: _Commands) -> None:
    for name, words in (
        ("check", "compare the VM with the QEMU that waits for it; changes nothing"),
        ("prepare", "plug what the waiting QEMU lacks, and hand over what is pending"),
    ):
        steps.add(name, words, f"migrate {name} --to /run/vm1-new/qmp.sock", fill=options.add_destination)


def _add_numa(steps: _Commands) -> None:
    steps.add(
        "assign",
        "give the slots of a QEMU that was started with --preconfig their nodes, and have it go on",
        *("numa assign --map map.toml", "numa assign --policy pack --dry-run"),
        fill=options.add_assignment,
        about="Give the slots of a QEMU that was started with --preconfig their nodes, and have\n"
        "it go on.\n\nQEMU goes on by the command x-exit-preconfig, which it calls unstable.",
    )


def _add_looks(commands: _Commands) -> None:
    """Add watch, doctor and log."""
    commands.add("watch", "the slots as they change", "watch", "-o json watch --timeout 1m")
    commands.add("doctor", "what stands in the way, and the fix for each", "doctor")
    commands.add(
        "log",
        "what was done, by whom, and how it ended",
        *("log", "log --since yesterday -n 20", "-o json log -n all"),
        fill=options.add_log,
        about=_LOG,
    )


def _add_vms(commands: _Commands) -> None:
    """Add what is about which VMs there are."""
    commands.add(
        "vms",
        "the VMs that are configured, and this host's QEMUs or a libvirt's domains",
        *("vms", "-o json vms", "vms --connect qemu+ssh://root@host/system"),
        fill=options.add_connect,
        about=_VMS,
        vm=False,
    )
    commands.add(
        "channel",
        "the channel that a domain of libvirt's needs for the agent",
        *("channel", "channel --apply"),
        fill=options.add_channel,
        about=_CHANNEL,
    )


def _add_autoscale(steps: _Commands) -> None:
    for name, words in (
        ("status", "what is decided now, a line for each VM"),
        ("explain", "what is decided now, with all that bears on it"),
        ("history", "what was decided, and what became of it"),
        ("on", "go on scaling a VM, also after somebody's own command"),
        ("off", "scale a VM no more, until it is switched on or the service starts anew"),
    ):
        steps.add(name, words, f"autoscale {name}")


def _add_services(commands: _Commands) -> None:
    """Add what runs until it is told to end, for other programs."""
    commands.add(
        "agent-proxy",
        "offer the agent's gRPC service on a host socket",
        "agent-proxy --listen /run/vm1/agent-grpc.sock",
        fill=options.add_listen,
    )
    commands.add(
        "serve",
        "keep the VMs of vms.d, and serve others",
        *("serve", "serve --socket /run/user/1000/vcpuctl.sock"),
        fill=options.add_serve,
        about=_SERVE,
        vm=False,
    )


def _add_apply(commands: _Commands) -> None:
    commands.add(
        "apply",
        "give many VMs their vCPUs, at once",
        *("apply vms.toml", "apply vms.toml --dry-run", "-o json apply vms.toml >ended.json"),
        fill=options.add_goals,
        about=_APPLY,
        vm=False,
    )


def _add_elsewhere(commands: _Commands) -> None:
    """Add what is done where the VM does not run, or not yet."""
    commands.add_group(
        "migrate",
        "whether another QEMU can take this VM over, and making it so",
        title="steps",
        dest="migrate",
        metavar="STEP",
        fill=_add_migration,
    )
    commands.add_group(
        "numa",
        "which NUMA node each slot is of, before the machine is made",
        title="steps",
        dest="numa",
        metavar="STEP",
        fill=_add_numa,
    )


def build_parser(words: Collection[str] | None = None, *, full: bool = False) -> Parser:
    """Return the grammar: of a command line with these words, or, without them, all of it.

    ``full``: every command's help has the common options.
    """
    parser = Parser(
        prog="vcpuctl",
        description="Resize the vCPUs of a running QEMU virtual machine, end to end: done means online in the guest.",
        epilog=_EPILOG,
        example="vcpuctl --vm vm1 list",
    )
    parser.whole = build_parser
    parser.add_argument(
        "-V", "--version", action="version", version=f"vcpuctl {__version__}", help="show the version and exit"
    )
    options.add_common(parser, top=True, shown=True)
    commands = _Commands(parser, words, full=full, title="commands", dest="command", metavar="COMMAND")
    commands.add(
        "list",
        "the map of slots, guest CPUs and host threads; of many VMs a line each",
        *("list", "-o json list", "--vm vm2 list"),
    )
    _add_operations(commands)
    commands.add_group(
        "plan",
        "what plug, unplug or scale would do; changes nothing",
        title="operations",
        dest="planned",
        metavar="OPERATION",
        fill=_add_plan,
    )
    _add_switches(commands)
    _add_apply(commands)
    commands.add(
        "export",
        "the -smp and -device arguments that give a QEMU exactly these vCPUs",
        *("export", "-o json export >vm1.json"),
        fill=options.add_export,
    )
    _add_elsewhere(commands)
    _add_looks(commands)
    commands.add_group(
        "autoscale",
        "vCPUs that follow the guest's load: what vcpuctl serve decides, and why",
        title="steps",
        dest="step",
        metavar="STEP",
        fill=_add_autoscale,
    )
    _add_vms(commands)
    _add_services(commands)
    commands.add_help("help", "what a command does and takes")
    return parser
