# SPDX-License-Identifier: Apache-2.0
"""The QMP adapter: the only place that knows qemu.qmp.

Importing it brings asyncio and qemu.qmp, so programs do it when they need it, not when they start.
"""

from __future__ import annotations

from .vmm import QmpVmm, connect

__all__ = ["QmpVmm", "connect"]
