# SPDX-License-Identifier: Apache-2.0
"""Everything that the agent reads, writes and hears of the machine it runs on. A test hands in another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from vcpu_guest import platforms
from vcpu_guest.core.model import Environment
from vcpu_guest.cpus.workload import Looker
from vcpu_guest.kernel import procfs
from vcpu_guest.kernel.environment import EnvironmentReader
from vcpu_guest.kernel.event_source import EventSource, NoEvents
from vcpu_guest.kernel.load import LoadFiles, LoadSource
from vcpu_guest.kernel.netdev import Channels, channels
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.kernel.tasks import Tasks
from vcpu_guest.kernel.units import Units
from vcpu_guest.platforms import Platform
from vcpu_guest.platforms.hotplug import HotplugHandler, KernelHotplug
from vcpu_guest.port import Device, open_device

if TYPE_CHECKING:
    from vcpu_guest.platforms.pseries import Pseries


@dataclass(frozen=True, slots=True)
class Machine:
    """The handles of one machine: its files, its events, its port to the host, and the names of this boot.

    `open_port` opens the virtio-serial port at a path, `open_load` the files that tell the load; they raise OSError.
    """

    sysfs: Sysfs
    platform: Platform
    events: EventSource
    hotplug: HotplugHandler
    environment: Callable[[], Environment]
    boot_id: str
    arch: str
    kernel: str
    open_port: Callable[[str], Device] = open_device
    open_load: Callable[[], LoadSource] = LoadFiles
    tasks: Tasks = field(default_factory=Tasks)
    units: Units = field(default_factory=Units)
    ask_channels: Channels = channels

    def looker(self) -> Looker:
        """Return what looks at the machine's programs."""
        return Looker(self.sysfs, self.kernel, self.tasks, self.units, self.ask_channels)


def open_machine(root: str = "/sys", *, events: bool = True) -> Machine:
    """Return this machine. CPUs are looked for below `root`, and without `events` the agent hears of no changes."""
    system = os.uname()
    sysfs = Sysfs(root)
    platform = platforms.detect(system.machine, sysfs)
    hotplug = HOTPLUG_HANDLERS[platform.hotplug](sysfs, platform) if events else KernelHotplug()
    return Machine(
        sysfs=sysfs,
        platform=platform,
        events=_uevents() if events else NoEvents(),
        hotplug=hotplug,
        environment=EnvironmentReader(sysfs, platforms.hypervisor_flag, denials=hotplug.denials),
        boot_id=procfs.boot_id(os.environ),
        arch=system.machine,
        kernel=system.release,
    )


def _uevents() -> EventSource:
    # Imported here: --check and tests without events do not need libudev.
    from vcpu_guest.kernel.uevents import Uevents

    return Uevents()


def _rtas(sysfs: Sysfs, platform: Platform) -> HotplugHandler:
    from vcpu_guest.platforms.rtas import ErrdHotplug, RtasHotplug

    def errd_runs() -> bool:
        return procfs.runs("rtas_errd")

    return ErrdHotplug(errd_runs) if errd_runs() else RtasHotplug(sysfs, cast("Pseries", platform), errd_runs)


#: By a platform's `hotplug`.
HOTPLUG_HANDLERS: Mapping[str, Callable[[Sysfs, Platform], HotplugHandler]] = {
    "kernel": lambda _sysfs, _platform: KernelHotplug(),
    "rtas": _rtas,
}
