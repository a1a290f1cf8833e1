#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# pyudev: a netlink socket whose buffer was too small for a burst of events says so once, with ENOBUFS, and goes on;
# the events that fitted can be read, later ones come. So an expert expects one OSError with that errno from
# Monitor.poll().
#
# What happens: poll() raises OSError at every call from then on, with errno None and not a word of an overflow, and
# gives no event any more: neither those that are queued nor those that come. pyudev looks for an error by poll(2),
# which reports the socket's for as long as nobody has taken it, and pyudev never reads from a socket that has one.
# Reading SO_ERROR off the socket takes it, and all is well again. (MonitorObserver's thread ends at the first of
# them.)
#
# Why it matters: one burst (a rescan of a bus, many vCPUs at once) makes a program that listens for hotplugged CPUs
# deaf, and one that tries again spins. vcpud takes the error off, looks at all CPUs once and listens on:
# tests/unit/guest/kernel/test_uevents.py::test_after_an_overflow_everything_is_looked_at_once_and_events_are_heard_again.
#
# Needs root: it has the kernel announce /dev/null again, by its file uevent, 201 times. Nothing comes of that.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

pip_packages pyudev==0.24.3
run_python <<'PYTHON'
import errno
import os
import socket

import pyudev
from qmp import Verdict

verdict = Verdict()
verdict.saw("pyudev", pyudev.__version__, "0.24.3")
monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
monitor.filter_by("mem")
monitor.start()
netlink = socket.socket(fileno=os.dup(monitor.fileno()))
netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel takes its least instead


def announce(times: int) -> None:
    for _ in range(times):
        with open("/sys/class/mem/null/uevent", "w", encoding="ascii") as uevent:
            uevent.write("change")


def poll() -> str:
    try:
        device = monitor.poll(timeout=2)
    except OSError as error:
        return f"OSError, errno {error.errno}"
    return "nothing" if device is None else f"{device.action} of {device.sys_name}"


announce(1)
verdict.saw("poll() after one event", poll(), "change of null")
announce(100)
verdict.saw("poll() after a hundred", [poll() for _ in range(3)], ["OSError, errno None"] * 3)
announce(100)
verdict.saw("poll() after a hundred more", {poll() for _ in range(300)}, {"OSError, errno None"})
code = netlink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
verdict.saw("SO_ERROR, read off the socket", errno.errorcode.get(code), "ENOBUFS")
verdict.saw("poll() then", poll(), "change of null")
while poll() != "nothing":
    pass
announce(1)
verdict.saw("poll() after the queue is empty, and one more event", poll(), "change of null")

verdict.end()
PYTHON
