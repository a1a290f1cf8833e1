# SPDX-License-Identifier: Apache-2.0
"""Who brings CPUs into the guest and lets go of them: nearly always the kernel by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

#: Has something done by the one writer, in its thread.
Submit = Callable[[Callable[[], None]], None]


class HotplugHandler(Protocol):
    """Runs in the event loop, and never blocks it."""

    @property
    def name(self) -> str:
        """For Hello, after the source of events; "" where the kernel needs nobody."""

    def start(self, submit: Submit, changed: Callable[[], None]) -> None:
        """Begin to act. `changed` is called in the loop when everything deserves a look."""

    def summon(self, firmware_ids: Iterable[str]) -> None:
        """These are waited for and not there: bring in those that have been plugged, if nobody else does."""

    def denials(self) -> tuple[str, ...]:
        """The files that it has to write and may not, as environment.denial says it."""

    def close(self) -> None:
        """End. Closing twice is allowed."""

    async def ended(self) -> None:
        """Return when `alive` may have become False, where that can be noticed at once."""

    @property
    def alive(self) -> bool:
        """Whether it still does what its name says; False makes the agent stop and be started afresh."""


class KernelHotplug:
    """The kernel does it all."""

    name = ""
    alive = True

    def start(self, submit: Submit, changed: Callable[[], None]) -> None:
        """Nothing to begin."""

    def summon(self, firmware_ids: Iterable[str]) -> None:
        """The kernel does so by itself."""

    def denials(self) -> tuple[str, ...]:
        """It writes none."""
        return ()

    def close(self) -> None:
        """Nothing to end."""

    async def ended(self) -> None:
        """Never."""
        await asyncio.Event().wait()
