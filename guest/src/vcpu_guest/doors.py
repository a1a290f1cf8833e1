# SPDX-License-Identifier: Apache-2.0
"""All that the agent has of the machine it runs on, in one place, so that a test can hand in another machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from vcpu_guest import platforms, procfs
from vcpu_guest.core.model import Environment
from vcpu_guest.environment import Observer
from vcpu_guest.events import EventSource, NoEvents
from vcpu_guest.platforms import Platform
from vcpu_guest.sysfs import Sysfs


@dataclass(frozen=True, slots=True)
class Doors:
    """What is read and written, what tells of changes, and what names this boot."""

    sysfs: Sysfs
    platform: Platform
    events: EventSource
    environment: Callable[[], Environment]
    boot_id: str
    arch: str
    kernel: str


def open_doors(root: str = "/sys", *, events: bool = True) -> Doors:
    """The doors of this machine; CPUs are looked for below `root`. Without `events` nothing is listened to."""
    system = os.uname()
    sysfs = Sysfs(root)
    return Doors(
        sysfs=sysfs,
        platform=platforms.detect(system.machine),
        events=_uevents() if events else NoEvents(),
        environment=Observer(sysfs),
        boot_id=procfs.boot_id(os.environ),
        arch=system.machine,
        kernel=system.release,
    )


def _uevents() -> EventSource:
    # Imported here: --check and tests without events do not need libudev.
    from vcpu_guest.uevents import Uevents

    return Uevents()
