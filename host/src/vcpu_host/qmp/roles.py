# SPDX-License-Identifier: Apache-2.0
"""Where the layers of this adapter meet: what the QMP commands of a VM go through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..core.identity import VmIdentity


class Monitor(Protocol):
    """A QMP session with one QEMU. ``monitor.SocketMonitor`` has one over a unix socket."""

    @property
    def qemu_version(self) -> object:
        """The version as query-version gives it, unparsed; None if QEMU did not say."""

    async def call(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Return QEMU's answer. Raise QemuError, or QemuGoneError if there is none: it is not known what was done."""

    def identify(self, thread_id: int | None) -> VmIdentity:
        """Return which QEMU this is. ``thread_id`` is the first vCPU's, as QEMU tells it; None before there is one."""

    async def close(self) -> None:
        """End the session: never hang, never raise; may be repeated."""
