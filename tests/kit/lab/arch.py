# SPDX-License-Identifier: Apache-2.0
"""Guest architectures: what a machine of each needs of QEMU, of Debian and of the kernel's command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The architecture that the lab's own host is taken to have: its programs need no emulation, and KVM may run it.
NATIVE = "amd64"


@dataclass(frozen=True)
class Arch:
    """One architecture, by Debian's name for it."""

    name: str
    #: QEMU's name of the target, as in qemu-system-TARGET.
    target: str
    #: QEMU's name of it as a user-mode program, as in qemu-USER.
    user: str
    #: The CPU model and memory of a VM that does not say which.
    cpu: str
    memory_mb: int
    #: The kernel's console, where its log goes; what QEMU connects to its first serial line.
    console: str
    #: The terminal of the virtio console: the hypervisor consoles are numbered in the order in which they are found.
    shell: str = "hvc0"
    #: What the virtio devices hang on: the end of their names.
    bus: str = "pci"
    #: Kernel modules of the initrd, beside what is built in.
    modules: tuple[str, ...] = ("virtio_pci", "virtio_blk", "ext4", "virtio_console", "virtio_rng")
    kernel_args: str = ""
    #: QEMU's trace event of a write to that serial line, if it has one that lab.record knows.
    trace: str = ""
    #: For binfmt_misc: e_machine of its ELF files, as the two bytes of the file, and whether they are big-endian.
    machine: bytes = b""
    big_endian: bool = False


ARCHES: Mapping[str, Arch] = {
    arch.name: arch
    for arch in (
        Arch(
            "amd64",
            "x86_64",
            "x86_64",
            "qemu64",
            512,
            "ttyS0",
            kernel_args="tsc=reliable",
            trace="serial_write",
            machine=b"\x3e\x00",
        ),
        # hvc0 is the machine's own console (spapr-vty)
        Arch("ppc64el", "ppc64", "ppc64le", "power9", 1024, "hvc0", "hvc1", machine=b"\x15\x00"),
        Arch(
            "s390x",
            "s390x",
            "s390x",
            "qemu",
            512,
            "ttyS1",
            bus="ccw",
            modules=("virtio_ccw", "virtio_blk", "ext4", "virtio_console", "virtio_rng"),
            machine=b"\x00\x16",
            big_endian=True,
        ),
        Arch("arm64", "aarch64", "aarch64", "cortex-a57", 512, "ttyAMA0", machine=b"\xb7\x00"),
        Arch(
            "loong64", "loongarch64", "loongarch64", "la464", 1024, "ttyS0", trace="serial_write", machine=b"\x02\x01"
        ),
    )
}
