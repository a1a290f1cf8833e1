# SPDX-License-Identifier: Apache-2.0
"""What the fake machine's slots are, and what may be in them."""

from __future__ import annotations

from dataclasses import dataclass

from kit.fakes.qemu.config import Config


@dataclass
class Cpu:
    """A CPU object."""

    path: str
    device_id: str | None
    tid: int
    #: Its cpu-index.
    number: int


@dataclass
class Slot:
    """One entry of possible_cpus, with its registers (AcpiCpuStatus)."""

    index: int
    ids: dict[str, int]
    apic_id: int
    node: int | None
    cpu: Cpu | None = None
    inserting: bool = False
    removing: bool = False
    ost: tuple[int, int] = (0, 0)

    def props(self, config: Config) -> dict[str, int]:
        """As query-hotpluggable-cpus shows them: die and module only where there is more than one."""
        if config.pseries:
            return {"core-id": self.ids["core"]}
        shown = {"socket-id": self.ids["socket"], "core-id": self.ids["core"], "thread-id": self.ids["thread"]}
        if config.dies > 1:
            shown["die-id"] = self.ids["die"]
        if config.modules > 1:
            shown["module-id"] = self.ids["module"]
        if self.node is not None:
            shown["node-id"] = self.node
        return shown
