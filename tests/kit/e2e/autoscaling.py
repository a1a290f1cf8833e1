# SPDX-License-Identifier: Apache-2.0
"""A ``vcpuctl serve`` on this machine that scales a real VM, and what it says of that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kit.component.cli import until
from kit.e2e.machine import VCPUCTL
from kit.lab import Vm

#: Seconds after which a condition is given up: an emulated guest that boots takes minutes.
LONG = 400.0
#: The host's own shortage holds nothing off: the machine has other tests to run, for which this guest's vCPUs wait.
#: That it holds a VM where it should is told by the unit tests of the policy.
SETTINGS = """
[autoscale]
max = 4
steal = 1.0
mode = "act"
boot_grace = 0
down_window = 20
down_pause = 1
turn_pause = 1
operator_hold = 3600
"""


class Scaling:
    """The service, from the beginning of its block to the end. The VM is called web1 there."""

    def __init__(self, vm: Vm, settings: str = SETTINGS) -> None:
        self._vm = vm
        self._folder = Path(tempfile.mkdtemp(prefix="vs", dir="/tmp"))
        files = self._folder / "vcpuctl" / "vms.d"
        files.mkdir(parents=True)
        (files / "web1.toml").write_text(f'qmp = "{vm.qmp_socket}"\n{settings}')
        self._environment = {**os.environ, "XDG_CONFIG_HOME": str(self._folder)}
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        socket = str(self._folder / "serve.sock")
        return subprocess.Popen(
            [str(VCPUCTL), "serve", "--socket", socket, "--host-pressure", "100"], env=self._environment
        )

    def dies(self) -> None:
        """Kill the service, and start another one."""
        self.process.kill()
        self.process.wait()
        self.process = self._started()

    def asked(self, step: str = "status") -> dict[str, Any] | None:
        """Return what the service says of the VM; None if it cannot be asked now."""
        argv = [str(VCPUCTL), "--vm", "web1", "-o", "json", "autoscale", step]
        ended = subprocess.run(argv, env=self._environment, capture_output=True, text=True, timeout=LONG, check=False)
        (found,) = json.loads(ended.stdout)["vms"] if ended.stdout else [{"error": {}}]
        return None if found["error"] is not None else dict(found)

    def says(self, *codes: str) -> dict[str, Any]:
        """Wait until it decides for one of these reasons."""
        found: dict[str, Any] = {}

        def decided() -> bool:
            found.update(self.asked() or {"decision": {"code": ""}})
            return found["decision"]["code"] in codes

        until(decided, LONG, f"a decision for {' or '.join(codes)}", every=1.0)
        return found

    def has(self, *vcpus: int) -> None:
        """Wait until the VM has one of these numbers online, by the service's words and then by the guest's own.

        The guest is asked only once the service says so: asking it is load, of which an emulated guest feels as much
        as half a CPU. If its word is another one, a step was under way, and the wait goes on.
        """

        def both() -> bool:
            return self._online() in vcpus and int(self._vm.shell("nproc", 120.0)) in vcpus

        until(both, LONG, f"{vcpus} vCPUs online", every=1.0)

    def _online(self) -> int | None:
        found = self.asked()
        return None if found is None else int(found["decision"]["online"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(json.dumps(self.asked(), indent=1))  # why the loop did not do what was waited for
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
        shutil.rmtree(self._folder)


def busy(vm: Vm, processes: int) -> None:
    """Have so many processes compute in the guest; 0 ends those that do."""
    vm.shell("kill $(cat /run/busy 2>/dev/null) 2>/dev/null; rm -f /run/busy; true", 120.0)
    if processes:
        loops = f"for i in $(seq {processes}); do (while :; do :; done) & echo $! >>/run/busy; done"
        vm.shell(loops, 120.0)
