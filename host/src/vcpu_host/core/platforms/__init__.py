# SPDX-License-Identifier: Apache-2.0
"""What each platform is like, one module each, and the table that finds the right one.

A platform says how a slot is called in the guest and what cannot be done with it. Nothing else in the host asks which
machine or architecture it has before it.
"""

from __future__ import annotations

from ..model import MACHINE_PROPERTIES, HostView
from . import fixed, loongarch, noacpi, pseries, s390x, unknown, x86, x86_old
from .base import Platform

__all__ = ["Platform", "machine_properties", "platform_for"]

#: The first that matches.
_TABLE: tuple[Platform, ...] = (
    noacpi.PLATFORM,
    x86_old.PLATFORM,
    x86.PLATFORM,
    pseries.PLATFORM,
    s390x.PLATFORM,
    loongarch.PLATFORM,
    fixed.PLATFORM,
)


def platform_for(host: HostView) -> Platform:
    """Return the platform of this machine; the ``unknown`` one, which can do nothing, if no module knows it."""
    for platform in _TABLE:
        if platform.matches(host):
            return platform
    return unknown.PLATFORM


def machine_properties(arch: str) -> tuple[str, ...]:
    """Return the properties of the machine object that platforms of QEMU's architecture ``arch`` ask for.

    What such machines never have is not asked for: an error costs more than an answer.
    """
    return pseries.MACHINE_PROPERTIES if arch == "ppc64" else MACHINE_PROPERTIES
