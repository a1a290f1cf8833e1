# SPDX-License-Identifier: Apache-2.0
"""All that the agent has of the machine it runs on, in one place, so that a test can hand in another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vcpu_guest import platforms
from vcpu_guest.core.model import Environment
from vcpu_guest.kernel import procfs
from vcpu_guest.kernel.environment import Observer
from vcpu_guest.kernel.event_source import EventSource, NoEvents
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms import Platform
from vcpu_guest.platforms.connectors import Connectors, KernelConnectors

if TYPE_CHECKING:
    from vcpu_guest.platforms.pseries import Pseries


@dataclass(frozen=True, slots=True)
class Doors:
    """What is read and written, what tells of changes, and what names this boot."""

    sysfs: Sysfs
    platform: Platform
    events: EventSource
    connectors: Connectors
    environment: Callable[[], Environment]
    boot_id: str
    arch: str
    kernel: str


def open_doors(root: str = "/sys", *, events: bool = True) -> Doors:
    """The doors of this machine; CPUs are looked for below `root`. Without `events` nothing is listened to."""
    system = os.uname()
    sysfs = Sysfs(root)
    platform = platforms.detect(system.machine, sysfs)
    connectors = CONNECTORS[platform.connectors](sysfs, platform) if events else KernelConnectors()
    return Doors(
        sysfs=sysfs,
        platform=platform,
        events=_uevents() if events else NoEvents(),
        connectors=connectors,
        environment=Observer(sysfs, denials=connectors.denials),
        boot_id=procfs.boot_id(os.environ),
        arch=system.machine,
        kernel=system.release,
    )


def _uevents() -> EventSource:
    # Imported here: --check and tests without events do not need libudev.
    from vcpu_guest.kernel.uevents import Uevents

    return Uevents()


def _rtas(sysfs: Sysfs, platform: Platform) -> Connectors:
    from vcpu_guest.platforms.rtas import RtasConnectors, StandAside

    def errd_runs() -> bool:
        return procfs.runs("rtas_errd")

    return StandAside(errd_runs) if errd_runs() else RtasConnectors(sysfs, cast("Pseries", platform), errd_runs)


#: By what a platform says of itself.
CONNECTORS: Mapping[str, Callable[[Sysfs, Platform], Connectors]] = {
    "kernel": lambda _sysfs, _platform: KernelConnectors(),
    "rtas": _rtas,
}
