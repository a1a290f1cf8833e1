# SPDX-License-Identifier: Apache-2.0
"""One measurement of the vcpuctl whose sources come first on the module path, of this tree or of an older one.

    python trial.py fakes COUNT      plug and unplug COUNT vCPUs of a fake that answers at once
    python trial.py guest QMP        begin a session with a real guest, and ask for what is already so

It writes one line of JSON. Seconds are of the processors, unless the name ends in ``_wall``. It knows the names of
e13c246, too, and nothing of this tree's tests: those of an older tree have other fakes.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: The fake's files lie in memory, as sysfs does.
_MEMORY = "/dev/shm"
_IN_TURN = 16
_BOOT_CPU = r"acpi:\_SB_.CPUS.C000"


def _module(*names: str) -> Any:
    """Return the first of these modules that the tree has."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(names[-1])


def _processor_time(pid: int) -> float:
    """Return the seconds of the processors that the process's threads have had, to the nanosecond (schedstat)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vb", dir=_MEMORY if os.path.isdir(_MEMORY) else "/tmp")


async def _fakes(count: int) -> dict[str, Any]:
    ours = _module("kit.bench.ours", "bench.ours")
    operation = _module("vcpu_host.core.planning.plan", "vcpu_host.core.plan").Operation
    fake_vm = _module("kit.fakes.qemu.vm", "fakes.qemu.vm").FakeVm
    found: dict[str, Any] = {}
    with _folder() as path, fake_vm(Path(path), "--maxcpus", str(max(16, count + 1))) as vm:
        async with ours.coordinator(str(vm.qmp)) as coordinator:
            for name, what in (("plug", operation.PLUG), ("unplug", operation.UNPLUG)):
                before = (time.process_time(), _processor_time(vm.vcpud.pid), _processor_time(vm.process.pid))
                wall = await ours.operate(coordinator, what, list(range(1, count + 1)))
                after = (time.process_time(), _processor_time(vm.vcpud.pid), _processor_time(vm.process.pid))
                spent = [late - early for early, late in zip(before, after, strict=True)]
                found[name] = dict(zip(("library", "vcpud", "fake"), spent, strict=True)) | {"wall": wall}
    return found


async def _guest(qmp: str) -> dict[str, Any]:
    ours = _module("kit.bench.ours", "bench.ours")
    began = time.monotonic()
    async with ours.coordinator(qmp) as coordinator:
        begin = time.monotonic() - began
        agent = await coordinator.session()
        taken = []
        for _ in range(_IN_TURN):
            began = time.monotonic()
            request = agent.set_online((_BOOT_CPU,), online=True, wait=False, brief=True, timeout=60.0)
            answers = [answer async for answer in request]
            taken.append(time.monotonic() - began)
            if len(answers) != 1:
                raise ours.NotDoneError(f"{len(answers)} answers about the boot CPU instead of one")
    return {"begin_wall": begin, "requests_wall": taken}


def main() -> None:
    """Measure what the words say."""
    kind, what = sys.argv[1:]
    found = asyncio.run(_fakes(int(what)) if kind == "fakes" else _guest(what))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
