# SPDX-License-Identifier: Apache-2.0
"""What makes an operation hard: a host that is busy, and a guest in which something brings CPUs online again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kit.lab import Vm, process
from kit.lab.virt.domain import Domain

#: Builtins alone: an emulated CPU takes longer to start a program than the shortest interval lasts. To read from a pipe
#: that nobody writes to is bash's way to wait for fractions of a second.
_ONLINER = """#!/bin/bash
exec 9<>/run/onliner.pipe
while :; do
    for file in /sys/devices/system/cpu/cpu[1-9]*/online; do
        read -r value 2>/dev/null <"$file" && [ "$value" = 0 ] && echo 1 2>/dev/null >"$file"
    done
    read -rt "$1" -u 9
done
"""
_START = (
    "[ -p /run/onliner.pipe ] || mkfifo /run/onliner.pipe; chmod +x /run/onliner; "
    "systemd-run --quiet --collect --unit=onliner /run/onliner {seconds}"
)
#: Its unit in the guest.
ONLINER = "onliner.service"


@contextmanager
def busy_host() -> Iterator[None]:
    """Every core of the host has something else to do."""
    hogs = [process.start(["sh", "-c", "while :; do :; done"], {}, []) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for hog in hogs:
            process.end(hog)
            if hog.stderr is not None:
                hog.stderr.close()


def rounds(default: int) -> int:
    """How often a long test does what it does: $ROUNDS, if it is given."""
    return int(os.environ.get("ROUNDS", default))


def begin_onliner(vm: Vm | Domain, seconds: float) -> None:
    """Have something in the guest bring online whatever CPU it finds offline, every so many seconds."""
    vm.put(_ONLINER.encode(), "/run/onliner")
    vm.shell(_START.format(seconds=seconds), 60.0)


@contextmanager
def onliner(vm: Vm, seconds: float) -> Iterator[None]:
    """The same, for as long as the block lasts."""
    begin_onliner(vm, seconds)
    try:
        yield
    finally:
        vm.shell(f"systemctl stop {ONLINER}", 60.0)
