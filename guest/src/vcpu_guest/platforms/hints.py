# SPDX-License-Identifier: Apache-2.0
"""What the kernel's events about CPUs mean on most machines (drivers/base/core.c, drivers/base/cpu.c)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vcpu_guest.core.model import Hint

HINTS: Mapping[str, Hint] = MappingProxyType(
    {
        "add": Hint.NEW,
        "remove": Hint.GOING,
        "online": Hint.SWITCHED,
        "offline": Hint.SWITCHED,
        "unbind": Hint.SWITCHED,
        "change": Hint.SWITCHED,
    }
)
