# SPDX-License-Identifier: Apache-2.0
"""Own cost, without a VM: what remains where KVM makes the kernel's part ten times smaller.

A real ``vcpud`` and the library or a real ``vcpuctl``, over the real link; a fake QEMU and a fake sysfs that answer at
once. Medians of several rounds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.bench import ours
from kit.bench.real import Say
from kit.fakes.qemu.vm import FakeVm
from vcpu_host.core.guest import GuestCpu, GuestView
from vcpu_host.core.model import HostView, Slot, freeze_props
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.view import join

#: The fake's files lie in memory, as sysfs does.
_MEMORY = "/dev/shm"


def measure(rounds: int, say: Say) -> dict[str, Any]:
    """All figures of this part."""
    own = {
        f"plug_{count}": _milliseconds([up for up, _ in (_cycle(count) for _ in range(rounds))]) for count in (1, 240)
    }
    say("own cost of 1 and of 240 plugs")
    with _vm(16) as vm:
        listed = [ours.process(str(vm.qmp), "list") for _ in range(2 * rounds)]
    helped = [ours.process("", "--help") for _ in range(2 * rounds)]
    say("vcpuctl --help and list")
    return {
        "own_ms": own,
        "help_ms": _milliseconds(helped),
        "list_ms": _milliseconds(listed),
        "plan_4096_ms": _milliseconds([_plan_4096() for _ in range(rounds)]),
    }


def _milliseconds(values: list[float]) -> float:
    return round(statistics.median(values) * 1e3, 1)


@contextmanager
def _vm(maxcpus: int) -> Iterator[FakeVm]:
    with (
        tempfile.TemporaryDirectory(prefix="vb", dir=_MEMORY if os.path.isdir(_MEMORY) else "/tmp") as folder,
        FakeVm(Path(folder), "--maxcpus", str(maxcpus)) as vm,
    ):
        yield vm


def _cycle(count: int) -> tuple[float, float]:
    """Plug and unplug ``count`` vCPUs on a fresh fake; the seconds of both library calls."""
    with _vm(max(16, count + 1)) as vm:
        return ours.cycle(str(vm.qmp), list(range(1, count + 1)))


def _plan_4096() -> float:
    """Plan the way from 1 to 4096 vCPUs; seconds, the joining of both sides' looks included."""
    cpu = "qemu64-x86_64-cpu"
    props = [freeze_props({"socket-id": 0, "core-id": i, "thread-id": 0}) for i in range(4096)]
    slots = [Slot(i, cpu, props[i], 1, default_id=f"vcpu-{i}") for i in range(1, 4096)]
    boot = Slot(0, cpu, props[0], 1, filled=True, path="/machine/unattached/device[0]", at_start=True)
    host = HostView((10, 0, 13), "pc-q35-10.0", "x86_64", "running", "tcg", (boot, *slots))
    guest = GuestView(1, "boot", "instance", (GuestCpu(0, "acpi:\\_SB_.CPUS.C000", online=True),))
    began = time.monotonic()
    decided = plan(join(host, guest), Request(Operation.SCALE, 4096))
    spent = time.monotonic() - began
    if len(decided.steps) != 4095:
        raise AssertionError(f"{len(decided.steps)} steps instead of 4095")
    return spent
