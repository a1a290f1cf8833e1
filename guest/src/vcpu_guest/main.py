# SPDX-License-Identifier: Apache-2.0
"""The command vcpud."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vcpu_proto.lean import without

from vcpu_guest import __version__, config, logs
from vcpu_guest.errors import AgentError
from vcpu_guest.process.standard import open_closed, say

if TYPE_CHECKING:
    from vcpu_guest.machine import Machine


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the man page is made from it."""
    parser = argparse.ArgumentParser(
        prog="vcpud",
        description="Guest agent of vcpuctl: brings this machine's CPUs online and offline when its host asks, "
        "and reports what it sees.",
        epilog="systemd starts it when the port org.vcpuctl.agent.0 appears; "
        "there is little reason to start it by hand.",
        allow_abbrev=False,  # what is short for an option today may be short for two tomorrow
    )
    parser.add_argument("--version", action="version", version=f"vcpud {__version__}")
    parser.add_argument(
        "--config", metavar="FILE", help=f"configuration file (default: {config.DEFAULT_PATH}, if it is there)"
    )
    parser.add_argument(
        "--port", metavar="DEVICE", help=f"virtio-serial port to the host (default: {config.DEFAULT_PORT})"
    )
    parser.add_argument(
        "--log-level", choices=tuple(logs.LEVELS), help="least severe level that is logged (default: info)"
    )
    parser.add_argument("--log-format", choices=("text", "json"), help="how log lines look (default: text)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="print what the agent sees (platform, CPUs, environment) as JSON, and exit; needs no port",
    )
    parser.add_argument(
        "--programs",
        metavar="CPUS",
        help="print what would be without any CPU if these went offline (3,5-7), and exit with 3 if there is any",
    )
    service = parser.add_argument_group("where no package of the distribution has brought vcpud")
    service.add_argument(
        "--install-service",
        action="store_true",
        help="put unit, udev rule, configuration and man page in place, start the service, and exit",
    )
    service.add_argument(
        "--uninstall-service", action="store_true", help="stop the service, take these files away, and exit"
    )
    service.add_argument(
        "--root", metavar="DIRECTORY", default="/", help="for these two: the root of another system, such as an image"
    )
    tests = parser.add_argument_group("for tests and for looking by hand")
    tests.add_argument("--listen", metavar="SOCKET", help="serve gRPC on this unix socket, and join no port")
    tests.add_argument(
        "--sysfs", metavar="DIRECTORY", default="/sys", help="read and write CPUs below this directory (default: /sys)"
    )
    tests.add_argument(
        "--events", choices=("kernel", "none"), default="kernel", help="where changes are heard of (default: kernel)"
    )
    return parser


OpenMachine = Callable[[argparse.Namespace], "Machine"]


def main(argv: Sequence[str] | None = None, open_machine: OpenMachine | None = None) -> int:
    """Run the command and return the exit status.

    `open_machine` lets a test put another machine behind the same agent.
    """
    if argv is None:  # a process's own start
        open_closed()
    options = build_parser().parse_args(argv)
    try:
        return _run(options, open_machine or _open_machine)
    except AgentError as error:
        code, text = error.exit_code, str(error)
    except OSError as error:
        code, text = 1, str(error)
    prefix = "<3>" if "JOURNAL_STREAM" in os.environ else "vcpud: "
    say(f"{prefix}{text}")
    return code


def _run(options: argparse.Namespace, open_machine: OpenMachine) -> int:
    if options.install_service or options.uninstall_service:
        return _install(options)
    # asyncio takes OpenSSL for its TLS, which the agent does not speak: a tenth of its memory, and time at its start.
    with without("ssl"):
        import asyncio

    # Only the agent itself may use its gRPC socket, also when it is started by hand.
    os.umask(0o077)
    # gRPC's fork handlers have nothing to guard here: the agent forks for hooks alone, and they exec at once.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    settings = config.load(options.config or config.DEFAULT_PATH, required=options.config is not None)
    logs.configure(options.log_level or settings.log_level, options.log_format or settings.log_format)
    machine = open_machine(options)
    if options.check:
        from vcpu_guest.report import report

        sys.stdout.write(report(machine))
        return 0
    if options.programs is not None:
        from vcpu_guest.report import programs

        text = programs(machine, options.programs)
        sys.stdout.write(text)
        return 3 if text else 0
    from vcpu_guest.cpus.hooks import Hooks
    from vcpu_guest.daemon import run

    port = None if options.listen else options.port or settings.port
    with _runtime_directory() as directory:
        socket_path = options.listen or f"{directory}/agent.sock"
        gate_directory = directory if settings.eject_gate else None
        hooks = Hooks(settings.hook_timeout) if settings.hooks else None
        keep, load = settings.keep_affinity, settings.load
        asyncio.run(
            run(
                machine,
                socket_path,
                port,
                gate_directory=gate_directory,
                hooks=hooks,
                keep_affinity=keep,
                load=load,
            )
        )
    return 0


def _install(options: argparse.Namespace) -> int:
    from vcpu_guest.install import install, uninstall

    os.umask(0o022)  # whoever may read unit and page may read these
    for line in (install if options.install_service else uninstall)(options.root):
        sys.stdout.write(f"{line}\n")
    return 0


def _open_machine(options: argparse.Namespace) -> Machine:
    from vcpu_guest.machine import open_machine

    return open_machine(options.sysfs, events=options.events == "kernel")


@contextmanager
def _runtime_directory() -> Iterator[str]:
    """Give systemd's RuntimeDirectory= (the unit makes its mode 0700), or a private one if started by hand."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given:
        yield given
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="vcpud-") as directory:
        yield directory
