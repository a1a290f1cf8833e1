# SPDX-License-Identifier: Apache-2.0
"""LoongArch virt: ACPI CPU hotplug like x86's, without SMM."""

from __future__ import annotations

from collections.abc import Iterator

from .. import codes
from ..finding import Finding, Level
from ..model import HostView
from .acpi import AcpiPlatform


class LoongArch(AcpiPlatform):
    """The platform of LoongArch's virt machine."""

    name = "ACPI (LoongArch virt)"

    def matches(self, host: HostView) -> bool:
        """Return whether it is a LoongArch machine that can plug CPUs: virt, from QEMU 10.0 on."""
        return host.arch == "loongarch64" and host.no_hotplug is None

    def known_bugs(self, host: HostView) -> Iterator[Finding]:
        """Yield that the guest's ACPI fails with AE_AML_ALIGNMENT in CSCN on 10.0, and does not on 11.1 (both seen)."""
        yield from super().known_bugs(host)
        if host.qemu_version < (11, 1, 0):
            yield Finding(
                Level.PROBLEM,
                codes.LOONGARCH_ACPI,
                f"with QEMU {host.version_text} a plugged CPU does not appear in the guest: its ACPI code fails there "
                "(AE_AML_ALIGNMENT in \\_SB.CPUS.CSCN, in the guest's kernel log)",
                "QEMU 11.1 or newer",
            )


PLATFORM = LoongArch()
