# SPDX-License-Identifier: Apache-2.0
"""``python3 -m kit.lab``: look after the lab, and use it by hand."""

from __future__ import annotations

import argparse
import os
import select
import sys
import termios
import time
import tty
from pathlib import Path

from kit.lab import guest, host, qemu
from kit.lab.cache import Cache
from kit.lab.errors import LabError
from kit.lab.lab import Lab
from kit.lab.spec import AGENT_READY, VmSpec
from kit.lab.vm import Vm

_ESCAPE = b"\x1d"  # Ctrl-]


def build_parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    parser = argparse.ArgumentParser(prog="python3 -m kit.lab", description="The VM laboratory of vcpuctl's tests.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("packages", help="print the Debian packages that the lab needs, one a line")
    commands.add_parser("path", help="print the directory of everything that the lab keeps")
    prune = commands.add_parser("prune", help="remove what the lab keeps and nobody uses now")
    prune.add_argument("--days", type=float, default=0.0, help="only what was not used for so many days")
    for name, text in (
        ("prefetch", "fetch, build, boot and save all that a VM needs"),
        ("shell", "start a VM and open a root shell in it"),
    ):
        _add_spec(commands.add_parser(name, help=text))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 1 with the reason on standard error."""
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.command == "packages":
            print("\n".join(host.PACKAGES))
        elif arguments.command == "path":
            print(Cache().root)
        elif arguments.command == "prune":
            for path in Cache().prune(arguments.days * 24 * 3600):
                print(f"removed {path}")
        else:
            spec = _spec(arguments)
            started = time.monotonic()
            lab = Lab(progress=lambda text: print(f"[{time.monotonic() - started:5.1f} s] {text}", file=sys.stderr))
            if arguments.command == "prefetch":
                lab.prepare(spec)
            else:
                with lab, lab.vm(spec) as vm:
                    _terminal(vm)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _add_spec(parser: argparse.ArgumentParser) -> None:
    default = VmSpec()
    parser.add_argument("--machine", default=default.machine, help="QEMU's machine type (%(default)s)")
    parser.add_argument("--qemu", default=default.qemu, choices=list(qemu.SUITES), help="QEMU's version (%(default)s)")
    parser.add_argument("--smp", default=default.smp, help="QEMU's -smp (%(default)s)")
    parser.add_argument("--guest", default=default.guest, choices=list(guest.RECIPES), help="guest image (%(default)s)")
    parser.add_argument("--kernel-args", default="", metavar="ARGS", help="more of the guest kernel's command line")
    parser.add_argument("--debs", type=Path, metavar="DIR", help="install the agent's packages from there")
    parser.add_argument("--package", action="append", metavar="NAME", help="install these packages of --debs instead")
    parser.add_argument("--ready", metavar="SH", help="shell condition that ends the installation")


def _spec(arguments: argparse.Namespace) -> VmSpec:
    default = VmSpec()
    return VmSpec(
        machine=arguments.machine,
        qemu=arguments.qemu,
        smp=arguments.smp,
        guest=arguments.guest,
        kernel_args=arguments.kernel_args,
        debs=arguments.debs and arguments.debs.resolve(),
        packages=tuple(arguments.package) if arguments.package else default.packages,
        ready=arguments.ready or ("true" if arguments.package else AGENT_READY),
    )


def _terminal(vm: Vm) -> None:
    """Join this terminal to the guest's shell until Ctrl-] or the end of either side."""
    print(f"QEMU {vm.pid}: --qmp {vm.qmp_socket} --agent {vm.agent_socket}\nCtrl-] ends the VM.", file=sys.stderr)
    console = vm.interactive()
    keys = sys.stdin.fileno()
    saved = termios.tcgetattr(keys) if os.isatty(keys) else None
    try:
        if saved is not None:
            tty.setraw(keys)
        while True:
            ready, _, _ = select.select([console, keys], [], [])
            if console in ready:
                data = console.recv(65536)
                if not data:
                    return
                os.write(sys.stdout.fileno(), data)
            if keys in ready:
                typed = os.read(keys, 4096)
                if not typed or _ESCAPE in typed:
                    return
                console.sendall(typed)
    finally:
        if saved is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, saved)


if __name__ == "__main__":
    sys.exit(main())
