# SPDX-License-Identifier: Apache-2.0
"""A ``vcpuctl`` under way on a domain, held still where a fault is to meet it, and other clients of its libvirt.

The moment is the one at which QEMU receives a command, by QEMU's own record. vcpuctl is stopped there (SIGSTOP) while
the fault happens, so that it has not ended before, however slow the machine is; the guest and libvirtd go on.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kit import documents
from kit.e2e.domains import DomainMachine, all_three
from kit.ended import Ended
from kit.lab import WaitTimeoutError

#: Seconds after which a command is given up that has lost what it needs. Nothing is judged by less.
SOON = 60.0
#: Seconds for which the beginning of an operation is waited for: the connection by ssh, and the first look.
_BEGINS = 60.0
_CLIENTS = Path(__file__).parent / "clients"


class UnderWay:
    """A command that runs; ``ends`` says how it ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ends(self, within: float = SOON) -> Ended:
        """Let it go on, and return how it ended. Raises TimeoutExpired if that takes more than so many seconds."""
        self.process.send_signal(signal.SIGCONT)
        stdout, stderr = self.process.communicate(timeout=within)
        documents.check_output(stdout)
        return Ended(self.process.returncode, stdout, stderr)


@contextmanager
def held(machine: DomainMachine, at: str, *words: str, uri: str = "") -> Iterator[UnderWay]:
    """Start ``vcpuctl WORDS`` and stop it as soon as QEMU receives the command ``at``; at the end it is gone."""
    since = time.monotonic()
    process = (machine.by(uri) if uri else machine.vcpuctl).start(*words)
    try:
        machine.domain.wait_command(at, _BEGINS, since=since)
        process.send_signal(signal.SIGSTOP)
        yield UnderWay(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def channel_taken(machine: DomainMachine, *how: str) -> Iterator[None]:
    """Have another client of libvirt hold the domain's channel; ``force``: whoever has it."""
    line = [sys.executable, str(_CLIENTS / "channel_holder.py"), machine.domain.host.uri, machine.domain.name, *how]
    with subprocess.Popen(
        line, env={**os.environ, **machine.module}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.stdin.close()


def gives_up(uri: str, domain: str, module: Mapping[str, str]) -> float:
    """Seconds that vcpuctl's adapter takes to give up a channel whose guest reads nothing: see ``deaf_guest``."""
    done = subprocess.run(
        [sys.executable, str(_CLIENTS / "deaf_guest.py"), uri, domain],
        env={**os.environ, **module},
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * SOON,
        check=True,
    )
    return float(done.stdout)


def run(machine: DomainMachine, *words: str, within: float = SOON) -> tuple[Ended, int]:
    """Run ``vcpuctl WORDS`` to its end in bounded time; return how it ended, and the most memory it had, in bytes.

    What it writes has to fit into its pipes.
    """
    process = machine.vcpuctl.start(*words)
    end = os.pidfd_open(process.pid)
    if not select.select([end], [], [], within)[0]:
        process.kill()
    os.close(end)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    stdout, stderr = process.communicate()
    assert process.returncode >= 0, f"it did not end within {within:.0f} s: {stderr}"
    documents.check_output(stdout)
    return Ended(process.returncode, stdout, stderr), used.ru_maxrss * 1024


def unknown(ended: Ended, *codes: str) -> None:
    """The outcome of slot 5's operation is not known, and it has one of these reasons, with what to do."""
    assert (ended.status, ended.outcome) == (4, "unknown"), ended.stdout + ended.stderr
    assert ended.code(5) in codes, ended.stdout
    assert ended.slots[5]["reason"]["hint"]


def again(machine: DomainMachine, words: tuple[str, ...], *slots: int) -> None:
    """The same command once more is done, and so it is after that; guest, QEMU and libvirt agree."""
    for _ in range(2):
        ended = machine.vcpuctl(*words)
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        reasons = {part["reason"]["code"] for part in ended.json["slots"] if part["reason"] is not None}
        assert reasons <= {"already"}, ended.stdout
        assert machine.sides() == all_three(*slots)


def wait_slots(machine: DomainMachine, *slots: int, timeout: float = SOON) -> None:
    """Wait until QEMU has vCPUs in these slots alone: no event tells that reliably. Raises WaitTimeoutError."""
    until = time.monotonic() + timeout
    while (found := machine.domain.slots()) != sorted(slots):
        if time.monotonic() > until:
            raise WaitTimeoutError(f"not within {timeout:.0f} s: slots {slots}; there are {found}")
        machine.domain.host.virsh(
            "qemu-monitor-event", machine.domain.name, "--event", "DEVICE_DELETED", "--timeout", "1"
        )
