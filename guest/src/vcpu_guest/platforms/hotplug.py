# SPDX-License-Identifier: Apache-2.0
"""Who carries out hotplug events in the guest: nearly always the kernel by itself.

On PAPR guests with legacy events the kernel leaves that to user space (see `rtas`); then either rtas_errd or the agent
takes new cores in and releases those that the hypervisor wants back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

#: Queues work for the writer's thread.
Submit = Callable[[Callable[[], None]], None]


class HotplugHandler(Protocol):
    """Takes CPUs into the guest and releases them. It runs in the event loop, and never blocks it."""

    @property
    def name(self) -> str:
        """Return the name that Hello adds to the source of events; "" where the kernel needs no help."""

    def start(self, submit: Submit, changed: Callable[[], None]) -> None:
        """Begin to act. `changed` is called in the loop when everything has to be looked at."""

    def summon(self, firmware_ids: Iterable[str]) -> None:
        """Take in those of these CPUs that have been plugged: a request waits for them, and they are not there."""

    def denials(self) -> tuple[str, ...]:
        """Return the files that it has to write and may not, in the form of reasons.denial."""

    def close(self) -> None:
        """End. Closing twice is allowed."""

    async def ended(self) -> None:
        """Return when `alive` may have become False, where that can be noticed at once."""

    @property
    def alive(self) -> bool:
        """Say whether it still does what its name says. If not, the agent ends and is started afresh."""


class KernelHotplug:
    """The kernel carries out all events by itself."""

    name = ""
    alive = True

    def start(self, submit: Submit, changed: Callable[[], None]) -> None:
        """Do nothing."""

    def summon(self, firmware_ids: Iterable[str]) -> None:
        """Do nothing: the kernel takes the CPUs in by itself."""

    def denials(self) -> tuple[str, ...]:
        """Return nothing: it writes no file."""
        return ()

    def close(self) -> None:
        """Do nothing."""

    async def ended(self) -> None:
        """Never return."""
        await asyncio.Event().wait()
