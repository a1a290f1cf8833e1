# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl serve``: the coordinator that stays."""

from __future__ import annotations

import argparse
import asyncio
import signal

from vcpu_host import __version__
from vcpu_host.autoscale.budget import Budget
from vcpu_host.local import directory
from vcpu_host.local.unix_sockets import bad_socket
from vcpu_host.service.kept import HostLimits
from vcpu_host.service.serve import serve as serve_vms

from . import garbage
from .exitcodes import Exit
from .target import check_no_vm


async def serve(args: argparse.Namespace) -> Exit:
    """Serve until interrupted. Raise UsageError if a VM is named, or a socket that can be none."""
    check_no_vm(args, instead="it keeps every VM of vms.d")
    path = directory.service_socket() if args.socket is None else args.socket
    if not path:
        raise bad_socket(f"{path!r} is no path of a socket")
    garbage.begin(seldom=False)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    host = HostLimits(Budget(args.vcpu_budget), args.host_pressure / 100)
    if args.metrics is None and args.metrics_file is None:
        await serve_vms(path, stop, host=host)
        return Exit.DONE
    # Late: they need prometheus_client.
    from vcpu_host.service.exposition import address
    from vcpu_host.service.metrics import Metrics
    from vcpu_host.service.observed import Observed, handed_out
    from vcpu_host.service.textfile import textfile

    where = None if args.metrics is None else address(args.metrics)
    file = None if args.metrics_file is None else textfile(args.metrics_file)
    metrics = Metrics(version=__version__)
    async with handed_out(metrics, where, file):
        await serve_vms(path, stop, Observed(metrics), host=host)
    return Exit.DONE
