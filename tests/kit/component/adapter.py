# SPDX-License-Identifier: Apache-2.0
"""The QMP adapter on a fake QEMU in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kit.fakes.qemu import Config, FakeQemu
from vcpu_host.qmp import QmpVmm, connect


@asynccontextmanager
async def machine(folder: Path, **config: object) -> AsyncIterator[tuple[FakeQemu, QmpVmm]]:
    """A fake QEMU and the adapter on it, whose guest is up."""
    async with FakeQemu(folder, Config(**config)) as qemu:  # type: ignore[arg-type]
        vmm = await connect(str(qemu.qmp), call_timeout=60)
        try:
            yield qemu, vmm
        finally:
            await vmm.close()
