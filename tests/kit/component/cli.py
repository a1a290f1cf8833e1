# SPDX-License-Identifier: Apache-2.0
"""The real ``vcpuctl`` as a process, on a fake VM whose agent is the real ``vcpud``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from kit import documents
from kit.ended import Ended
from kit.fakes.qemu import FakeVm
from kit.fakes.qemu.process import UNSHARE
from kit.until import DEADLINE

SOON = DEADLINE


class Vcpuctl:
    """One command under way, by one of the VM's monitors ("qmp", "qmp2"); gone at the end of its block.

    ``apart``: in a PID namespace of its own, from which QEMU's process is not to be seen. ``inside``: words before the
    command that bring it where it is to run.
    """

    def __init__(
        self, vm: FakeVm, *words: str, monitor: str = "qmp", apart: bool = False, inside: Sequence[str] = ()
    ) -> None:
        program = (*inside, *(UNSHARE if apart else ()), sys.executable, "-m", "vcpu_host.cli.main")
        self.process = subprocess.Popen(
            [*program, "--qmp", str(vm.folder / monitor), "-o", "json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(vm.folder)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def ends(self, within: float = SOON) -> Ended:
        """How it ended, within so many seconds from now."""
        stdout, stderr = self.process.communicate(timeout=within)
        documents.check_output(stdout)
        return Ended(self.process.returncode, stdout, stderr)


def run(
    vm: FakeVm,
    *words: str,
    within: float = SOON,
    monitor: str = "qmp",
    apart: bool = False,
    inside: Sequence[str] = (),
) -> Ended:
    """A command from start to end."""
    with Vcpuctl(vm, *words, monitor=monitor, apart=apart, inside=inside) as command:
        return command.ends(within)


def filled(vm: FakeVm) -> set[int]:
    """The slots that QEMU has filled."""
    slots = vm.steer.call("query-hotpluggable-cpus")
    return {len(slots) - 1 - place for place, slot in enumerate(slots) if "qom-path" in slot}


def online(vm: FakeVm) -> set[int]:
    """The slots that the guest's kernel has online."""
    return {slot for slot, is_online in vm.guest_cpus().items() if is_online}


def stands(vm: FakeVm, slots: set[int]) -> None:
    """These slots, and no others, are filled in QEMU and online in the guest, and nothing is left beside them."""
    assert filled(vm) == slots
    assert vm.guest_cpus() == dict.fromkeys(sorted(slots), True)


def done(vm: FakeVm, slots: set[int], *words: str, within: float = SOON) -> Ended:
    """A command that ends done, with both sides as it says."""
    ended = run(vm, *words, within=within)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    stands(vm, slots)
    return ended


def until(condition: Callable[[], bool], within: float = SOON, what: str = "it", every: float = 0.01) -> None:
    """Ask again every so many seconds until the condition holds; ``what`` is what it is about."""
    deadline, pause = time.monotonic() + within, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in time"
        pause.wait(every)
