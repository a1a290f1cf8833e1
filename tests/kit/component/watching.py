# SPDX-License-Identifier: Apache-2.0
"""A real ``vcpuctl watch`` as a process, and what it has shown."""

from __future__ import annotations

from types import TracebackType

from kit.e2e.lines import JsonLines
from kit.fakes.qemu import FakeVm

from .cli import SOON, Vcpuctl


class Watching(Vcpuctl):
    """Watches a VM from the beginning of its block, which is when it has shown the first map, to the end."""

    def __init__(self, vm: FakeVm, *, monitor: str = "qmp") -> None:
        super().__init__(vm, "watch", monitor=monitor)
        self._lines = JsonLines(self.process)
        self._lines.until(lambda view: True, SOON)

    def shows(self, online: int) -> None:
        """Wait for a map with so many vCPUs online, after those that were waited for before."""
        self._lines.until(lambda view: view["vm"]["online_vcpus"] == online, SOON)

    def shows_state(self, slot: int, state: str) -> None:
        """Wait for a map with the slot in this state."""
        self._lines.until(lambda view: view["slots"][slot]["state"] == state, SOON)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._lines.finish(SOON)
