# SPDX-License-Identifier: Apache-2.0
"""KVM or TCG: /dev/kvm exists on machines where it does not work, so only a guest that really boots proves it."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

from kit.lab import host, states
from kit.lab.arch import ARCHES, NATIVE
from kit.lab.cache import Cache, digest
from kit.lab.errors import LabError
from kit.lab.guest import Image, arch_of
from kit.lab.qemu import Qemu
from kit.lab.spec import VmSpec
from kit.lab.vm import Vm

_TIMEOUT = 40.0


def choose(cache: Cache, qemu: Qemu, image: Image, progress: host.Progress = host.quiet) -> str:
    """``kvm`` where a probe boot under it worked (found out once), else ``tcg``. $VCPU_LAB_ACCEL says it outright.

    A guest of another architecture than the host's can only be emulated.
    """
    if arch_of(image.name) is not ARCHES[NATIVE]:
        return "tcg"
    forced = os.environ.get("VCPU_LAB_ACCEL")
    if forced:
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"

    def build(folder: Path) -> None:
        progress("trying a boot under KVM")
        accel = _probe(qemu, image)
        progress("KVM works here" if accel == "kvm" else "KVM does not work here: using TCG")
        (folder / "accel").write_text(accel)

    key = digest(qemu.key, platform.release(), _cpu_model())
    with cache.entry(f"accel-{qemu.version}", key, build) as entry:
        return (entry.path / "accel").read_text()


def _probe(qemu: Qemu, image: Image) -> str:
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk.qcow2"
        states.overlay(qemu, image.root, "raw", disk)
        try:
            with Vm(VmSpec(qemu=qemu.version), qemu, image, "kvm", disk) as vm:
                vm.wait_kernel("Linux version", _TIMEOUT / 4)
                vm.wait_shell(_TIMEOUT)
                vm.shell("systemctl is-system-running --wait || :", _TIMEOUT)
        except LabError:
            return "tcg"  # whatever went wrong: that is the answer the probe is for
    return "kvm"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith("model name")), "")
